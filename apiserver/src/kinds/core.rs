//! ConfigMaps, Secrets, Namespaces, Nodes and roles.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::names::is_config_key;
use crate::failure::FieldError;
use crate::verbs::meta;

const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const IMMUTABLE: &str = "field is immutable when `immutable` is set";
const RBAC: &str = "rbac.authorization.k8s.io";

/// The label with its name.
pub(super) fn default_namespace(object: &mut Value) {
    let name = meta(object, "name").to_owned();
    if !name.is_empty() {
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
    }
}

/// A new namespace is active, and held by its controller.
pub(super) fn prepare_namespace(object: &mut Value) {
    default_namespace(object);
    object["status"] = json!({"phase": "Active"});
    let finalizers = object["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == "kubernetes") {
        object["spec"]["finalizers"] = Value::Array([finalizers, vec![json!("kubernetes")]].concat());
    }
}

/// A new node takes no pods before somebody says that it is ready.
pub(super) fn prepare_node(object: &mut Value) {
    let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    let taints = object["spec"]["taints"].as_array().cloned().unwrap_or_default();
    if !taints.contains(&taint) {
        object["spec"]["taints"] = Value::Array([taints, vec![taint]].concat());
    }
}

/// `stringData` is folded into `data`.
pub(super) fn default_secret(object: &mut Value) {
    let Some(texts) = object.as_object_mut().and_then(|object| object.remove("stringData")) else { return };
    for (key, text) in texts.as_object().into_iter().flatten() {
        object["data"][key] = json!(STANDARD.encode(text.as_str().unwrap_or_default()));
    }
}

/// Allocatable is the capacity, if nothing else is said.
pub(super) fn default_node(object: &mut Value) {
    if let (true, Some(range)) = (object["spec"]["podCIDRs"].is_null(), object["spec"]["podCIDR"].as_str()) {
        object["spec"]["podCIDRs"] = json!([range]);
    }
    if object["status"]["allocatable"].is_null() && object["status"]["capacity"].is_object() {
        object["status"]["allocatable"] = object["status"]["capacity"].clone();
    }
}

/// API groups of what a binding refers to.
pub(super) fn default_rbac(object: &mut Value) {
    if object["roleRef"].is_object() && object["roleRef"]["apiGroup"].as_str().unwrap_or_default().is_empty() {
        object["roleRef"]["apiGroup"] = json!(RBAC);
    }
    for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if subject["kind"] != "ServiceAccount" && subject["apiGroup"].as_str().unwrap_or_default().is_empty() {
            subject["apiGroup"] = json!(RBAC);
        }
    }
}

pub(super) fn validate_config_map(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for name in ["data", "binaryData"] {
        for key in object[name].as_object().into_iter().flatten().map(|(key, _)| key) {
            let field = format!("{name}[{key}]");
            if !is_config_key(key) {
                errors.push(FieldError::invalid(&*field, &json!(key), KEY));
            }
            if name == "data" && object["binaryData"].get(key).is_some() {
                errors.push(FieldError::invalid(field, &json!(key), "duplicate of key present in binaryData"));
            }
        }
    }
    errors.extend(immutable_errors(object, old, &["data", "binaryData"]));
    errors
}

pub(super) fn validate_secret(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in object["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if !is_config_key(key) {
            errors.push(FieldError::invalid(format!("data[{key}]"), &json!(key), KEY));
        }
    }
    if let Some(old) = old
        && old["type"] != object["type"]
    {
        errors.push(FieldError::invalid("type", &object["type"], "field is immutable"));
    }
    errors.extend(immutable_errors(object, old, &["data"]));
    errors
}

fn immutable_errors(object: &Value, old: Option<&Value>, fields: &[&str]) -> Vec<FieldError> {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return Vec::new() };
    let mut errors = Vec::new();
    if object["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", IMMUTABLE));
    }
    for field in fields {
        if old[*field] != object[*field] {
            errors.push(FieldError::forbidden(*field, IMMUTABLE));
        }
    }
    errors
}
