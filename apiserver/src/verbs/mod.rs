//! The verbs on resources, in the order in which the real server does things.

pub mod create;
pub mod delete;
pub mod evict;
pub mod patch;
pub mod read;
pub mod scale;
mod spelled;
pub mod text;
pub mod update;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::auth::User;
use crate::failure::{Failure, Outcome};
use crate::fields::managed::{Manager, Write};
use crate::registry::Resource;
use crate::request::{Query, Target, WriteOptions};
use crate::selector::{FieldSelector, LabelSelector};
use crate::state::State;

/// A request for a resource.
pub struct Call {
    /// What the path names.
    pub target: Target,
    /// Query parameters.
    pub query: Query,
    /// The resource.
    pub resource: Arc<Resource>,
    /// Media type of the body.
    pub media_type: String,
    /// The body.
    pub body: Bytes,
    /// The client's program, for managedFields.
    pub user_agent: String,
    /// Who asks.
    pub user: Arc<User>,
}

/// The answer to a write.
#[derive(Debug)]
pub struct Written {
    /// HTTP status.
    pub code: u16,
    /// The body.
    pub object: Value,
    /// Texts of `Warning` headers.
    pub warnings: Vec<String>,
}

impl Call {
    /// The object's namespace in the store.
    pub fn namespace(&self) -> &str {
        if self.resource.namespaced { &self.target.namespace } else { "" }
    }

    /// Paths that this endpoint leaves alone.
    pub fn reset(&self) -> &'static [&'static [&'static str]] {
        match (self.target.subresource.as_str(), &self.resource.custom) {
            ("", Some(custom)) if !custom.status => &[],
            ("", _) if self.resource.subresource("status").is_none() => &[],
            ("", _) => &[&["f:status"]],
            ("status", Some(_)) => &[&["f:spec"]],
            ("status", None) => &[&["f:spec"]],
            _ => &[],
        }
    }

    /// This write, for the book of owners.
    pub fn write<'a>(&'a self, options: &WriteOptions, apply: bool, now: String) -> Write<'a> {
        let manager = Manager {
            name: options.manager.clone(),
            apply,
            api_version: self.resource.api_version(),
            subresource: self.target.subresource.clone(),
        };
        let versions = self.resource.custom.as_ref().map(|custom| &*custom.schemas);
        Write { manager, node: &self.resource.schema, reset: self.reset(), versions, now }
    }

    /// 409 for a stale revision.
    pub fn modified(&self) -> Failure {
        Failure::modified(&self.resource.group, &self.resource.plural, &self.target.name)
    }
}

/// What a list or watch selects.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// Reads both selectors and refuses fields that the resource does not select by.
    pub fn parse(query: &Query, resource: &Resource) -> Outcome<Self> {
        let selection = Self::read(query)?;
        for term in selection.fields.terms() {
            check_field(&term.path, resource)?;
        }
        Ok(selection)
    }

    /// Reads both selectors, whatever fields there are.
    pub fn read(query: &Query) -> Outcome<Self> {
        let labels = LabelSelector::parse(query.get("labelSelector")).map_err(Failure::bad_request)?;
        let fields = FieldSelector::parse(query.get("fieldSelector")).map_err(Failure::bad_request)?;
        Ok(Self { labels, fields })
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object["metadata"]["labels"].as_object()) && self.fields.matches(|path| field(object, path))
    }
}

/// Fields that a resource selects by, besides name and namespace.
fn selectable(resource: &Resource) -> Option<&'static [&'static str]> {
    Some(match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "replicationcontrollers") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        _ => return None,
    })
}

fn check_field(path: &str, resource: &Resource) -> Outcome<()> {
    let known = selectable(resource);
    // Kinds that name their fields have no namespace where there is none.
    let within = resource.namespaced || (resource.custom.is_none() && known.is_none());
    if path == "metadata.name" || (path == "metadata.namespace" && within) {
        return Ok(());
    }
    if known.is_some_and(|fields| fields.contains(&path)) {
        return Ok(());
    }
    if let Some(custom) = &resource.custom {
        if custom.selectable.iter().any(|field| field == path) {
            return Ok(());
        }
        return Err(Failure::bad_request(format!("field label not supported: {path}")));
    }
    Err(Failure::bad_request(match known {
        Some(_) => format!("field label not supported: {path}"),
        None => format!("\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
    }))
}

fn field(object: &Value, path: &str) -> String {
    // Events are kept in the core form, and selected by either.
    let path = match path.strip_prefix("regarding.") {
        Some(rest) => &format!("involvedObject.{rest}"),
        None if path == "reportingController" => "reportingComponent",
        None => path,
    };
    let found = path.split('.').try_fold(object, |value, part| value.get(part));
    match found {
        Some(Value::String(text)) => text.clone(),
        // A boolean that is not set is false.
        None if matches!(path, "spec.unschedulable" | "spec.hostNetwork") => "false".into(),
        None | Some(Value::Null) => match path {
            "source" => object["source"]["component"].as_str().unwrap_or_default().to_owned(),
            "status.replicas" => "0".into(),
            "status.successful" => object["status"]["succeeded"].as_i64().unwrap_or(0).to_string(),
            _ => String::new(),
        },
        Some(other) => match path {
            "source" => other["component"].as_str().unwrap_or_default().to_owned(),
            _ => other.to_string(),
        },
    }
}

/// A text in `metadata`; empty if absent.
pub fn meta<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"][name].as_str().unwrap_or_default()
}

/// Whether two objects are the same but for revision and the times of their owners' last writes.
pub fn same(a: &Value, b: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
            for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
                entry.as_object_mut().map(|entry| entry.remove("time"));
            }
        }
        object
    };
    bare(a) == bare(b)
}

/// The object in the version and group of the resource that was asked for.
pub fn in_version(object: &Value, resource: &Resource) -> Value {
    crate::kinds::to_version(object, resource)
}

/// Reads a resource version, or the words of Go's parser.
pub fn parse_revision(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let why = if digits { "value out of range" } else { "invalid syntax" };
    let parsed = if digits { text.parse().ok() } else { None };
    parsed.ok_or_else(|| format!("strconv.ParseUint: parsing \"{text}\": {why}"))
}

/// A write on locked state.
pub fn locked(state: &std::sync::Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    // A panic while holding the lock is a bug that the caller saw; the state itself is only changed by commits.
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
