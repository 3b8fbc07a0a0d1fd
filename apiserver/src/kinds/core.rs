//! ConfigMaps, Secrets, Namespaces, Nodes and roles.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::verbs::meta;

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
    // The single range is the old name of the first one, and decides.
    let range = object["spec"]["podCIDR"].clone();
    if range.as_str().is_some_and(|range| !range.is_empty()) {
        if object["spec"]["podCIDRs"][0] != range {
            object["spec"]["podCIDRs"] = json!([range]);
        }
    } else if object["spec"]["podCIDRs"][0].is_string() {
        object["spec"]["podCIDR"] = object["spec"]["podCIDRs"][0].clone();
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
