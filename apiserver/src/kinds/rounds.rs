//! How often the real server looks at the metadata of what is changed: for all kinds, and with the rules of each kind. All
//! of it is told.

use serde_json::Value;

use super::names;
use crate::failure::FieldError;
use crate::registry::Resource;

/// What the rules of a kind look at, beside what is looked at for all kinds.
#[derive(Clone, Copy)]
struct Rounds {
    /// How metadata changes.
    changes: usize,
    /// The whole of it, as if the object were new.
    wholes: usize,
    /// Whether finalizers must be well known or belong to a domain.
    finalizers: bool,
}

const fn rounds(changes: usize, wholes: usize, finalizers: bool) -> Rounds {
    Rounds { changes, wholes, finalizers }
}

fn of(resource: &Resource, subresource: &str) -> Rounds {
    match (resource.group.as_str(), resource.plural.as_str()) {
        _ if resource.custom.is_some() => rounds(1, 0, false),
        ("policy", _) | ("", "events") => rounds(0, 0, false),
        ("coordination.k8s.io" | "apiextensions.k8s.io", _) => rounds(1, 0, false),
        ("node.k8s.io", _) => rounds(1, 1, false),
        _ if subresource == "status" => rounds(1, 0, true),
        ("rbac.authorization.k8s.io", _) | ("", "persistentvolumeclaims") => rounds(1, 2, true),
        ("", "persistentvolumes") => rounds(0, 2, true),
        ("", "limitranges") | ("discovery.k8s.io", _) => rounds(0, 1, true),
        ("apps", "statefulsets" | "deployments" | "replicasets" | "daemonsets")
        | ("", "services" | "podtemplates")
        | ("scheduling.k8s.io" | "events.k8s.io", _)
        | ("storage.k8s.io", "csidrivers") => rounds(1, 0, true),
        _ => rounds(1, 1, true),
    }
}

/// Whether finalizers of a kind must be well known or belong to a domain.
pub(super) fn checks_finalizers(resource: &Resource) -> bool {
    of(resource, "").finalizers
}

/// When an object ends its deletion says, and nothing else: told as often as the change of metadata is looked at.
pub fn deletion_errors(resource: &Resource, subresource: &str, object: &Value, old: &Value) -> Vec<FieldError> {
    // The status of a custom resource comes without metadata, and that of a pod without its end.
    let status = subresource == "status";
    if resource.custom.is_some() && status {
        return Vec::new();
    }
    let pods = status && resource.group.is_empty() && resource.plural == "pods";
    let (old, new) = (&old["metadata"], &object["metadata"]);
    let mut errors = Vec::new();
    for name in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        let changes = match name {
            "deletionTimestamp" => !pods && old[name].is_null() && !new[name].is_null(),
            _ => !new[name].is_null() && new[name] != old[name],
        };
        if changes {
            errors.push(FieldError::invalid(format!("metadata.{name}"), &new[name], "field is immutable"));
        }
    }
    let times = 1 + of(resource, subresource).changes;
    std::iter::repeat_n(errors, times).flatten().collect()
}

/// What is wrong with the metadata of what is changed.
pub(super) fn metadata_errors(resource: &Resource, subresource: &str, object: &Value, old: &Value) -> Vec<FieldError> {
    let own = of(resource, subresource);
    let whole = names::common_errors(&object["metadata"]);
    let whole = [whole, names::finalizer_form_errors(&object["metadata"])].concat();
    let change = names::metadata_update_errors(object, old);
    let known = if own.finalizers { names::finalizer_errors(&object["metadata"]) } else { Vec::new() };
    let prefix = names::prefix_errors(resource, object);
    let mut errors = [whole.clone(), change.clone()].concat();
    let changes = std::iter::repeat_n([change, known.clone()].concat(), own.changes).flatten();
    let wholes = std::iter::repeat_n([prefix, whole, known].concat(), own.wholes).flatten();
    // Who looks at the whole twice does it first.
    match own.wholes {
        2 => errors.extend(wholes.chain(changes)),
        _ => errors.extend(changes.chain(wholes)),
    }
    errors
}
