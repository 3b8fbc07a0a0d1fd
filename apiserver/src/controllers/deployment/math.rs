//! How many replicas each set of a Deployment gets: pure functions.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Value;

use crate::controllers::cache::Key;
use crate::controllers::object::{annotation, number, scaled, text};

pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MOST: &str = "deployment.kubernetes.io/max-replicas";

/// `spec.replicas` of a Deployment or a ReplicaSet.
pub(super) fn replicas(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

/// `status.availableReplicas`.
pub(super) fn available(set: &Value) -> i64 {
    number(set, "/status/availableReplicas")
}

pub(super) fn is_rolling(deployment: &Value) -> bool {
    deployment["spec"]["strategy"]["type"] == "RollingUpdate"
}

/// How many more and how many fewer pods than wanted there may be.
fn fenceposts(deployment: &Value) -> (i64, i64) {
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    let wanted = replicas(deployment);
    let (surge, unavailable) =
        (scaled(&rolling["maxSurge"], wanted, true), scaled(&rolling["maxUnavailable"], wanted, false));
    // With neither the update would never begin.
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How many more pods than wanted there may be.
pub(super) fn max_surge(deployment: &Value) -> i64 {
    if is_rolling(deployment) { fenceposts(deployment).0 } else { 0 }
}

/// How many of the wanted pods may be unavailable.
pub(super) fn max_unavailable(deployment: &Value) -> i64 {
    let wanted = replicas(deployment);
    if is_rolling(deployment) && wanted > 0 { fenceposts(deployment).1.min(wanted) } else { 0 }
}

/// All the replicas that the sets ask for.
pub(super) fn total(sets: &[Arc<Value>]) -> i64 {
    sets.iter().map(|set| replicas(set)).sum()
}

/// By age, then name.
pub(super) fn by_age(sets: &mut [Arc<Value>]) {
    sets.sort_by_cached_key(|set| (text(set, "/metadata/creationTimestamp").to_owned(), Key::of(set)));
}

/// What the new set should have now, `own` being what it has and `all` what all sets have together.
pub(super) fn new_replicas(deployment: &Value, all: i64, own: i64) -> i64 {
    let wanted = replicas(deployment);
    if !is_rolling(deployment) {
        return wanted;
    }
    let room = wanted + max_surge(deployment) - all;
    if room <= 0 { own } else { own + room.min(wanted - own) }
}

/// What the old sets should have, so that enough pods stay available: first those that are unhealthy go, then as many
/// as there is room for. Pairs of a set and its new number.
pub(super) fn old_replicas(deployment: &Value, new: &Value, old: &[Arc<Value>]) -> Vec<(Arc<Value>, i64)> {
    let minimum = replicas(deployment) - max_unavailable(deployment);
    let new_missing = replicas(new) - available(new);
    let mut room = replicas(new) + total(old) - minimum - new_missing;
    let mut old = old.to_vec();
    by_age(&mut old);
    let mut numbers: Vec<i64> = old.iter().map(|set| replicas(set)).collect();
    if room <= 0 {
        return Vec::new();
    }
    for (set, number) in old.iter().zip(&mut numbers) {
        let unhealthy = (*number - available(set)).clamp(0, room);
        *number -= unhealthy;
        room -= unhealthy;
    }
    let mut spare = available(new) + old.iter().map(|set| available(set)).sum::<i64>() - minimum;
    for number in &mut numbers {
        let fewer = (*number).min(spare.max(0));
        *number -= fewer;
        spare -= fewer;
    }
    old.into_iter().zip(numbers).filter(|(set, number)| replicas(set) != *number).collect()
}

/// The numbers after the Deployment itself was scaled while several sets are in use: each gets its share.
pub(super) fn proportional(deployment: &Value, sets: &[Arc<Value>]) -> Vec<(Arc<Value>, i64)> {
    let wanted = replicas(deployment);
    let allowed = if wanted > 0 { wanted + max_surge(deployment) } else { 0 };
    let mut sets: Vec<Arc<Value>> = sets.iter().filter(|set| replicas(set) > 0).cloned().collect();
    let to_add = allowed - total(&sets);
    by_age(&mut sets);
    // The largest first; of equal ones the newer when growing, the older when shrinking.
    if to_add > 0 {
        sets.reverse();
    }
    sets.sort_by_key(|set| Reverse(replicas(set)));
    let mut added = 0;
    let mut sizes = Vec::new();
    for set in &sets {
        let share = share(deployment, set, to_add, added);
        added += share;
        sizes.push(replicas(set) + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sets.into_iter().zip(sizes).collect()
}

fn share(deployment: &Value, set: &Value, to_add: i64, added: i64) -> i64 {
    let own = replicas(set);
    if own == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let wanted = replicas(deployment);
    let fraction = if wanted == 0 {
        -own
    } else {
        let annotated = annotation(set, MOST).and_then(|most| most.parse::<i64>().ok()).filter(|most| *most > 0);
        let before = annotated.unwrap_or_else(|| number(deployment, "/status/replicas"));
        if before == 0 {
            return 0;
        }
        let share = own as f64 * (wanted + max_surge(deployment)) as f64 / before as f64;
        share.round() as i64 - own
    };
    if to_add > 0 { fraction.min(to_add - added) } else { fraction.max(to_add - added) }
}
