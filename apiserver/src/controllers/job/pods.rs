//! The pods of a Job: how they are made, what they count as.

use serde_json::{Value, json};

use crate::controllers::kind::JOBS;
use crate::controllers::object::{annotation, is_terminating, list, name, set_entry, text, uid};
use crate::controllers::pods::from_template;

/// Finalizer of pods whose end is not counted yet.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label of a pod: its index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Whether the pod's end is not counted yet.
pub(super) fn is_tracked(pod: &Value) -> bool {
    list(pod, "/metadata/finalizers").iter().any(|finalizer| finalizer == TRACKING)
}

/// The patch that says that it is.
pub(super) fn untracked(pod: &Value) -> Value {
    json!({"metadata": {"uid": uid(pod), "$deleteFromPrimitiveList/finalizers": [TRACKING]}})
}

pub(super) fn has_succeeded(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Succeeded"
}

/// Whether the pod counts as failed; one that is deleted does at once, unless the Job replaces only what has failed.
pub(super) fn has_failed(job: &Value, pod: &Value) -> bool {
    match text(pod, "/status/phase") {
        "Failed" => true,
        "Succeeded" => false,
        _ => is_terminating(pod) && job["spec"]["podReplacementPolicy"] != "Failed",
    }
}

pub(super) fn is_indexed(job: &Value) -> bool {
    job["spec"]["completionMode"] == "Indexed"
}

/// The index of a pod.
pub(super) fn index(pod: &Value) -> Option<u64> {
    annotation(pod, INDEX)?.parse().ok()
}

/// A new pod of a Job.
pub(super) fn pod(job: &Value, index: Option<u64>) -> Value {
    let mut pod = from_template(&JOBS, job, &job["spec"]["template"]);
    let mut finalizers = list(&pod, "/metadata/finalizers").to_vec();
    finalizers.push(json!(TRACKING));
    pod["metadata"]["finalizers"] = json!(finalizers);
    let Some(index) = index else { return pod };
    let text = index.to_string();
    set_entry(&mut pod, "annotations", INDEX, &text);
    set_entry(&mut pod, "labels", INDEX, &text);
    pod["metadata"]["generateName"] = json!(format!("{}-{index}-", name(job)));
    if pod["spec"]["hostname"].is_null() {
        pod["spec"]["hostname"] = json!(format!("{}-{index}", name(job)));
    }
    for containers in ["initContainers", "containers"] {
        for container in pod["spec"][containers].as_array_mut().into_iter().flatten() {
            tell_index(container);
        }
    }
    pod
}

fn tell_index(container: &mut Value) {
    let name = "JOB_COMPLETION_INDEX";
    let mut variables = list(container, "/env").to_vec();
    if variables.iter().all(|variable| variable["name"] != name) {
        let field = json!({"fieldRef": {"fieldPath": format!("metadata.labels['{INDEX}']")}});
        variables.push(json!({"name": name, "valueFrom": field}));
        container["env"] = json!(variables);
    }
}
