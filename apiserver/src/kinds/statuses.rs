//! What is wrong with a status that a client writes: of pods, of workloads, of Jobs, of claims and of namespaces.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::core_rules::address_error;
use super::names;
use super::pods::{list, not_negative, text};
use crate::failure::FieldError;

fn count(status: &Value, name: &str) -> i64 {
    status[name].as_i64().unwrap_or(0)
}

/// Numbers that count something.
fn counts(status: &Value, fields: &[&str]) -> Vec<FieldError> {
    fields.iter().filter_map(|name| not_negative(&status[*name], &format!("status.{name}"))).collect()
}

/// Numbers of which none may be greater than another.
fn at_most(status: &Value, fields: &[&str], most: &str, words: &str) -> Vec<FieldError> {
    let more = fields.iter().filter(|name| count(status, name) > count(status, most));
    let detail = format!("cannot be greater than {words}");
    more.map(|name| FieldError::invalid(format!("status.{name}"), &json!(count(status, name)), &detail)).collect()
}

/// How often a hash met another is counted up only.
fn collision_error(status: &Value, old: &Value) -> Option<FieldError> {
    let (now, before) = (status["collisionCount"].as_i64(), old["collisionCount"].as_i64()?);
    let field = "status.collisionCount";
    (now.is_none_or(|now| now < before))
        .then(|| FieldError::invalid(field, &json!(now.unwrap_or(0)), "cannot be decremented"))
}

/// `/status` of a StatefulSet.
pub(super) fn stateful_set(status: &Value, old: &Value) -> Vec<FieldError> {
    let numbers = ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    let mut errors = counts(status, &numbers);
    errors.extend(counts(status, &["observedGeneration", "collisionCount"]));
    errors.extend(at_most(status, &numbers[1..], "replicas", "status.replicas"));
    errors.extend(at_most(status, &["availableReplicas"], "readyReplicas", "status.readyReplicas"));
    errors.extend(collision_error(status, old));
    errors
}

/// `/status` of a ReplicaSet or a ReplicationController.
pub(super) fn replica_set(status: &Value) -> Vec<FieldError> {
    let numbers = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    let mut errors = counts(status, &["replicas"]);
    errors.extend(counts(status, &numbers));
    errors.extend(counts(status, &["observedGeneration"]));
    errors.extend(at_most(status, &numbers, "replicas", "status.replicas"));
    errors.extend(at_most(status, &["availableReplicas"], "readyReplicas", "readyReplicas"));
    errors
}

/// `/status` of a Deployment.
pub(super) fn deployment(status: &Value, old: &Value) -> Vec<FieldError> {
    let numbers = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    let mut errors = counts(status, &["observedGeneration", "replicas"]);
    errors.extend(counts(status, &numbers));
    errors.extend(counts(status, &["unavailableReplicas", "collisionCount"]));
    errors.extend(at_most(status, &numbers, "replicas", "status.replicas"));
    errors.extend(at_most(status, &["availableReplicas"], "readyReplicas", "readyReplicas"));
    errors.extend(collision_error(status, old));
    errors
}

/// `/status` of a DaemonSet.
pub(super) fn daemon_set(status: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = counts(
        status,
        &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
    );
    errors.extend(collision_error(status, old));
    errors
}

/// A namespace ends by being deleted, and not by being told that it ends.
pub(super) fn namespace(object: &Value) -> Option<FieldError> {
    let (phase, ending) = (text(&object["status"], "phase"), object["metadata"]["deletionTimestamp"].is_string());
    let why = match ending {
        false if phase != "Active" => "may only be 'Active' if `deletionTimestamp` is empty",
        true if phase != "Terminating" => "may only be 'Terminating' if `deletionTimestamp` is not empty",
        _ => return None,
    };
    Some(FieldError::invalid("status.Phase", &json!(phase), why))
}

const RESIZES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// `/status` of a claim.
pub(super) fn claim(status: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let field = "status.allocatedResourceStatuses";
    for (name, state) in status["allocatedResourceStatuses"].as_object().into_iter().flatten() {
        errors.extend(FieldError::each(field, &json!(name), names::qualified(name)));
        if !RESIZES.contains(&state.as_str().unwrap_or_default()) {
            // It is the resource that is shown, and not its state.
            errors.push(FieldError::not_supported(field, &json!(name), &RESIZES));
        }
    }
    errors
}

/// `/status` of a pod.
pub(super) fn pod(object: &Value, old: &Value) -> Vec<FieldError> {
    let (status, before) = (&object["status"], &old["status"]);
    let mut errors = Vec::new();
    for (index, condition) in list(status, "conditions") {
        let kind = text(condition, "type");
        errors.extend(FieldError::each(&format!("status.conditions[{index}].Type"), &json!(kind), {
            let system = SYSTEM_CONDITIONS.contains(&kind);
            if system { Vec::new() } else { names::qualified(kind) }
        }));
    }
    let nominated = text(status, "nominatedNodeName");
    if nominated != text(before, "nominatedNodeName") && !nominated.is_empty() {
        let field = "status.nominatedNodeName";
        errors.extend(FieldError::each(field, &json!(nominated), names::subdomain(nominated)));
    }
    if text(status, "qosClass") != text(before, "qosClass") {
        let shown = json!(text(status, "qosClass"));
        errors.push(FieldError::invalid("status.qosClass", &shown, "field is immutable"));
    }
    errors.extend(transition_errors(object, old));
    errors.extend(pod_address_errors(status));
    errors.extend(host_address_errors(status));
    errors
}

