//! Which nodes should have a pod of the set.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::controllers::cache::Change;
use crate::controllers::object::{name, text};
use crate::controllers::scheduler::fit::{matches_node, untolerated};

/// What the set wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// A pod is made if there is none.
    pub(super) run: bool,
    /// A pod that is there may stay.
    pub(super) stay: bool,
}

/// Taints that no pod of a DaemonSet minds; the last one only matters to those in the host's network.
const MINDLESS: [(&str, &str); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ("node.kubernetes.io/network-unavailable", "NoSchedule"),
];

/// Adds the tolerations that every such pod has.
pub(super) fn tolerate(spec: &mut Value) {
    let count = if spec["hostNetwork"] == true { MINDLESS.len() } else { MINDLESS.len() - 1 };
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for (key, effect) in &MINDLESS[..count] {
        let wanted = json!({"key": key, "operator": "Exists", "effect": effect});
        let same = |other: &&mut Value| ["key", "operator", "effect"].iter().all(|part| other[*part] == wanted[*part]);
        match tolerations.iter_mut().find(same) {
            // One for a limited time becomes one for ever.
            Some(own) => *own = wanted,
            None => tolerations.push(wanted),
        }
    }
    spec["tolerations"] = json!(tolerations);
}

/// What the set wants of a node.
pub(super) fn wish(set: &Value, node: &Value) -> Wish {
    let mut pod = json!({"spec": set["spec"]["template"]["spec"]});
    tolerate(&mut pod["spec"]);
    let fixed = text(&pod, "/spec/nodeName");
    if (!fixed.is_empty() && fixed != name(node)) || !matches_node(&pod, node) {
        return Wish { run: false, stay: false };
    }
    if untolerated(&pod, node, &["NoSchedule", "NoExecute"]).is_some() {
        return Wish { run: false, stay: untolerated(&pod, node, &["NoExecute"]).is_none() };
    }
    Wish { run: true, stay: true }
}

/// Whether a change of a node can change what sets want of it.
pub(super) fn node_changed(change: &Change) -> bool {
    let view = |node: &Option<Arc<Value>>| {
        let node = node.as_ref()?;
        Some((node["metadata"]["labels"].clone(), node["spec"]["taints"].clone()))
    };
    view(&change.before) != view(&change.after)
}
