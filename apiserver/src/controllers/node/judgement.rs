//! What follows from a node's conditions: pure functions.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::controllers::object::{condition, condition_status, label, list, text};

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that a kubelet reports, and that are unknown when it is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Conditions of which a bad value keeps new pods away: condition, value, taint.
const AVOIDED: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// The status of a node that has been silent for too long.
pub(super) fn silent(node: &Value, now: &str) -> Value {
    let mut conditions = list(node, "/status/conditions").to_vec();
    for type_ in REPORTED {
        match conditions.iter_mut().find(|condition| condition["type"] == type_) {
            Some(condition) if condition["status"] == "Unknown" => {}
            Some(condition) => {
                condition["status"] = json!("Unknown");
                condition["reason"] = json!("NodeStatusUnknown");
                condition["message"] = json!("Kubelet stopped posting node status.");
                condition["lastTransitionTime"] = json!(now);
            }
            None => conditions.push(json!({
                "type": type_, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": node["metadata"]["creationTimestamp"], "lastTransitionTime": now,
            })),
        }
    }
    let mut status = node["status"].clone();
    status["conditions"] = json!(conditions);
    status
}

fn no_schedule(node: &Value) -> Vec<&'static str> {
    let mut wanted: Vec<&'static str> = AVOIDED
        .iter()
        .filter(|(type_, status, _)| condition_status(node, type_) == *status)
        .map(|(.., taint)| *taint)
        .collect();
    if node["spec"]["unschedulable"] == true {
        wanted.push(UNSCHEDULABLE);
    }
    wanted
}

/// The taint that evicts, if the node is not to be trusted with pods. One without a condition is not judged yet.
pub(super) fn no_execute(node: &Value) -> Option<&'static str> {
    match condition_status(node, "Ready") {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    }
}

/// The taints that the node should have when those of one effect are brought in line; `evict` says whether it may have
/// the one that evicts.
pub(super) fn taints(node: &Value, effect: &str, evict: bool, now: &str) -> Vec<Value> {
    let ours = |key: &str| match effect {
        "NoSchedule" => key == UNSCHEDULABLE || AVOIDED.iter().any(|(.., own)| *own == key),
        _ => key == NOT_READY || key == UNREACHABLE,
    };
    let mut wanted: Vec<&str> = match effect {
        "NoSchedule" => no_schedule(node),
        _ => no_execute(node).filter(|_| evict).into_iter().collect(),
    };
    let held = list(node, "/spec/taints");
    // A node that has said nothing at all keeps the taint with which it was made.
    let silent = condition(node, "Ready").is_none() && effect == "NoSchedule";
    let keep = |taint: &&Value| {
        let key = text(taint, "/key");
        taint["effect"] != effect || !ours(key) || wanted.contains(&key) || (silent && key == NOT_READY)
    };
    let mut taints: Vec<Value> = held.iter().filter(keep).cloned().collect();
    wanted.retain(|key| !held.iter().any(|taint| taint["key"] == *key && taint["effect"] == effect));
    taints.extend(wanted.iter().map(|key| json!({"key": key, "effect": effect, "timeAdded": now})));
    taints
}

/// How many of a zone's nodes are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// Few.
    Normal,
    /// Most: something else than the nodes may be broken.
    Partial,
    /// All of them: more likely we are cut off.
    Full,
}

/// More than two and at least 55 % of the nodes not ready is a partial disruption.
pub(super) fn zone(nodes: &[&Value]) -> Zone {
    let ready = nodes.iter().filter(|node| condition_status(node, "Ready") == "True").count();
    let lost = nodes.len() - ready;
    match (ready, lost) {
        (0, 1..) => Zone::Full,
        _ if lost > 2 && lost * 100 >= nodes.len() * 55 => Zone::Partial,
        _ => Zone::Normal,
    }
}

/// The name of a node's zone.
pub(super) fn zone_of(node: &Value) -> String {
    let part = |key: &str| label(node, key).unwrap_or_default().to_owned();
    format!("{}:{}", part("topology.kubernetes.io/region"), part("topology.kubernetes.io/zone"))
}

/// Whether every zone is cut off: then nothing is evicted, the fault is ours.
pub(super) fn cut_off(nodes: &[Arc<Value>]) -> bool {
    let mut zones: std::collections::BTreeMap<String, Vec<&Value>> = std::collections::BTreeMap::new();
    for node in nodes {
        zones.entry(zone_of(node)).or_default().push(node);
    }
    !zones.is_empty() && zones.values().all(|nodes| zone(nodes) == Zone::Full)
}
