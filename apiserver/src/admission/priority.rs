//! A pod's priority follows from its class.

use std::sync::Arc;

use serde_json::{Value, json};

use super::shown_name;
use crate::failure::{Failure, Outcome};
use crate::state::State;
use crate::verbs::{Call, meta};

const STORAGE: &str = "scheduling.k8s.io/priorityclasses";

/// Only one class is that of pods that name none.
pub(super) fn admit_class(state: &State, call: &Call, class: &Value) -> Outcome<()> {
    if &*call.resource.storage != STORAGE || class["globalDefault"] != true {
        return Ok(());
    }
    let mut classes = state.store.list(&Arc::from(STORAGE), "").map(|(_, class)| class);
    let is_other = |other: &Arc<Value>| other["globalDefault"] == true && meta(other, "name") != meta(class, "name");
    let Some(first) = classes.find(is_other) else { return Ok(()) };
    let why =
        format!("PriorityClass {} is already marked as default. Only one default can exist", meta(&first, "name"));
    Err(Failure::forbidden(&call.resource.group, &call.resource.plural, meta(class, "name"), &why))
}

pub(super) fn admit(state: &State, pod: &mut Value) -> Outcome<()> {
    let classes = || state.store.list(&Arc::from(STORAGE), "").map(|(_, class)| class);
    let asked = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = match asked.as_str() {
        // Of several defaults the lowest counts.
        "" => classes().filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64()),
        name => {
            let found = classes().find(|class| meta(class, "name") == name);
            let missing = || {
                let why = format!("no PriorityClass with name {name} was found");
                Failure::forbidden("", "pods", shown_name(pod), &why)
            };
            Some(found.ok_or_else(missing)?)
        }
    };
    let (name, value, preemption) = match &class {
        Some(class) => (meta(class, "name"), class["value"].as_i64().unwrap_or(0), class["preemptionPolicy"].as_str()),
        None => ("", 0, None),
    };
    let preemption = preemption.unwrap_or("PreemptLowerPriority");
    if let Some(own) = pod["spec"]["priority"].as_i64().filter(|own| *own != value) {
        let why = format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller computed \
             {value} from the given PriorityClass name"
        );
        return Err(Failure::forbidden("", "pods", shown_name(pod), &why));
    }
    if !name.is_empty() {
        pod["spec"]["priorityClassName"] = json!(name);
    }
    pod["spec"]["priority"] = json!(value);
    if let Some(own) = pod["spec"]["preemptionPolicy"].as_str().filter(|own| *own != preemption) {
        let why = format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission controller \
             computed {preemption} from the given PriorityClass name"
        );
        return Err(Failure::forbidden("", "pods", shown_name(pod), &why));
    }
    pod["spec"]["preemptionPolicy"] = json!(preemption);
    Ok(())
}
