//! What is changed of a pod by itself: containers that are put into it later, and what its containers may use.

use serde_json::{Value, json};

use super::workloads::quality;
use super::{containers, pods};
use crate::failure::FieldError;

/// Marks the shadow of a pod that a kubelet has from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

const EPHEMERAL: &str = "spec.ephemeralContainers";
/// What a container that comes later cannot have.
const NOT_EPHEMERAL: [&str; 7] =
    ["ports", "resources", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy"];
/// What may be changed of what a running container uses.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

fn list<'a>(spec: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    spec[name].as_array().into_iter().flatten()
}

fn named<'a>(spec: &'a Value, list_name: &str, name: &Value) -> Option<&'a Value> {
    list(spec, list_name).find(|container| container["name"] == *name)
}

/// The pod as it is, with the part that the subresource is about as it is wanted.
pub(super) fn keep_to_part(subresource: &str, object: &mut Value, current: &Value) {
    let wanted = std::mem::replace(object, current.clone());
    if let Some(managed) = wanted["metadata"].get("managedFields") {
        object["metadata"]["managedFields"] = managed.clone();
    }
    if subresource == "ephemeralcontainers" {
        match wanted["spec"].get("ephemeralContainers") {
            Some(containers) => object["spec"]["ephemeralContainers"] = containers.clone(),
            None => drop(object["spec"].as_object_mut().map(|spec| spec.remove("ephemeralContainers"))),
        }
        return;
    }
    for name in ["containers", "initContainers"] {
        for container in object["spec"].get_mut(name).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(found) = named(&wanted["spec"], name, &container["name"]) {
                container["resources"] = found["resources"].clone();
            }
        }
    }
}

/// Errors of a change of `ephemeralcontainers`.
pub(super) fn validate_ephemeral(pod: &Value, old: &Value) -> Vec<FieldError> {
    let (spec, before) = (&pod["spec"], &old["spec"]);
    let mut errors = Vec::new();
    let mut seen: Vec<&Value> =
        ["containers", "initContainers"].iter().flat_map(|name| list(spec, name)).map(|c| &c["name"]).collect();
    for (index, container) in list(spec, "ephemeralContainers").enumerate() {
        let path = format!("{EPHEMERAL}[{index}]");
        errors.extend(containers::image_and_name_errors(container, &path));
        if seen.contains(&&container["name"]) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &container["name"]));
        }
        seen.push(&container["name"]);
        let target = &container["targetContainerName"];
        if target.as_str().is_some_and(|name| !name.is_empty()) && !known(spec, target) {
            errors.push(FieldError::not_found(format!("{path}.targetContainerName"), target));
        }
        let given = |name: &&&str| match &container[**name] {
            Value::Object(fields) => !fields.is_empty(),
            Value::Array(items) => !items.is_empty(),
            other => !other.is_null(),
        };
        let detail = "cannot be set for an Ephemeral Container";
        errors.extend(
            NOT_EPHEMERAL.iter().filter(given).map(|name| FieldError::forbidden(format!("{path}.{name}"), detail)),
        );
    }
    for container in list(before, "ephemeralContainers") {
        let name = container["name"].as_str().unwrap_or_default();
        match named(spec, "ephemeralContainers", &container["name"]) {
            Some(kept) if kept == container => {}
            Some(_) => {
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n");
                errors.push(FieldError::forbidden(EPHEMERAL, &detail));
            }
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(FieldError::forbidden(EPHEMERAL, &detail));
            }
        }
    }
    errors
}

fn known(spec: &Value, name: &Value) -> bool {
    ["containers", "initContainers"].iter().any(|list| named(spec, list, name).is_some())
}

/// Errors of a change of `resize`.
pub(super) fn validate_resize(pod: &Value, old: &Value) -> Vec<FieldError> {
    let (spec, before) = (&pod["spec"], &old["spec"]);
    if old["metadata"]["annotations"].get(MIRROR).is_some() {
        return vec![FieldError::forbidden("[]", "static pods cannot be resized")];
    }
    let mut errors = pods::spec_errors(spec, "spec");
    if !errors.is_empty() {
        return errors;
    }
    let class = old["status"]["qosClass"].as_str().unwrap_or_default();
    if quality(pod) != class {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", &json!(class), detail));
    }
    if fixed_amounts(spec) != fixed_amounts(before) {
        errors.push(FieldError::forbidden("spec", "only cpu and memory resources are mutable"));
    }
    errors
}

/// All amounts that cannot change, in the order of their containers.
fn fixed_amounts(spec: &Value) -> Vec<(String, Value)> {
    let containers = ["containers", "initContainers"].iter().flat_map(|name| list(spec, name));
    let mut amounts = Vec::new();
    for container in containers {
        for kind in ["limits", "requests"] {
            let all = container["resources"][kind].as_object().into_iter().flatten();
            let fixed = all.filter(|(name, _)| !RESIZABLE.contains(&name.as_str()));
            amounts
                .extend(fixed.map(|(name, amount)| (format!("{} {kind} {name}", container["name"]), amount.clone())));
        }
    }
    amounts
}
