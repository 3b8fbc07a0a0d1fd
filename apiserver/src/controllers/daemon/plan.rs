//! What is to be done about the pods of a set: pure functions of what is there.

use std::sync::Arc;

use serde_json::Value;

use super::placement::wish;
use super::{ByNode, View};
use crate::controllers::object::{is_terminating, name, namespace, scaled, text};
use crate::controllers::pods::is_ready;

/// Most pods that are made or deleted at once.
const BURST: usize = 250;

/// Steps to take.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    /// Pods that go.
    pub(super) delete: Vec<Arc<Value>>,
    /// Events: reason and message.
    pub(super) notes: Vec<(&'static str, String)>,
}

fn surge_and_unavailable(set: &Value, nodes: &[Arc<Value>]) -> (i64, i64) {
    let desired = nodes.iter().filter(|node| wish(set, node).run).count() as i64;
    let rolling = &set["spec"]["updateStrategy"]["rollingUpdate"];
    let surge = scaled(&rolling["maxSurge"], desired, true);
    let unavailable = scaled(&rolling["maxUnavailable"], desired, true);
    // With neither the update would never begin.
    if desired > 0 && surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn may_surge(set: &Value) -> bool {
    let strategy = &set["spec"]["updateStrategy"];
    strategy["type"] == "RollingUpdate" && scaled(&strategy["rollingUpdate"]["maxSurge"], 100, true) > 0
}

/// Pods that are missing, that have ended, that are too many, or on the wrong node.
pub(super) fn places(set: &Value, nodes: &[Arc<Value>], by_node: &ByNode, view: &View) -> Steps {
    let mut steps = Steps::default();
    let none = Vec::new();
    for node in nodes {
        let wish = wish(set, node);
        let pods = by_node.get(name(node)).unwrap_or(&none);
        match (pods.is_empty(), wish.stay) {
            (true, _) if wish.run => steps.create.push(name(node).to_owned()),
            (true, _) => {}
            (false, false) => steps.delete.extend(pods.iter().filter(|pod| !is_terminating(pod)).cloned()),
            (false, true) => on_node(set, node, wish.run, pods, view, &mut steps),
        }
    }
    // Pods that wait for a node that is gone.
    let known = |node: &String| nodes.iter().any(|other| name(other) == node);
    let lost = by_node.iter().filter(|(node, _)| !known(node)).flat_map(|(_, pods)| pods);
    steps.delete.extend(lost.filter(|pod| text(pod, "/spec/nodeName").is_empty() && !is_terminating(pod)).cloned());
    steps.create.truncate(BURST);
    steps.delete.truncate(BURST);
    steps
}

fn on_node(set: &Value, node: &Value, run: bool, pods: &[Arc<Value>], view: &View, steps: &mut Steps) {
    let mut running = Vec::new();
    for pod in pods.iter().filter(|pod| !is_terminating(pod)) {
        let what = match text(pod, "/status/phase") {
            "Failed" => ("FailedDaemonPod", "failed", "kill"),
            "Succeeded" => ("SucceededDaemonPod", "succeeded", "delete"),
            _ => {
                running.push(pod);
                continue;
            }
        };
        let (reason, word, action) = what;
        let (space, pod_name, node) = (namespace(pod), name(pod), name(node));
        let message = format!("Found {word} daemon pod {space}/{pod_name} on node {node}, will try to {action} it");
        steps.notes.push((reason, message));
        steps.delete.push(Arc::clone(pod));
    }
    if !may_surge(set) {
        steps.delete.extend(running.iter().skip(1).map(|pod| Arc::clone(pod)));
        return;
    }
    if running.is_empty() && run && !pods.iter().any(|pod| !is_terminating(pod)) {
        steps.create.push(name(node).to_owned());
        return;
    }
    let (updated, old): (Vec<&Arc<Value>>, Vec<&Arc<Value>>) =
        running.into_iter().partition(|pod| view.is_updated(pod));
    steps.delete.extend(updated.iter().skip(1).chain(old.iter().skip(1)).map(|pod| Arc::clone(pod)));
    if let (Some(fresh), Some(old)) = (updated.first(), old.first())
        && (!is_ready(old) || view.is_available(fresh))
    {
        steps.delete.push(Arc::clone(old));
    }
}

/// The updated and the old pod of a node.
type Pair<'a> = (Option<&'a Arc<Value>>, Option<&'a Arc<Value>>);

/// The updated and the old pod of a node, if there is at most one of each that is not ending.
fn pair<'a>(pods: &'a [Arc<Value>], view: &View) -> Option<Pair<'a>> {
    let active = pods.iter().filter(|pod| !is_terminating(pod));
    let (updated, old): (Vec<_>, Vec<_>) = active.partition(|pod| view.is_updated(pod));
    (updated.len() <= 1 && old.len() <= 1).then(|| (updated.first().copied(), old.first().copied()))
}

/// The next steps of an update that replaces pods node by node.
pub(super) fn rolling(set: &Value, nodes: &[Arc<Value>], by_node: &ByNode, view: &View) -> Steps {
    let (surge, unavailable) = surge_and_unavailable(set, nodes);
    if surge > 0 { surging(by_node, surge, view) } else { replacing(by_node, unavailable, view) }
}

fn replacing(by_node: &ByNode, most: i64, view: &View) -> Steps {
    let mut missing = 0;
    let (mut delete, mut candidates) = (Vec::new(), Vec::new());
    for pods in by_node.values() {
        match pair(pods, view) {
            None | Some((None, None) | (Some(_), Some(_))) => missing += 1,
            Some((Some(fresh), None)) => missing += i64::from(!view.is_available(fresh)),
            // It serves nobody: its place in the count is taken already.
            Some((None, Some(old))) if !view.is_available(old) => {
                missing += 1;
                delete.push(Arc::clone(old));
            }
            Some((None, Some(old))) => candidates.push(Arc::clone(old)),
        }
    }
    candidates.truncate((most - missing).max(0) as usize);
    delete.extend(candidates);
    Steps { delete, ..Steps::default() }
}

fn surging(by_node: &ByNode, most: i64, view: &View) -> Steps {
    let mut surged = 0;
    let mut steps = Steps::default();
    let mut candidates = Vec::new();
    for (node, pods) in by_node {
        match pair(pods, view) {
            None => surged += 1,
            Some((_, None)) => {}
            Some((None, Some(old))) if !view.is_available(old) => steps.create.push(node.clone()),
            Some((None, Some(_))) => candidates.push(node.clone()),
            Some((Some(fresh), Some(_))) if !view.is_available(fresh) => surged += 1,
            Some((Some(_), Some(old))) => steps.delete.push(Arc::clone(old)),
        }
    }
    candidates.truncate((most - surged).max(0) as usize);
    steps.create.extend(candidates);
    steps
}
