//! What a pod's runtime needs beside its containers, and where it runs.

use serde_json::Value;

use super::shown_name;
use crate::failure::{Failure, Outcome};
use crate::state::State;
use crate::store::Key;

const STORAGE: &str = "node.k8s.io/runtimeclasses";

/// What a pod costs beside its containers is the business of its class.
pub(super) fn judge(state: &State, pod: &Value) -> Outcome<()> {
    let costs = |overhead: &Value| overhead.as_object().is_some_and(|amounts| !amounts.is_empty());
    let name = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
    let class = state.store.get(&Key { resource: STORAGE.into(), namespace: String::new(), name });
    if costs(&pod["spec"]["overhead"]) && !class.is_some_and(|class| costs(&class["overhead"]["podFixed"])) {
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return Err(Failure::forbidden("", "pods", shown_name(pod), why));
    }
    Ok(())
}

pub(super) fn admit(state: &State, pod: &mut Value) -> Outcome<()> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str().map(str::to_owned) else { return Ok(()) };
    let key = Key { resource: STORAGE.into(), namespace: String::new(), name: name.clone() };
    let Some(class) = state.store.get(&key) else {
        let why = format!("pod rejected: RuntimeClass \"{name}\" not found");
        return Err(Failure::forbidden("", "pods", shown_name(pod), &why));
    };
    let overhead = &class["overhead"]["podFixed"];
    if overhead.is_object() {
        let own = &pod["spec"]["overhead"];
        if own.is_object() && own != overhead {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(Failure::forbidden("", "pods", shown_name(pod), why));
        }
        pod["spec"]["overhead"] = overhead.clone();
    }
    let labels = class["scheduling"]["nodeSelector"].as_object();
    for (label, value) in labels.into_iter().flatten() {
        if !pod["spec"]["nodeSelector"].is_object() {
            pod["spec"]["nodeSelector"] = Value::Object(serde_json::Map::new());
        }
        pod["spec"]["nodeSelector"][label] = value.clone();
    }
    Ok(())
}
