//! The status of a pool: conditions only, some of which count.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use portolan_core::ipam::{Pool, PoolResult};
use serde_json::{Value, json};

use super::conditions::{Wanted, render};
use crate::api::pool::CiliumLoadBalancerIPPool;
use crate::api::strings as names;

/// The server-side apply that the pool needs, if any: our conditions and nothing else, so that others keep theirs. It
/// holds for one resourceVersion, so that a stale count cannot win.
pub(super) fn needed(
    object: &CiliumLoadBalancerIPPool,
    pool: &Pool,
    result: &PoolResult,
    now: Timestamp,
) -> Option<Value> {
    let present = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let wanted = conditions(object, present, pool, result, now);
    if wanted.iter().all(|condition| present.contains(condition)) {
        return None;
    }
    Some(json!({
        "apiVersion": CiliumLoadBalancerIPPool::api_version(&()),
        "kind": CiliumLoadBalancerIPPool::kind(&()),
        "metadata": {"name": object.name_any(), "resourceVersion": object.resource_version()},
        "status": {"conditions": wanted},
    }))
}

fn conditions(
    object: &CiliumLoadBalancerIPPool,
    present: &[Condition],
    pool: &Pool,
    result: &PoolResult,
    now: Timestamp,
) -> Vec<Condition> {
    let render = |kind: &str, status: &str, reason: &str, message: &str| {
        render(present, &Wanted { kind, status, reason, message }, object.metadata.generation, now)
    };
    let count = |kind: &str, count: u128| render(kind, "Unknown", names::REASON_NONE, &count.to_string());
    let mut all = vec![
        match &result.conflict {
            Some(message) => render(names::CONDITION_CONFLICT, "True", names::REASON_OVERLAP, message),
            None => render(names::CONDITION_CONFLICT, "False", names::REASON_RESOLVED, ""),
        },
        count(names::CONDITION_TOTAL, result.total),
        count(names::CONDITION_AVAILABLE, result.total.saturating_sub(result.used)),
        count(names::CONDITION_USED, result.used),
    ];
    let errors: Vec<String> = pool.errors.iter().map(ToString::to_string).collect();
    if !errors.is_empty() {
        all.push(render(names::CONDITION_INVALID, "True", names::REASON_INVALID, &errors.join("; ")));
    } else if present.iter().any(|condition| condition.type_ == names::CONDITION_INVALID) {
        // It stays and says that all is well again: what another writer has touched, an apply cannot take away.
        all.push(render(names::CONDITION_INVALID, "False", names::REASON_RESOLVED, ""));
    }
    all
}

#[cfg(test)]
#[path = "pool_status_tests.rs"]
mod tests;