const SYSTEM_CONDITIONS: [&str; 4] = ["PodScheduled", "Ready", "Initialized", "ContainersReady"];

/// A container that has ended, and is not started again, stays so.
fn transition_errors(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let policy = text(&old["spec"], "restartPolicy");
    for (statuses, containers) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        for (index, after) in list(&object["status"], statuses) {
            let before = list(&old["status"], statuses).map(|(_, one)| one).find(|one| one["name"] == after["name"]);
            let Some(before) = before else { continue };
            let again = list(&old["spec"], containers)
                .any(|(_, container)| container["name"] == after["name"] && container["restartPolicy"] == "Always");
            let failed = before["state"]["terminated"]["exitCode"].as_i64().is_some_and(|code| code != 0);
            let stays = !again && (policy == "Never" || (!failed && policy == "OnFailure"));
            let policy_of_init = containers == "initContainers" && !again && !failed;
            if before["state"]["terminated"].is_object()
                && !after["state"]["terminated"].is_object()
                && (stays || (policy_of_init && policy != "Always"))
            {
                let detail = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(format!("status.{statuses}[{index}].state"), detail));
            }
        }
    }
    errors
}

fn family(address: &str) -> Option<bool> {
    address.parse::<IpAddr>().ok().map(|ip| ip.is_ipv4())
}

fn pod_address_errors(status: &Value) -> Vec<FieldError> {
    let addresses: Vec<&Value> = list(status, "podIPs").map(|(_, entry)| &entry["ip"]).collect();
    let mut errors: Vec<FieldError> = addresses
        .iter()
        .enumerate()
        .filter_map(|(index, address)| address_error(address, &format!("status.podIPs[{index}]")))
        .collect();
    let words: Vec<&str> = addresses.iter().map(|address| address.as_str().unwrap_or_default()).collect();
    if words.len() > 1 && words.iter().all(|word| family(word).is_some()) {
        let families: BTreeSet<_> = words.iter().map(|word| family(word)).collect();
        if families.len() < 2 || words.len() > 2 {
            let detail = "may specify no more than one IP for each IP family";
            errors.push(FieldError::invalid("status.podIPs", &status["podIPs"], detail));
        }
        let mut seen = BTreeSet::new();
        for (index, word) in words.iter().enumerate() {
            if !seen.insert(*word) {
                errors.push(FieldError::duplicate(format!("status.podIPs[{index}]"), &json!({"IP": word})));
            }
        }
    }
    errors
}

fn host_address_errors(status: &Value) -> Vec<FieldError> {
    let addresses: Vec<&Value> = list(status, "hostIPs").map(|(_, entry)| &entry["ip"]).collect();
    let mut errors = Vec::new();
    let Some(first) = addresses.first() else { return errors };
    if text(status, "hostIP") != first.as_str().unwrap_or_default() {
        errors.push(FieldError::invalid("status.hostIPs[0].ip", first, "must be equal to `hostIP`"));
    }
    errors.extend(
        addresses
            .iter()
            .enumerate()
            .filter_map(|(index, address)| address_error(address, &format!("status.hostIPs[{index}]"))),
    );
    errors
}

/// `/status` of a Job: its numbers, and how they may change.
pub(super) fn job(object: &Value, old: &Value) -> Vec<FieldError> {
    let (status, before) = (&object["status"], &old["status"]);
    let mut errors = counts(status, &["active", "succeeded", "failed", "ready", "terminating"]);
    let pending = &status["uncountedTerminatedPods"];
    let mut seen = BTreeSet::new();
    for kind in ["succeeded", "failed"] {
        for (index, uid) in list(pending, kind) {
            let field = format!("status.uncountedTerminatedPods.{kind}[{index}]");
            let word = uid.as_str().unwrap_or_default();
            if word.is_empty() {
                errors.push(FieldError::invalid(field, &json!(""), "must not be empty"));
            } else if !seen.insert(word) {
                errors.push(FieldError::duplicate(field, uid));
            }
        }
    }
    for (name, what) in [("succeeded", "succeeded"), ("failed", "failed")] {
        if count(status, name) < count(before, name) {
            let detail = format!("cannot decrease the {what} counter");
            errors.push(FieldError::invalid(format!("status.{name}"), &json!(count(status, name)), &detail));
        }
    }
    if count(status, "ready") > count(status, "active") {
        let detail = "cannot set more ready pods than active";
        errors.push(FieldError::invalid("status.ready", &json!(count(status, "ready")), detail));
    }
    errors
}
