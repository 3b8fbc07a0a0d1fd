//! Whether the cluster is as `core` plans it over the whole world.

use portolan_core::ipam::{Refusal, plan};
use serde_json::Value;

use crate::ledger::Ledger;
use crate::model::{self, SATISFIED, condition, ingress, is_ours, service_name};

/// What is not as planned, in words; nothing if all is.
pub(crate) fn differences(ledger: &Ledger) -> Vec<String> {
    let world = model::world(ledger.pools.iter(), &ledger.services);
    let plan = plan(&world);
    let mut found = Vec::new();
    for (key, service) in &ledger.services {
        let ours = condition(service, SATISFIED);
        match plan.services.get(&service_name(key)) {
            Some(result) => {
                let present = ingress(service);
                if present != result.ingress {
                    found.push(format!("{} has {present:?} and should have {:?}", key.1, result.ingress));
                }
                let mut reasons = result.refusals.iter().map(reason);
                let (status, reason) = reasons.next_back().map_or(("True", "satisfied"), |reason| ("False", reason));
                if ours.len() != 1 || ours[0]["status"] != status || ours[0]["reason"] != reason {
                    found.push(format!("{} says {ours:?} and should say {status} {reason}", key.1));
                }
            }
            None if is_ours(service) => {}
            None if !ours.is_empty() => found.push(format!("{} is not ours and carries our condition", key.1)),
            None => {}
        }
    }
    for (name, object) in &ledger.pools {
        let result = &plan.pools[name];
        let free = result.total.saturating_sub(result.used);
        let conflict = if result.conflict.is_some() { "True" } else { "False" };
        for (kind, field, wanted) in [
            ("cilium.io/PoolConflict", "status", conflict.to_owned()),
            ("cilium.io/PoolConflict", "message", result.conflict.clone().unwrap_or_default()),
            ("cilium.io/IPsTotal", "message", result.total.to_string()),
            ("cilium.io/IPsAvailable", "message", free.to_string()),
            ("cilium.io/IPsUsed", "message", result.used.to_string()),
        ] {
            let present = condition(object, kind);
            let said = present.first().map_or(&Value::Null, |condition| &condition[field]);
            if present.len() != 1 || *said != *wanted {
                found.push(format!("pool {name}: {kind} says {said} and should say {wanted:?}"));
            }
            if present.first().is_some_and(|one| one["observedGeneration"] != object["metadata"]["generation"]) {
                found.push(format!("pool {name}: {kind} is about another generation"));
            }
        }
        let invalid = condition(object, "portolan.io/InvalidSpec");
        if invalid.iter().any(|one| one["status"] == "True") == world.pools[name].errors.is_empty() {
            found.push(format!("pool {name}: InvalidSpec says {invalid:?}"));
        }
    }
    found
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NoPool | Refusal::NoPoolWith(_) => "no_pool",
        Refusal::OutOfIps => "out_of_ips",
        Refusal::NotSelected(_) => "pool_selector_mismatch",
        Refusal::Taken(_) => "already_allocated",
        Refusal::NotAnAddress(_) => "invalid_request",
    }
}
