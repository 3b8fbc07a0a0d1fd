//! How long a Job waits after pods that failed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::pods::{has_failed, has_succeeded};
use super::remaining;
use crate::controllers::object::{condition, list, text};

/// The wait after the first failure; each further one without a success doubles it.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// When the pod ended, as far as it says so.
fn ended_at(pod: &Value) -> Option<Timestamp> {
    let containers = list(pod, "/status/containerStatuses");
    let times = containers.iter().map(|container| text(container, "/state/terminated/finishedAt").parse().ok());
    let last: Option<Vec<Timestamp>> = times.collect();
    let last = last.and_then(|times| times.into_iter().max());
    let unready = || condition(pod, "Ready").and_then(|ready| text(ready, "/lastTransitionTime").parse().ok());
    let deleted = || text(pod, "/metadata/deletionTimestamp").parse().ok();
    last.or_else(unready).or_else(deleted).or_else(|| text(pod, "/metadata/creationTimestamp").parse().ok())
}

/// The wait until the next pod may be made.
pub(super) fn left(job: &Value, pods: &[Arc<Value>], now: Timestamp) -> Duration {
    let last_success = pods.iter().filter(|pod| has_succeeded(pod)).filter_map(|pod| ended_at(pod)).max();
    let failures = pods.iter().filter(|pod| has_failed(job, pod)).filter_map(|pod| ended_at(pod));
    let since: Vec<Timestamp> = failures.filter(|at| last_success.is_none_or(|success| *at > success)).collect();
    let Some(last) = since.iter().max() else { return Duration::ZERO };
    let doublings = (since.len() - 1).min(16) as u32;
    remaining(*last, (FIRST * 2u32.pow(doublings)).min(LONGEST), now)
}
