//! Manifests: files of several objects, applied as `kubectl apply --server-side` does it.

use std::path::{Path, PathBuf};

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{ask, message};
use crate::body::parse_yaml;
use crate::server::ApiServer;
use crate::verbs::{locked, meta};

const MANAGER: &str = "apiserver-testing";
const DEFINITION: &str = "CustomResourceDefinition";

/// Manifests cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A document is no YAML.
    #[error("document {number}: {message}")]
    Syntax {
        /// Which one, from 1.
        number: usize,
        /// Why.
        message: String,
    },
    /// A document is no object with kind, version and name.
    #[error("document {number}: {missing} is missing")]
    Incomplete {
        /// Which one, from 1.
        number: usize,
        /// What is missing.
        missing: &'static str,
    },
    /// Nothing of this kind is served.
    #[error("{what}: this server has no {kind} of {api_version}; a custom resource needs its CustomResourceDefinition")]
    UnknownKind {
        /// Kind and name.
        what: String,
        /// Its kind.
        kind: String,
        /// Its group and version.
        api_version: String,
    },
    /// The server refused an object.
    #[error("{what}: {code}: {message}")]
    Refused {
        /// Kind and name.
        what: String,
        /// HTTP status.
        code: u16,
        /// For people.
        message: String,
    },
    /// A definition is there, but not served.
    #[error("{name} is not established: {message}")]
    NotEstablished {
        /// Name of the definition.
        name: String,
        /// Why not.
        message: String,
    },
}

/// Applies manifests: YAML or JSON, several documents, Lists of objects. Definitions come first and are established when
/// this returns, then namespaces, then the rest in its order; what names no namespace is in `default`. What is there already
/// is changed to what the manifests say. The objects are returned in the order in which they were applied.
///
/// # Errors
/// The first object that cannot be applied; those before it are.
pub async fn apply(server: &ApiServer, manifests: &str) -> Result<Vec<Value>, ManifestError> {
    let mut objects = documents(manifests)?;
    objects.sort_by_key(|object| match object["kind"].as_str() {
        Some(DEFINITION) => 0,
        Some("Namespace") => 1,
        _ => 2,
    });
    let mut applied = Vec::new();
    for object in objects {
        applied.push(apply_one(server, &object).await?);
    }
    Ok(applied)
}

/// Applies the manifests of a file, or of all `.yaml`, `.yml` and `.json` files of a directory, taken together.
///
/// # Errors
/// A file cannot be read, or as [`apply`] says.
pub async fn apply_path(server: &ApiServer, path: impl AsRef<Path>) -> Result<Vec<Value>, ManifestError> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(failed(path));
    let path = path.as_ref();
    if !path.is_dir() {
        return apply(server, &read(path)?).await;
    }
    let entries = std::fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut files: Vec<PathBuf> = entries.map_err(failed(path))?;
    let is_manifest =
        |file: &Path| file.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|own| ending == *own));
    files.retain(|file| is_manifest(file));
    files.sort();
    let texts = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    apply(server, &texts.join("\n---\n")).await
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> ManifestError {
    let path = path.to_owned();
    move |source| ManifestError::Read { path, source }
}

/// The objects of all documents, each with kind, version and name.
fn documents(text: &str) -> Result<Vec<Value>, ManifestError> {
    let mut objects = Vec::new();
    for (at, document) in split(text).iter().enumerate() {
        let number = at + 1;
        let value = parse_yaml(document.as_bytes()).map_err(|message| ManifestError::Syntax { number, message })?;
        let list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match value["items"].as_array().filter(|_| list) {
            // A document of comments alone is nothing.
            None if value.is_null() => {}
            None => objects.push((number, value)),
            Some(items) => objects.extend(items.iter().map(|item| (number, item.clone()))),
        }
    }
    for (number, object) in &objects {
        let there = |path: &str| object.pointer(path).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        let missing = ["/apiVersion", "/kind", "/metadata/name"].into_iter().find(|path| !there(path));
        if let Some(missing) = missing {
            let missing = missing.trim_start_matches('/');
            return Err(ManifestError::Incomplete { number: *number, missing });
        }
    }
    Ok(objects.into_iter().map(|(_, object)| object).collect())
}

/// Parts a text where a line begins with three dashes.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        let rest = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if rest.is_some() {
            documents.push(String::new());
        }
        if let Some(last) = documents.last_mut() {
            last.push_str(rest.unwrap_or(line));
            last.push('\n');
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    documents
}

async fn apply_one(server: &ApiServer, object: &Value) -> Result<Value, ManifestError> {
    let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let (kind, api_version, name) = (text("kind"), text("apiVersion"), meta(object, "name"));
    let what = format!("{kind} {name}");
    let path = path_of(server, object).ok_or(ManifestError::UnknownKind { what: what.clone(), kind, api_version })?;
    let path = format!("{path}?fieldManager={MANAGER}&force=true");
    let (code, answer) = ask(server.clone(), Method::PATCH, &path, "application/apply-patch+yaml", object).await;
    if !matches!(code, 200 | 201) {
        return Err(ManifestError::Refused { what, code, message: message(&answer) });
    }
    match object["kind"] == DEFINITION {
        true => established(server, name, &path).await,
        false => Ok(answer),
    }
}

/// The path of an object, if its kind is served.
fn path_of(server: &ApiServer, object: &Value) -> Option<String> {
    let api_version = object["apiVersion"].as_str()?;
    let state = locked(&server.state);
    let mut all = state.registry.all().iter();
    let resource = all.find(|own| own.api_version() == api_version && object["kind"] == own.kind.as_str())?;
    let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let root = if resource.group.is_empty() { "/api" } else { "/apis" };
    let space = match (resource.namespaced, meta(object, "namespace")) {
        (false, _) => String::new(),
        (true, "") => "/namespaces/default".to_owned(),
        (true, namespace) => format!("/namespaces/{}", escape(namespace)),
    };
    Some(format!("{root}/{api_version}{space}/{}/{}", resource.plural, escape(meta(object, "name"))))
}

/// Definitions are established in the write that makes them, if nothing speaks against it.
async fn established(server: &ApiServer, name: &str, path: &str) -> Result<Value, ManifestError> {
    let path = path.split('?').next().unwrap_or(path);
    let (_, found) = ask(server.clone(), Method::GET, path, "application/json", &Value::Null).await;
    let conditions = found["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if conditions.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
        return Ok(found);
    }
    let false_ones = conditions.iter().filter(|condition| condition["status"] == "False");
    let reasons: Vec<String> = false_ones.map(message).filter(|message| !message.is_empty()).collect();
    Err(ManifestError::NotEstablished { name: name.to_owned(), message: reasons.join("; ") })
}
