//! What the set says of itself.

use serde_json::{Value, json};

use super::identity::HASH;
use super::plan::{Pods, View, is_running};
use crate::controllers::object::{generation, is_terminating, label, number, text};

const NUMBERS: [&str; 7] = [
    "replicas",
    "availableReplicas",
    "collisionCount",
    "observedGeneration",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
];

/// The status that is true now; what the controller does not own is kept.
pub(super) fn status(set: &Value, pods: &Pods, view: &View) -> Value {
    let made = || pods.all().filter(|pod| !text(pod, "/status/phase").is_empty());
    let of =
        |revision: &str| made().filter(|pod| !is_terminating(pod) && label(pod, HASH) == Some(revision)).count() as u64;
    let running = || pods.all().filter(|pod| is_running(pod));
    let (replicas, ready) = (made().count() as u64, running().count() as u64);
    let (mut current, mut revision, updated) = (of(&view.current), &view.current, of(&view.update));
    let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1);
    if set["spec"]["updateStrategy"]["type"] == "RollingUpdate" && [updated, ready, replicas] == [wanted; 3] {
        (current, revision) = (updated, &view.update);
    }
    let mut status = set["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let Some(fields) = status.as_object_mut() else { return status };
    for (name, text) in [("currentRevision", revision), ("updateRevision", &view.update)] {
        fields.insert(name.into(), json!(text));
    }
    let collisions = number(set, "/status/collisionCount");
    for (name, count) in [
        ("replicas", replicas as i64),
        ("availableReplicas", pods.all().filter(|pod| view.is_available(pod)).count() as i64),
        ("collisionCount", collisions),
        ("observedGeneration", generation(set)),
    ] {
        fields.insert(name.into(), json!(count));
    }
    for (name, count) in [("readyReplicas", ready), ("currentReplicas", current), ("updatedReplicas", updated)] {
        match count {
            0 => fields.remove(name),
            count => fields.insert(name.into(), json!(count)),
        };
    }
    status
}

/// Whether two statuses say the same; an absent number is zero.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    let number_at = |value: &Value, name: &str| number(value, &format!("/{name}"));
    NUMBERS.iter().all(|name| number_at(one, name) == number_at(other, name))
        && ["currentRevision", "updateRevision"].iter().all(|name| one[*name] == other[*name])
}
