//! What the set says of itself.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::placement::wish;
use super::{ByNode, View};
use crate::controllers::object::{counted, generation, name};
use crate::controllers::pods::{is_ready, until_available};

/// The status that is true now; what the controller does not own is kept.
pub(super) fn status(set: &Value, nodes: &[Arc<Value>], by_node: &ByNode, view: &View) -> Value {
    let (mut desired, mut current, mut misplaced, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
    for node in nodes {
        // The oldest pod of a node counts.
        let pod = by_node.get(name(node)).and_then(|pods| pods.first());
        if !wish(set, node).run {
            misplaced += i64::from(pod.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = pod else { continue };
        current += 1;
        ready += i64::from(is_ready(pod));
        available += i64::from(view.is_available(pod));
        updated += i64::from(view.is_updated(pod));
    }
    let always = [
        ("desiredNumberScheduled", desired),
        ("currentNumberScheduled", current),
        ("numberMisscheduled", misplaced),
        ("numberReady", ready),
        ("observedGeneration", generation(set)),
    ];
    let counts = [
        ("numberAvailable", available),
        ("numberUnavailable", desired - available),
        ("updatedNumberScheduled", updated),
    ];
    counted(&set["status"], &always, &counts)
}

/// When the first pod that is ready becomes available.
pub(super) fn next_look(by_node: &ByNode, view: &View) -> Option<Duration> {
    let waits = by_node.values().flatten().filter_map(|pod| until_available(pod, view.minimum, view.now));
    waits.filter(|wait| !wait.is_zero()).min()
}
