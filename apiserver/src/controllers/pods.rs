//! Pods as their owners see them: made from templates, ready or not, theirs or not.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cache::{Cache, Change, Key};
use super::client::{Client, DeleteOptions, PatchType, Refused};
use super::kind::{Kind, PODS};
use super::object::{
    condition, controller_of, generation, is_terminating, labels, list, name, namespace, owner_reference, selector,
    selects, text, uid,
};
use crate::clock::seconds;

/// Whether the pod has ended.
pub(super) fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether the pod counts for its owner.
pub(super) fn is_active(pod: &Value) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// Whether the pod's condition Ready is true.
pub(super) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// How long it takes until a ready pod has been so for `minimum`; zero if it has, nothing if it is not ready.
pub(super) fn until_available(pod: &Value, minimum: Duration, now: Timestamp) -> Option<Duration> {
    let ready = condition(pod, "Ready").filter(|ready| ready["status"] == "True")?;
    if minimum.is_zero() {
        return Some(Duration::ZERO);
    }
    let since: Timestamp = ready["lastTransitionTime"].as_str()?.parse().ok()?;
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(minimum.saturating_sub(age))
}

/// `minReadySeconds`.
pub(super) fn min_ready(owner: &Value) -> Duration {
    Duration::from_secs(owner["spec"]["minReadySeconds"].as_u64().unwrap_or(0))
}

/// A pod of a template, owned by `owner`.
pub(super) fn from_template(kind: &Kind, owner: &Value, template: &Value) -> Value {
    let metadata = &template["metadata"];
    let mut pod = json!({
        "kind": "Pod", "apiVersion": "v1", "spec": template["spec"],
        "metadata": {
            "namespace": namespace(owner), "generateName": format!("{}-", name(owner)),
            "ownerReferences": [owner_reference(kind, owner)],
        },
    });
    for part in ["labels", "annotations", "finalizers"] {
        if metadata.get(part).is_some_and(|value| !value.is_null()) {
            pod["metadata"][part] = metadata[part].clone();
        }
    }
    pod
}

/// The condition of a pod that is made to go, and why.
pub(super) fn disruption(pod: &Value, reason: &str, message: &str, now: Timestamp) -> Value {
    json!({
        "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": seconds(now), "observedGeneration": generation(pod),
    })
}

/// Patches the status of a pod, one condition and what else is named; a pod that is gone is no error. Whether it is there.
pub(super) async fn patch_status(
    client: &Client,
    pod: &Value,
    condition: Option<Value>,
    mut status: Value,
) -> Result<bool, Refused> {
    if let Some(condition) = condition {
        // A new one comes last.
        let mut order: Vec<Value> =
            list(pod, "/status/conditions").iter().map(|known| json!({"type": known["type"]})).collect();
        let own = json!({"type": condition["type"]});
        if !order.contains(&own) {
            order.push(own);
        }
        status["$setElementOrder/conditions"] = json!(order);
        status["conditions"] = json!([condition]);
    }
    match client.patch(&PODS, pod, "status", PatchType::Strategic, &json!({"status": status})).await {
        Err(refused) if refused.is_not_found() => Ok(false),
        other => other.map(|_| true),
    }
}

/// Deletes a pod at once or in its time, and before that notes in its status why.
pub(super) async fn end(
    client: &Client,
    pod: &Value,
    why: Option<Value>,
    status: Value,
    grace: Option<u64>,
) -> Result<(), Refused> {
    let changes = why.is_some() || status.as_object().is_some_and(|fields| !fields.is_empty());
    if changes && !patch_status(client, pod, why, status).await? {
        return Ok(());
    }
    client.delete(&PODS, pod, &DeleteOptions { uid: uid(pod).to_owned(), grace, ..DeleteOptions::default() }).await
}

/// The owner of a kind that an object's controlling reference names, if it is still that one.
pub(super) fn owner_of(cache: &Cache, kind: &Kind, object: &Value) -> Option<Arc<Value>> {
    let reference = controller_of(object)?;
    if reference["kind"] != kind.name.as_ref() {
        return None;
    }
    let owner = cache.get(kind, namespace(object), reference["name"].as_str()?)?;
    (reference["uid"] == uid(&owner)).then_some(owner)
}

/// The owners of a kind whom a change of a child concerns: the one that controls it, or those that may want it.
pub(super) fn owners(cache: &Cache, kind: &Kind, change: &Change) -> Vec<Key> {
    let mut keys = Vec::new();
    for child in change.both() {
        if controller_of(child).is_some() {
            keys.extend(owner_of(cache, kind, child).map(|owner| Key::of(&owner)));
        } else {
            let all = cache.list(kind, namespace(child)).into_iter();
            let wanting = all.filter(|owner| selects(&selector(kind, owner), labels(child)));
            keys.extend(wanting.map(|owner| Key::of(&owner)));
        }
    }
    keys
}
