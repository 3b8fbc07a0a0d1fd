//! What a kubelet says of a pod whose containers it need not run.

use serde_json::{Value, json};

/// The pod runs and is ready.
pub(super) fn running(pod: &Value, host: &str, address: &str, now: &str) -> Value {
    let container = |container: &Value| {
        json!({"name": container["name"], "image": container["image"], "imageID": "", "ready": true, "started": true,
            "restartCount": 0, "state": {"running": {"startedAt": now}}})
    };
    json!({
        "phase": "Running", "hostIP": host, "hostIPs": [{"ip": host}], "podIP": address, "podIPs": [{"ip": address}],
        "startTime": now, "conditions": conditions("True", "", now),
        "initContainerStatuses": init_containers(pod, now), "containerStatuses": each(&pod["spec"]["containers"], container),
    })
}

/// The pod has ended.
pub(super) fn ended(pod: &Value, host: &str, address: &str, now: &str, succeeded: bool) -> Value {
    let (phase, code, reason) = if succeeded { ("Succeeded", 0, "Completed") } else { ("Failed", 1, "Error") };
    let terminated = json!({"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now});
    let container = |container: &Value| {
        json!({"name": container["name"], "image": container["image"], "imageID": "", "ready": false, "started": false,
            "restartCount": 0, "state": {"terminated": terminated}})
    };
    let why = if succeeded { "PodCompleted" } else { "PodFailed" };
    json!({
        "phase": phase, "hostIP": host, "hostIPs": [{"ip": host}], "podIP": address, "podIPs": [{"ip": address}],
        "startTime": now, "conditions": conditions("False", why, now),
        "initContainerStatuses": init_containers(pod, now), "containerStatuses": each(&pod["spec"]["containers"], container),
    })
}

fn init_containers(pod: &Value, now: &str) -> Value {
    let terminated = json!({"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now});
    each(&pod["spec"]["initContainers"], |container| {
        json!({"name": container["name"], "image": container["image"], "imageID": "", "ready": true, "restartCount": 0,
            "state": {"terminated": terminated}})
    })
}

fn each(containers: &Value, status: impl Fn(&Value) -> Value) -> Value {
    match containers.as_array() {
        Some(containers) => containers.iter().map(status).collect(),
        None => Value::Null,
    }
}

fn conditions(ready: &str, reason: &str, now: &str) -> Value {
    let condition = |type_: &str, status: &str, reason: &str| {
        let mut condition = json!({"type": type_, "status": status, "lastTransitionTime": now});
        if !reason.is_empty() {
            condition["reason"] = json!(reason);
        }
        condition
    };
    json!([
        condition("Initialized", "True", ""),
        condition("Ready", ready, reason),
        condition("ContainersReady", ready, reason),
        condition("PodScheduled", "True", ""),
    ])
}
