//! What is to be done next about the pods of a set: a pure function of what is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::identity::{HASH, is_marked, ordinal};
use crate::controllers::object::{is_terminating, label, name, number, text};
use crate::controllers::pods::{is_finished, is_ready, until_available};

/// What pods are compared with.
pub(super) struct View {
    pub(super) current: String,
    pub(super) update: String,
    pub(super) minimum: Duration,
    pub(super) now: Timestamp,
}

impl View {
    pub(super) fn is_available(&self, pod: &Value) -> bool {
        is_running(pod) && until_available(pod, self.minimum, self.now) == Some(Duration::ZERO)
    }

    fn is_healthy(&self, pod: &Value) -> bool {
        self.is_available(pod) && !is_terminating(pod)
    }
}

/// Whether the pod runs and is ready.
pub(super) fn is_running(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Running" && is_ready(pod)
}

/// The pods of a set by number: those that it wants, and those that it has no more need of.
pub(super) struct Pods {
    first: u64,
    wanted: u64,
    replicas: BTreeMap<u64, Arc<Value>>,
    surplus: BTreeMap<u64, Arc<Value>>,
}

impl Pods {
    pub(super) fn sorted(set: &Value, pods: Vec<Arc<Value>>) -> Self {
        let first = set["spec"]["ordinals"]["start"].as_u64().unwrap_or(0);
        let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1);
        let numbered = pods.into_iter().filter_map(|pod| Some((ordinal(set, &pod)?, pod)));
        let (replicas, surplus) = numbered.partition(|(number, _)| (first..first + wanted).contains(number));
        Self { first, wanted, replicas, surplus }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.replicas.values().chain(self.surplus.values())
    }

    /// Whether the set has no more need of it.
    pub(super) fn is_surplus(&self, pod: &Value) -> bool {
        self.surplus.values().any(|other| name(other) == name(pod))
    }

    /// When the first pod that is ready becomes available.
    pub(super) fn next_look(&self, view: &View) -> Option<Duration> {
        let waits = self.all().filter_map(|pod| until_available(pod, view.minimum, view.now));
        waits.filter(|wait| !wait.is_zero()).min()
    }

    /// The number of the first pod with which something is wrong; one that is missing is as bad.
    fn first_unhealthy(&self, view: &View) -> Option<u64> {
        let sick = |number: &u64| self.replicas.get(number).is_none_or(|pod| !view.is_healthy(pod));
        let surplus = || self.surplus.iter().find(|(_, pod)| !view.is_healthy(pod)).map(|(number, _)| *number);
        (self.first..self.first + self.wanted).find(sick).or_else(surplus)
    }
}

/// A step to take.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Make the pod with this number, of the new revision or of the one before.
    Create { ordinal: u64, updated: bool },
    /// Give a pod its labels back.
    Identify(Arc<Value>),
    /// Delete a pod.
    Delete(Arc<Value>),
}

/// The next steps: one at a time for a set that is kept in order, all that are due for a parallel one.
pub(super) fn steps(set: &Value, pods: &Pods, view: &View) -> Vec<Step> {
    let mut steps = Vec::new();
    if replicas(set, pods, view, &mut steps) && surplus(set, pods, view, &mut steps) {
        steps.extend(update(set, pods, view).map(Step::Delete));
    }
    steps
}

fn in_order(set: &Value) -> bool {
    set["spec"]["podManagementPolicy"] != "Parallel"
}

/// Makes those that are missing and ends those that have failed; says whether the set may go on.
fn replicas(set: &Value, pods: &Pods, view: &View, steps: &mut Vec<Step>) -> bool {
    let (ordered, mut go_on) = (in_order(set), true);
    let rolling = set["spec"]["updateStrategy"]["type"] == "RollingUpdate";
    let partition = number(set, "/spec/updateStrategy/rollingUpdate/partition").unsigned_abs();
    for ordinal in pods.first..pods.first + pods.wanted {
        let waits = match pods.replicas.get(&ordinal) {
            None => {
                steps.push(Step::Create { ordinal, updated: !(rolling && ordinal < pods.first + partition) });
                ordered
            }
            // It is made anew when it is gone.
            Some(pod) if is_finished(pod) => {
                steps.extend((!is_terminating(pod)).then(|| Step::Delete(Arc::clone(pod))));
                go_on = false;
                ordered
            }
            Some(pod) if ordered && !view.is_healthy(pod) => true,
            Some(pod) => {
                steps.extend((!is_marked(set, pod)).then(|| Step::Identify(Arc::clone(pod))));
                false
            }
        };
        if waits {
            return false;
        }
    }
    go_on
}

/// Ends those that are too many, the last one first; says whether the set may go on.
fn surplus(set: &Value, pods: &Pods, view: &View, steps: &mut Vec<Step>) -> bool {
    let ordered = in_order(set);
    let first_sick = pods.first_unhealthy(view);
    for (number, pod) in pods.surplus.iter().rev() {
        if is_terminating(pod) {
            if ordered {
                return false;
            }
            continue;
        }
        // One that is not well goes only if nothing before it is ill.
        if ordered && !view.is_available(pod) && first_sick != Some(*number) {
            return false;
        }
        steps.push(Step::Delete(Arc::clone(pod)));
        if ordered {
            return false;
        }
    }
    true
}

/// The last pod of an old revision, if all behind it are well.
fn update(set: &Value, pods: &Pods, view: &View) -> Option<Arc<Value>> {
    let strategy = &set["spec"]["updateStrategy"];
    if strategy["type"] != "RollingUpdate" {
        return None;
    }
    let partition = number(strategy, "/rollingUpdate/partition").unsigned_abs();
    for ordinal in (pods.first + partition..pods.first + pods.wanted).rev() {
        let pod = pods.replicas.get(&ordinal)?;
        if label(pod, HASH) != Some(&view.update) && !is_terminating(pod) {
            return Some(Arc::clone(pod));
        }
        if !view.is_healthy(pod) {
            return None;
        }
    }
    None
}
