//! Which pods go first when there are too many.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::controllers::object::{annotation, condition, list, text};
use crate::controllers::pods::is_ready;

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods that are missed least: not placed before placed, pending before running, not ready before ready,
/// cheap before dear, where there are many before where there are few, ready for a short time, restarted often, young.
pub(super) fn first_to_go(
    pods: &[Arc<Value>],
    related: &[Arc<Value>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Value>> {
    let mut pods = pods.to_vec();
    let crowd = |pod: &Value| {
        let node = text(pod, "/spec/nodeName");
        related.iter().filter(|other| text(other, "/spec/nodeName") == node).count()
    };
    pods.sort_by_cached_key(|pod| {
        let phase = match text(pod, "/status/phase") {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let cost: i32 = annotation(pod, COST).and_then(|cost| cost.parse().ok()).unwrap_or(0);
        (
            !text(pod, "/spec/nodeName").is_empty(),
            phase,
            is_ready(pod),
            cost,
            Reverse(crowd(pod)),
            ready_age(pod, now),
            Reverse(restarts(pod)),
            age(text(pod, "/metadata/creationTimestamp"), now),
            text(pod, "/metadata/uid").to_owned(),
        )
    });
    pods.truncate(count);
    pods
}

fn ready_age(pod: &Value, now: Timestamp) -> u32 {
    condition(pod, "Ready").map_or(0, |ready| age(text(ready, "/lastTransitionTime"), now))
}

/// The age in powers of two of a nanosecond, as the real one buckets it: similar ages count as equal.
fn age(since: &str, now: Timestamp) -> u32 {
    let nanoseconds = since.parse::<Timestamp>().map_or(0, |since| now.duration_since(since).as_nanos());
    128 - u128::try_from(nanoseconds).unwrap_or(0).leading_zeros()
}

fn restarts(pod: &Value) -> i64 {
    list(pod, "/status/containerStatuses").iter().map(|status| status["restartCount"].as_i64().unwrap_or(0)).sum()
}
