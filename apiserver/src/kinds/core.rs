//! ConfigMaps, Secrets, Namespaces, Nodes and roles.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::verbs::meta;

const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
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

/// A promise about the Secrets of an account that is going out of use, when it is new.
pub(super) fn account_warnings(account: &Value, old: Option<&Value>) -> Vec<String> {
    let promises = |account: &Value| account["metadata"]["annotations"].get(MOUNTABLE).is_some();
    if !promises(account) || old.is_some_and(promises) {
        return Vec::new();
    }
    let instead = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    vec![format!("metadata.annotations[{MOUNTABLE}]: {instead}")]
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

/// A policy is about what comes in, and about what goes out if it says something about that.
pub(super) fn default_policy(object: &mut Value) {
    let spec = &mut object["spec"];
    if !spec.is_object() {
        return;
    }
    for direction in ["ingress", "egress"] {
        for rule in spec.get_mut(direction).and_then(Value::as_array_mut).into_iter().flatten() {
            for port in rule.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if port["protocol"].is_null() {
                    port["protocol"] = json!("TCP");
                }
            }
        }
    }
    if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
        let out = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
        spec["policyTypes"] = if out { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
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
