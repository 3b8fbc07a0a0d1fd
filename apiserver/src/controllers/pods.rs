//! Pods as their owners see them: made from templates, ready or not, theirs or not.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cache::Cache;
use super::client::{Client, DeleteOptions, PatchType, Refused};
use super::events::Recorder;
use super::kind::{Kind, PODS};
use super::object::{
    condition, controller_of, generation, is_controlled_by, is_terminating, labels, list, name, namespace,
    owner_reference, selects, text, uid,
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

/// Makes and deletes pods for an owner, and says so in events.
pub(super) struct PodControl {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
}

impl PodControl {
    pub(super) async fn create(&self, kind: &Kind, owner: &Value, pod: &Value) -> Result<Arc<Value>, Refused> {
        match self.client.create(&PODS, pod).await {
            Ok(made) => {
                self.recorder.say(kind, owner, "Normal", "SuccessfulCreate", format!("Created pod: {}", name(&made)));
                Ok(made)
            }
            Err(refused) => {
                if !refused.is_namespace_terminating() {
                    let message = format!("Error creating: {}", refused.message);
                    self.recorder.say(kind, owner, "Warning", "FailedCreate", message);
                }
                Err(refused)
            }
        }
    }

    pub(super) async fn delete(&self, kind: &Kind, owner: &Value, pod: &Value) -> Result<(), Refused> {
        match self.client.delete(&PODS, pod, &DeleteOptions::default()).await {
            Ok(()) => {
                let message = format!("Deleted pod: {}", name(pod));
                self.recorder.say(kind, owner, "Normal", "SuccessfulDelete", message);
                Ok(())
            }
            Err(refused) => {
                let message = format!("Error deleting: {}", refused.message);
                self.recorder.say(kind, owner, "Warning", "FailedDelete", message);
                Err(refused)
            }
        }
    }
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

/// The objects of `kind` that belong to `owner`: those it controls, and free ones that its selector selects, which are
/// adopted; those that it no longer selects are let go.
pub(super) async fn claim(
    client: &Client,
    cache: &Cache,
    (owner_kind, owner): (&Kind, &Value),
    kind: &Kind,
    selector: &Value,
    adoptable: impl Fn(&Value) -> bool,
) -> Result<Vec<Arc<Value>>, Refused> {
    let mut claimed = Vec::new();
    for object in cache.list(kind, namespace(owner)) {
        let selected = selects(selector, labels(&object));
        if is_controlled_by(&object, owner) {
            if selected {
                claimed.push(object);
            } else if !is_terminating(owner) {
                release(client, owner, kind, &object).await?;
            }
        } else if controller_of(&object).is_none()
            && selected
            && !is_terminating(owner)
            && !is_terminating(&object)
            && adoptable(&object)
        {
            claimed.extend(adopt(client, owner_kind, owner, kind, &object).await?);
        }
    }
    Ok(claimed)
}

async fn adopt(
    client: &Client,
    owner_kind: &Kind,
    owner: &Value,
    kind: &Kind,
    object: &Value,
) -> Result<Option<Arc<Value>>, Refused> {
    // The cache may not know yet that the owner ends.
    let live = client.get(owner_kind, namespace(owner), name(owner)).await?;
    if uid(&live) != uid(owner) || is_terminating(&live) {
        return Ok(None);
    }
    let patch = json!({"metadata": {"ownerReferences": [owner_reference(owner_kind, owner)], "uid": uid(object)}});
    match client.patch(kind, object, "", PatchType::Strategic, &patch).await {
        Ok(adopted) => Ok(Some(adopted)),
        Err(refused) if refused.is_not_found() || refused.code == 422 => Ok(None),
        Err(refused) => Err(refused),
    }
}

async fn release(client: &Client, owner: &Value, kind: &Kind, object: &Value) -> Result<(), Refused> {
    let gone = json!({"$patch": "delete", "uid": uid(owner)});
    let patch = json!({"metadata": {"ownerReferences": [gone], "uid": uid(object)}});
    match client.patch(kind, object, "", PatchType::Strategic, &patch).await {
        Err(refused) if !refused.is_not_found() && refused.code != 422 => Err(refused),
        _ => Ok(()),
    }
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
