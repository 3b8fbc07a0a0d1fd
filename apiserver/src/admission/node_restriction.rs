//! A kubelet changes its own node, its own lease and its own pods, and asks for tokens of its own pods.

use std::collections::BTreeSet;

use serde_json::Value;

use super::shown_name;
use crate::failure::{Failure, Outcome};
use crate::state::State;
use crate::store::Key;
use crate::verbs::{Call, meta};

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels of the reserved domains that a kubelet may set on its node.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/exclude-disruption",
];

fn refuse(call: &Call, name: &str, why: &str) -> Failure {
    Failure::forbidden(&call.resource.group, &call.resource.plural, name, why)
}

pub(super) fn create(state: &State, call: &Call, object: &Value) -> Outcome<()> {
    let Some(node) = call.user.node() else { return Ok(()) };
    let name = shown_name(object);
    let no = |why: String| Err(refuse(call, name, &why));
    match call.resource.plural.as_str() {
        "pods" => {
            if object["metadata"]["annotations"][MIRROR].is_null() {
                return no(format!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                ));
            }
            if object["spec"]["nodeName"] != node {
                return no(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
            }
            if let Some(why) = owner_fault(state, node, object) {
                return no(why);
            }
        }
        "nodes" => {
            if name != node {
                return no(format!("node {node:?} is not allowed to modify node {name:?}"));
            }
            let forbidden = forbidden_labels(object, &Value::Null);
            if !forbidden.is_empty() {
                return no(format!("node {node:?} is not allowed to set the following labels: {forbidden}"));
            }
            if object["metadata"]["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty()) {
                return no(format!("node {node:?} is not allowed to set ownerReferences"));
            }
        }
        "leases" | "csinodes" if name != node => {
            let what = if call.resource.plural == "leases" { "node lease" } else { "CSINode" };
            return no(format!("can only access {what} with the same name as the requesting node"));
        }
        _ => {}
    }
    Ok(())
}

/// What is wrong with the owner of a mirror pod, which must be the node.
fn owner_fault(state: &State, node: &str, pod: &Value) -> Option<String> {
    let owners = pod["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    let owner = match owners {
        [] => return Some(format!("node {node:?} can only create pods with an owner reference set to itself")),
        [owner] => owner,
        _ => return Some(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return Some(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return Some(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return Some(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let key = Key { resource: "/nodes".into(), namespace: String::new(), name: node.to_owned() };
    let found = state.store.get(&key);
    let uid = found.as_ref().map_or("", |node| meta(node, "uid"));
    let own = owner["uid"].as_str().unwrap_or_default();
    (own != uid).then(|| format!("node {node} UID mismatch: expected {uid} got {own}"))
}

pub(super) fn update(call: &Call, object: &Value, current: &Value) -> Outcome<()> {
    let Some(node) = call.user.node() else { return Ok(()) };
    let name = meta(current, "name");
    let no = |why: String| Err(refuse(call, name, &why));
    match (call.resource.plural.as_str(), call.target.subresource.as_str()) {
        ("pods", "status") => {
            if current["spec"]["nodeName"] != node {
                return no(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            if object["metadata"]["labels"] != current["metadata"]["labels"] {
                return no(format!("node {node:?} cannot update labels through pod status"));
            }
        }
        ("nodes", _) => {
            if name != node {
                return no(format!("node {node:?} is not allowed to modify node {name:?}"));
            }
            if object["spec"]["configSource"] != current["spec"]["configSource"] {
                return no(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            if object["spec"]["taints"] != current["spec"]["taints"] {
                return no(format!("node {node:?} is not allowed to modify taints"));
            }
            let forbidden = forbidden_labels(object, current);
            if !forbidden.is_empty() {
                return no(format!("is not allowed to modify labels: {forbidden}"));
            }
            if object["metadata"]["ownerReferences"] != current["metadata"]["ownerReferences"] {
                return no(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn delete(call: &Call, live: &Value) -> Outcome<()> {
    let Some(node) = call.user.node() else { return Ok(()) };
    if call.resource.plural == "pods" && live["spec"]["nodeName"] != node {
        let why = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
        return Err(refuse(call, meta(live, "name"), &why));
    }
    Ok(())
}

pub(super) fn token(state: &State, call: &Call, request: &Value) -> Outcome<()> {
    let Some(node) = call.user.node() else { return Ok(()) };
    let no = |why: &str| Err(refuse(call, &call.target.name, why));
    let bound = &request["spec"]["boundObjectRef"];
    let text = |name: &str| bound[name].as_str().unwrap_or_default();
    if !bound.is_object() || (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
        return no("node requested token not bound to a pod");
    }
    if text("uid").is_empty() {
        return no("node requested token with a pod binding without a uid");
    }
    let key = Key { resource: "/pods".into(), namespace: call.target.namespace.clone(), name: text("name").into() };
    let Some(pod) = state.store.get(&key) else {
        return Err(Failure::not_found("", "pods", text("name")));
    };
    if meta(&pod, "uid") != text("uid") {
        return no(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
             deleted and then recreated",
            text("uid")
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return no("node requested token bound to a pod scheduled on a different node");
    }
    for audience in request["spec"]["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let known = projected_audiences(&pod).any(|own| own == audience);
        if !known && !state.access.tokens.audiences.iter().any(|own| own == audience) {
            return no(&format!(
                "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
                call.user.name
            ));
        }
    }
    Ok(())
}

fn projected_audiences(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    sources.filter_map(|source| source["serviceAccountToken"]["audience"].as_str())
}

/// Labels of the domains of Kubernetes that differ and are not the kubelet's to set; in one text.
fn forbidden_labels(object: &Value, current: &Value) -> String {
    let labels = |object: &Value| object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (new, old) = (labels(object), labels(current));
    let names: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let changed = names.into_iter().filter(|name| new.get(*name) != old.get(*name));
    changed.filter(|name| !is_own(name)).cloned().collect::<Vec<_>>().join(", ")
}

fn is_own(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    let reserved = within("kubernetes.io") || within("k8s.io");
    let given = within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    !within("node-restriction.kubernetes.io") && (!reserved || given || OWN_LABELS.contains(&label))
}
