//! From the plan to status writes: only what differs, as merge patches that hold for one resourceVersion, so that nobody
//! else's change is overwritten and foreign conditions stay.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use portolan_core::ipam::{Outcome, Pool, PoolResult, ServiceResult, plan};
use portolan_core::service::ServiceName;
use serde_json::{Value, json};

use super::index::{Event, Index, has_condition, ingress, is_ours, owns_ingress};
use crate::api::pool::CiliumLoadBalancerIPPool;
use crate::api::strings as names;

/// One status write.
pub(super) enum Write {
    Service(ServiceName, Value),
    Pool(String, Value),
}

impl Write {
    /// Sends it. A conflict is no error: the object has changed, and its event brings the next plan.
    pub(super) async fn send(self, client: &Client) -> Result<Option<Event>> {
        let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self {
            Self::Service(name, body) => {
                let api = Api::<Service>::namespaced(client.clone(), &name.namespace);
                let answer = api.patch_status(&name.name, &params, &Patch::Merge(body)).await;
                let event = settled(answer).with_context(|| format!("writing the status of service {name}"))?;
                Ok(event.map(|service| Event::Service(watcher::Event::Apply(service))))
            }
            Self::Pool(name, body) => {
                let api = Api::<CiliumLoadBalancerIPPool>::all(client.clone());
                let answer = api.patch_status(&name, &params, &Patch::Merge(body)).await;
                let event = settled(answer).with_context(|| format!("writing the status of pool {name}"))?;
                Ok(event.map(|pool| Event::Pool(watcher::Event::Apply(pool))))
            }
        }
    }
}

fn settled<T>(answer: kube::Result<T>) -> kube::Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// The writes that the world needs now.
pub(super) fn needed(index: &Index) -> Vec<Write> {
    let (world, selector_errors) = index.world();
    let plan = plan(&world);
    let mut writes = Vec::new();
    for (name, service) in &index.services.all {
        let body = match plan.services.get(name) {
            Some(result) => serve(service, result),
            None if !is_ours(service) && has_condition(service) => withdraw(service),
            None => None,
        };
        writes.extend(body.map(|body| Write::Service(name.clone(), body)));
    }
    for (name, object) in &index.pools.all {
        let mut invalid: Vec<String> = selector_errors.get(name).map(ToString::to_string).into_iter().collect();
        invalid.extend(world.pools.get(name).into_iter().flat_map(|pool: &Pool| &pool.errors).map(ToString::to_string));
        let nothing = PoolResult { conflict: None, total: 0, used: 0 };
        let body = pool_body(object, plan.pools.get(name).unwrap_or(&nothing), &invalid);
        writes.extend(body.map(|body| Write::Pool(name.clone(), body)));
    }
    writes
}

fn serve(service: &Service, result: &ServiceResult) -> Option<Value> {
    let (status, reason, message) = match result.outcome {
        Outcome::Satisfied => ("True", names::REASON_SATISFIED, ""),
        Outcome::NoPool => {
            ("False", names::REASON_NO_POOL, "There are no enabled CiliumLoadBalancerIPPools that match this service")
        }
        Outcome::OutOfIps => (
            "False",
            names::REASON_OUT_OF_IPS,
            "All enabled CiliumLoadBalancerIPPools that match this service ran out of allocatable IPs",
        ),
    };
    let present = service.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let generation = service.metadata.generation.unwrap_or(0);
    let mut conditions = present.clone();
    put(&mut conditions, names::CONDITION_SATISFIED, status, reason, message, generation);
    let moved = ingress(service) != result.ingress;
    if !moved && conditions == present {
        return None;
    }
    let mut body = json!({
        "metadata": {"resourceVersion": service.resource_version()},
        "status": {"conditions": conditions},
    });
    if moved {
        let list: Vec<Value> = result.ingress.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        tracing::info!(service = service.name_any(), addresses = ?result.ingress, "assigning");
        body["status"]["loadBalancer"] = json!({"ingress": list});
    }
    Some(body)
}

/// A Service that we served and that is not ours any more: our condition goes, and the address if it is from us.
fn withdraw(service: &Service) -> Option<Value> {
    let mut conditions = service.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != names::CONDITION_SATISFIED);
    let mut body = json!({
        "metadata": {"resourceVersion": service.resource_version()},
        "status": {"conditions": conditions},
    });
    if owns_ingress(service) {
        body["status"]["loadBalancer"] = json!({"ingress": null});
    }
    Some(body)
}

fn pool_body(pool: &CiliumLoadBalancerIPPool, result: &PoolResult, invalid: &[String]) -> Option<Value> {
    let present = pool.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let generation = pool.metadata.generation.unwrap_or(0);
    let mut conditions = present.clone();
    let mut set = |kind: &str, status: &str, reason: &str, message: &str| {
        put(&mut conditions, kind, status, reason, message, generation);
    };
    match &result.conflict {
        Some(message) => set(names::CONDITION_CONFLICT, "True", names::REASON_OVERLAP, message),
        None => set(names::CONDITION_CONFLICT, "False", names::REASON_RESOLVED, ""),
    }
    let available = result.total.saturating_sub(result.used);
    set(names::CONDITION_TOTAL, "Unknown", names::REASON_NONE, &result.total.to_string());
    set(names::CONDITION_AVAILABLE, "Unknown", names::REASON_NONE, &available.to_string());
    set(names::CONDITION_USED, "Unknown", names::REASON_NONE, &result.used.to_string());
    if invalid.is_empty() {
        conditions.retain(|condition| condition.type_ != names::CONDITION_INVALID);
    } else {
        put(&mut conditions, names::CONDITION_INVALID, "True", names::REASON_INVALID, &invalid.join("; "), generation);
    }
    (conditions != present).then(
        || json!({"metadata": {"resourceVersion": pool.resource_version()}, "status": {"conditions": conditions}}),
    )
}

/// Sets a condition; `lastTransitionTime` moves only with the status.
fn put(conditions: &mut Vec<Condition>, kind: &str, status: &str, reason: &str, message: &str, generation: i64) {
    let old = conditions.iter().position(|condition| condition.type_ == kind);
    let since = old.map(|at| &conditions[at]).filter(|condition| condition.status == status);
    // The API keeps whole seconds; with a fraction every comparison would differ.
    let now = || Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default());
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: since.map_or_else(now, |condition| condition.last_transition_time.clone()),
    };
    match old {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}
