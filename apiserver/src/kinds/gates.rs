//! Gates that keep a pod from being scheduled: nobody adds one later, and as long as there are some, where the pod may go
//! can be narrowed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::names;
use super::pods::{list, text};
use crate::failure::FieldError;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

pub(crate) fn is_gated(spec: &Value) -> bool {
    list(spec, "schedulingGates").next().is_some()
}

/// What a new pod with gates says of itself.
pub(super) fn condition(now: &Value) -> Value {
    json!({
        "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
        "lastProbeTime": null, "lastTransitionTime": now,
    })
}

/// What is wrong with the names of gates.
pub(super) fn name_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, gate) in list(spec, "schedulingGates") {
        let (name, field) = (text(gate, "name"), format!("{path}.schedulingGates[{index}]"));
        errors.extend(FieldError::each(&field, &json!(name), names::qualified(name)));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(field, &json!(name)));
        }
    }
    errors
}

/// A new pod has no node as long as it has gates.
pub(super) fn creation_errors(spec: &Value) -> Vec<FieldError> {
    let both = is_gated(spec) && !text(spec, "nodeName").is_empty();
    let detail = "cannot be set until all schedulingGates have been cleared";
    both.then(|| FieldError::forbidden("spec.nodeName", detail)).into_iter().collect()
}

/// Gates that were not there before.
pub(super) fn added_errors(spec: &Value, old: &Value) -> Vec<FieldError> {
    let known: BTreeSet<&str> = list(old, "schedulingGates").map(|(_, gate)| text(gate, "name")).collect();
    let added = list(spec, "schedulingGates").filter(|(_, gate)| !known.contains(text(gate, "name")));
    let error = |(index, gate): (usize, &Value)| {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
        FieldError::forbidden(format!("spec.schedulingGates[{index}].name"), &detail)
    };
    added.map(error).collect()
}

/// What is wrong with a change of where a gated pod may go.
pub(super) fn narrowing_errors(spec: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (had, has) = (&old["nodeSelector"], &spec["nodeSelector"]);
    if had.as_object().into_iter().flatten().any(|(key, value)| has.get(key) != Some(value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid("spec.nodeSelector", has, detail));
    }
    let terms = |spec: &Value| spec["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"].clone();
    let (had, has) = (terms(old), terms(spec));
    let (Some(before), after) = (had.as_array(), has.as_array().cloned().unwrap_or_default()) else { return errors };
    let path = format!("spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
    if before.len() != after.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(path, &has, detail));
        return errors;
    }
    for (index, (before, after)) in before.iter().zip(&after).enumerate() {
        let kept = |part: &str| {
            let (had, has) = (before[part].as_array(), after[part].as_array());
            let had = had.map_or(&[][..], Vec::as_slice);
            has.map_or(&[][..], Vec::as_slice).starts_with(had)
        };
        let empty = list(before, "matchExpressions").next().is_none() && list(before, "matchFields").next().is_none();
        if (empty && before != after) || !kept("matchExpressions") || !kept("matchFields") {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(format!("{path}[{index}]"), after, detail));
        }
    }
    errors
}

/// A spec without what may change while there are gates.
pub(super) fn ungated(mut spec: Value) -> Value {
    spec["nodeSelector"] = Value::Null;
    if let Some(affinity) = spec["affinity"].as_object_mut() {
        affinity.remove("nodeAffinity");
    }
    if spec["affinity"].as_object().is_some_and(|affinity| affinity.is_empty()) {
        spec["affinity"] = Value::Null;
    }
    spec
}
