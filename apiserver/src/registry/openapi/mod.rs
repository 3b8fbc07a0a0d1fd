//! OpenAPI v3: an index, and one document for each group-version. Clients look for the PATCH of a kind and its query
//! parameters (does the server validate fields, does it know dry runs) and explain a kind by its schema.
//! The second version, which old clients ask for, is made of the same (`v2`), and sent in protobuf (`wire`).

mod paths;
mod roots;
mod schemas;
mod v2;
mod wire;

pub use v2::v2;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Registry;
use crate::schema::builtin;

/// Version of Kubernetes that the documents are about.
const VERSION: &str = "1.34";
const TITLE: &str = "Kubernetes";
const REFERENCE: &str = "#/components/schemas/";

/// A document as it is sent.
#[derive(Clone, Debug)]
pub struct Document {
    /// Changes with the text: clients keep a document of a known hash.
    pub hash: Arc<str>,
    /// JSON.
    pub text: Bytes,
}

/// `api/v1` or `apis/GROUP/VERSION`, as in paths.
fn place(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn group_versions(registry: &Registry) -> BTreeSet<(String, String)> {
    registry.all().iter().map(|resource| (resource.group.clone(), resource.version.clone())).collect()
}

/// `GET /openapi/v3`.
pub fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    let mut add = |place: String, document: Option<Document>| {
        let Some(document) = document else { return };
        let url = format!("/openapi/v3/{place}?hash={}", document.hash);
        paths.insert(place, json!({"serverRelativeURL": url}));
    };
    for (group, version) in group_versions(registry) {
        add(place(&group, &version), document(registry, &group, &version));
    }
    for place in roots::places(registry) {
        let found = root(registry, &place);
        add(place, found);
    }
    json!({"paths": paths})
}

/// The document of a group-version, if it is served.
pub fn document(registry: &Registry, group: &str, version: &str) -> Option<Document> {
    let custom = registry.of_version(group, version).any(|resource| resource.custom.is_some());
    kept(!custom, (group, version), || write(registry, group, version))
}

/// The document of what tells what is served: `version`, `api`, `apis` or `apis/GROUP`.
pub fn root(registry: &Registry, place: &str) -> Option<Document> {
    kept(true, (place, ""), || roots::write(registry, place))
}

/// A document as it was made before, if it never changes: built-in ones are large, those of definitions come and go and
/// are small.
fn kept(fixed: bool, key: (&str, &str), make: impl FnOnce() -> Option<Text>) -> Option<Document> {
    static KEPT: Mutex<BTreeMap<(String, String), Document>> = Mutex::new(BTreeMap::new());
    let key = (key.0.to_owned(), key.1.to_owned());
    let mut known = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(document), true) = (known.get(&key), fixed) {
        return Some(document.clone());
    }
    let text = Bytes::from(make()?.print());
    let digest = ring::digest::digest(&ring::digest::SHA512, &text);
    let hash = digest.as_ref().iter().fold(String::new(), |mut hash, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hash, "{byte:02X}");
        hash
    });
    let document = Document { hash: Arc::from(hash), text };
    if fixed {
        known.insert(key, document.clone());
    }
    Some(document)
}

/// What a document is about.
struct Text {
    title: &'static str,
    version: &'static str,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Text {
    /// In the order of the real server.
    fn print(&self) -> String {
        let info = json!({"title": self.title, "version": self.version});
        let scheme = json!({"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication",
            "name": "authorization", "in": "header"}});
        format!(
            "{{\"openapi\":\"3.0.0\",\"info\":{info},\"paths\":{},\"components\":{{\"schemas\":{},\"securitySchemes\":{scheme}}}}}",
            json!(self.paths),
            json!(self.schemas)
        )
    }
}

fn write(registry: &Registry, group: &str, version: &str) -> Option<Text> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    let mut wanted = Vec::new();
    for resource in registry.of_version(group, version) {
        let (name, schema) = schemas::of_kind(resource);
        schemas::references(&schema, &mut wanted);
        schemas.insert(name.clone(), schema);
        paths::add(&mut paths, resource, &name);
        if resource.custom.is_some() {
            let list = schemas::list_of(resource, &name);
            schemas::references(&list, &mut wanted);
            schemas.insert(format!("{name}List"), list);
            wanted.extend(["DeleteOptions", "Status"].map(|name| format!("{}{name}", schemas::META)));
        }
        for subresource in &resource.subresources {
            if let Some((group, version)) = &subresource.group_version {
                let name = schemas::builtin_name(group, version, &subresource.kind);
                if let Some(node) = builtin::types().get(name.as_str()) {
                    let schema = schemas::with_kind(schemas::of_node(node), group, version, &subresource.kind);
                    schemas::references(&schema, &mut wanted);
                    schemas.insert(name, schema);
                }
            }
        }
    }
    if paths.is_empty() {
        return None;
    }
    schemas::complete(&mut schemas, wanted);
    let custom = registry.of_version(group, version).any(|resource| resource.custom.is_some());
    let (title, version) = if custom { ("Kubernetes CRD Swagger", "v0.1.0") } else { (TITLE, VERSION) };
    Some(Text { title, version, paths, schemas })
}

#[cfg(test)]
mod tests;
