//! Who has to go so that a pod with a higher priority finds a place: pure functions.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Value;

use super::fit::{Place, Unfit, unfit};
use super::topology::Cluster;
use crate::controllers::object::{is_terminating, name, number, text};
use crate::controllers::pods::is_finished;

/// `spec.priority`.
pub(super) fn priority(pod: &Value) -> i64 {
    number(pod, "/spec/priority")
}

/// A node, and the pods that have to leave it.
#[derive(Debug, PartialEq)]
pub(super) struct Sacrifice {
    pub(super) node: String,
    pub(super) victims: Vec<Arc<Value>>,
}

/// Why the pod may not make others go.
pub(super) fn ineligible(pod: &Value, places: &[Place]) -> Option<&'static str> {
    if text(pod, "/spec/preemptionPolicy") == "Never" {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = text(pod, "/status/nominatedNodeName");
    let mut on_it = places.iter().filter(|place| name(&place.node) == nominated).flat_map(|place| &place.pods);
    on_it
        .any(|other| is_terminating(other) && priority(other) < priority(pod))
        .then_some("not eligible due to a terminating pod on the nominated node.")
}

/// The best of all sacrifices; where there is none, why, for each of the places.
pub(super) fn preempt(pod: &Value, cluster: &Cluster, against: &[Unfit]) -> Result<Sacrifice, Vec<Vec<String>>> {
    let mut best = None;
    let mut useless = Vec::new();
    for (index, unfit) in against.iter().enumerate() {
        let found = match unfit.crowded {
            true => victims(pod, cluster, index),
            false => Err(vec!["Preemption is not helpful for scheduling".to_owned()]),
        };
        match found {
            Ok(victims) => {
                let cost = cost(&victims);
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    let node = name(&cluster.places[index].node).to_owned();
                    best = Some((cost, Sacrifice { node, victims }));
                }
            }
            Err(reasons) => useless.push(reasons),
        }
    }
    best.map(|(_, sacrifice)| sacrifice).ok_or(useless)
}

/// What decides between nodes: the dearest victim, all of them together, their number, and how long the dearest has run.
fn cost(victims: &[Arc<Value>]) -> (i64, i64, usize, Reverse<String>) {
    let dearest = victims.iter().map(|pod| priority(pod)).max().unwrap_or(i64::MIN);
    // As the real one adds them: negative priorities count as less than none.
    let sum = victims.iter().map(|pod| priority(pod) + i64::from(i32::MAX) + 1).sum();
    let started = victims.iter().filter(|pod| priority(pod) == dearest).map(|pod| started(pod)).min();
    (dearest, sum, victims.len(), Reverse(started.unwrap_or_default().to_owned()))
}

fn started(pod: &Value) -> &str {
    let start = text(pod, "/status/startTime");
    if start.is_empty() { text(pod, "/metadata/creationTimestamp") } else { start }
}

/// The fewest pods of a lower priority without which the pod fits on a place: of all of them, those that do not disturb
/// stay, the most important first.
fn victims(pod: &Value, cluster: &Cluster, index: usize) -> Result<Vec<Arc<Value>>, Vec<String>> {
    let place = &cluster.places[index];
    let lower = |other: &Arc<Value>| priority(other) < priority(pod) && !is_finished(other);
    let (mut candidates, others): (Vec<Arc<Value>>, Vec<Arc<Value>>) = place.pods.iter().cloned().partition(lower);
    if candidates.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    candidates.sort_by_cached_key(|other| (Reverse(priority(other)), started(other).to_owned()));
    let mut places: Vec<Place> = cluster.places.to_vec();
    let mut fits_with = |pods: Vec<Arc<Value>>| {
        places[index].pods = pods;
        unfit(pod, &places[index], &Cluster { places: &places, namespaces: cluster.namespaces })
    };
    if let Some(unfit) = fits_with(others.clone()) {
        return Err(unfit.reasons);
    }
    let mut kept = others;
    let mut victims = Vec::new();
    for candidate in candidates {
        kept.push(Arc::clone(&candidate));
        if fits_with(kept.clone()).is_some() {
            kept.pop();
            victims.push(candidate);
        }
    }
    Ok(victims)
}
