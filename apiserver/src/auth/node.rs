//! What a kubelet may do: what every node may, and of secrets and their like only what its own pods use.

use std::sync::Arc;

use serde_json::Value;

use super::attributes::Attributes;
use super::rbac::Rule;
use crate::store::{Key, Store};

/// Pods that only mirror a file of the kubelet refer to nothing.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether the node may; if not, why (often without words, as the real server).
pub(super) fn authorize(store: &Store, rules: &[Rule], node: &str, wanted: &Attributes) -> Result<(), String> {
    let generic = || match rules.iter().any(|rule| rule.allows(wanted)) {
        true => Ok(()),
        false => Err(String::new()),
    };
    if !wanted.path.is_empty() {
        return generic();
    }
    match (wanted.group.as_str(), wanted.resource.as_str()) {
        ("", "secrets" | "configmaps") => {
            let only = match () {
                () if !wanted.reads() => "can only read resources of this type",
                () if !wanted.subresource.is_empty() => "cannot read subresource",
                () if wanted.namespace.is_empty() => "can only read namespaced object of this type",
                () => return related(store, node, wanted),
            };
            Err(only.into())
        }
        ("", "persistentvolumeclaims" | "persistentvolumes") => get_related(store, node, wanted),
        ("", "serviceaccounts") => {
            // The kubelet's credential providers read the account of a pod.
            if wanted.verb == "get" {
                return get_related(store, node, wanted);
            }
            if wanted.verb != "create" || wanted.name.is_empty() {
                return Err("can only create tokens for individual service accounts".into());
            }
            if wanted.subresource != "token" {
                return Err("can only create token subresource of serviceaccount".into());
            }
            related(store, node, wanted)
        }
        ("coordination.k8s.io", "leases") => lease(node, wanted),
        ("storage.k8s.io", "csinodes") => own_by_name(node, wanted, "CSINode"),
        ("", "nodes") => own_node(node, wanted),
        ("", "pods") => pods(store, node, wanted),
        _ => generic(),
    }
}

fn get_related(store: &Store, node: &str, wanted: &Attributes) -> Result<(), String> {
    if wanted.verb != "get" {
        return Err("can only get individual resources of this type".into());
    }
    if !wanted.subresource.is_empty() {
        return Err("cannot get subresource".into());
    }
    related(store, node, wanted)
}

fn own_by_name(node: &str, wanted: &Attributes, kind: &str) -> Result<(), String> {
    if !matches!(wanted.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return Err(format!("can only get, create, update, patch, or delete a {kind}"));
    }
    if !wanted.subresource.is_empty() {
        return Err(format!("cannot authorize {kind} subresources"));
    }
    // The name is not known on create; admission looks at it.
    if wanted.verb != "create" && wanted.name != node {
        return Err(format!("can only access {kind} with the same name as the requesting node"));
    }
    Ok(())
}

fn lease(node: &str, wanted: &Attributes) -> Result<(), String> {
    if !matches!(wanted.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".into());
    }
    if wanted.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".into());
    }
    if wanted.verb != "create" && wanted.name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn own_node(node: &str, wanted: &Attributes) -> Result<(), String> {
    match (wanted.subresource.as_str(), wanted.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match wanted.name.as_str() {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => Err(String::new()),
    }
}

fn pods(store: &Store, node: &str, wanted: &Attributes) -> Result<(), String> {
    match (wanted.subresource.as_str(), wanted.verb.as_str()) {
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
        ("", "get") => get_related(store, node, wanted),
        ("", "list" | "watch") if !wanted.name.is_empty() => related(store, node, wanted),
        ("", "list" | "watch") if wanted.fields.exact("spec.nodeName") == Some(node) => Ok(()),
        ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".into()),
        _ => Err(String::new()),
    }
}

/// Whether a pod of the node uses the object.
fn related(store: &Store, node: &str, wanted: &Attributes) -> Result<(), String> {
    if wanted.name.is_empty() {
        return Err("No Object name found".into());
    }
    let found = match wanted.resource.as_str() {
        "pods" => {
            let key = Key { resource: "/pods".into(), namespace: wanted.namespace.clone(), name: wanted.name.clone() };
            store.get(&key).is_some_and(|pod| pod["spec"]["nodeName"] == node)
        }
        "persistentvolumes" => pods_of(store, node, "").any(|pod| {
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            claims(&pod).any(|claim| volume_of(store, namespace, claim).as_deref() == Some(wanted.name.as_str()))
        }),
        "persistentvolumeclaims" => {
            pods_of(store, node, &wanted.namespace).any(|pod| claims(&pod).any(|claim| claim == wanted.name))
        }
        "serviceaccounts" => {
            pods_of(store, node, &wanted.namespace).any(|pod| pod["spec"]["serviceAccountName"] == wanted.name.as_str())
        }
        kind => {
            let name = Some(wanted.name.as_str());
            pods_of(store, node, &wanted.namespace).any(|pod| refers(&pod["spec"], kind == "secrets", name))
        }
    };
    if found { Ok(()) } else { Err(format!("no relationship found between node '{node}' and this object")) }
}

fn pods_of<'a>(store: &'a Store, node: &'a str, namespace: &'a str) -> impl Iterator<Item = Arc<Value>> {
    let pods = store.list(&"/pods".into(), namespace).map(|(_, pod)| pod);
    pods.filter(move |pod| pod["spec"]["nodeName"] == node && pod["metadata"]["annotations"][MIRROR].is_null())
}

fn claims(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

fn volume_of(store: &Store, namespace: &str, claim: &str) -> Option<String> {
    let resource = "/persistentvolumeclaims".into();
    let key = Key { resource, namespace: namespace.to_owned(), name: claim.to_owned() };
    store.get(&key)?["spec"]["volumeName"].as_str().map(str::to_owned)
}

/// Whether a pod's specification names a secret (or a config map), this one or any, anywhere: in volumes, variables or to
/// pull its images.
pub(crate) fn refers(value: &Value, secret: bool, name: Option<&str>) -> bool {
    let is = |found: &Value| found.as_str().is_some_and(|found| name.is_none_or(|name| name == found));
    match value {
        Value::Array(list) => list.iter().any(|value| refers(value, secret, name)),
        Value::Object(fields) => fields.iter().any(|(field, value)| {
            let here = match (field.as_str(), secret) {
                ("secret" | "secretRef" | "secretKeyRef", true) => is(&value["secretName"]) || is(&value["name"]),
                ("imagePullSecrets", true) => value.as_array().into_iter().flatten().any(|pull| is(&pull["name"])),
                ("configMap" | "configMapRef" | "configMapKeyRef", false) => is(&value["name"]),
                _ => false,
            };
            here || refers(value, secret, name)
        }),
        _ => false,
    }
}
