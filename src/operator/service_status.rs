//! The status of a Service: addresses and our condition, in one write, so that neither stands without the other.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use portolan_core::ipam::{Refusal, ServiceResult, World};
use portolan_core::service::ServiceName;
use serde_json::{Value, json};

use super::conditions::{Wanted, put, render};
use super::index::{has_condition, ingress, is_ours, owns_ingress};
use crate::api::strings as names;
use crate::k8s::events::Note;

/// A status write, and what to tell about it once it is done.
pub(super) struct Change {
    /// A merge patch that holds for one resourceVersion: nobody's change is overwritten, and foreign conditions stay.
    pub(super) body: Value,
    pub(super) notes: Vec<Note>,
    /// Addresses that the Service gets by it.
    pub(super) gains: Vec<IpAddr>,
    /// Addresses that it loses by it.
    pub(super) loses: Vec<IpAddr>,
}

impl Change {
    /// Only what the Service loses, if it loses anything: what it gets must wait.
    pub(super) fn release(&self, service: &Service) -> Option<Self> {
        if self.loses.is_empty() {
            return None;
        }
        let kept: Vec<IpAddr> = ingress(service).into_iter().filter(|address| !self.loses.contains(address)).collect();
        let body = json!({
            "metadata": {"resourceVersion": service.resource_version()},
            "status": {"loadBalancer": {"ingress": list(&kept)}},
        });
        Some(Self { body, notes: Vec::new(), gains: Vec::new(), loses: self.loses.clone() })
    }
}

fn list(addresses: &[IpAddr]) -> Vec<Value> {
    addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect()
}

/// The change that the Service needs, if any.
pub(super) fn needed(
    world: &World,
    name: &ServiceName,
    service: &Service,
    result: Option<&ServiceResult>,
    now: Timestamp,
) -> Option<Change> {
    match result {
        Some(result) => serve(world, name, service, result, now),
        None if is_ours(service) => None,
        None => withdraw(service),
    }
}

fn serve(
    world: &World,
    name: &ServiceName,
    service: &Service,
    result: &ServiceResult,
    now: Timestamp,
) -> Option<Change> {
    let present = service.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let texts: Vec<(&str, String)> = result.refusals.iter().map(refusal_text).collect();
    let message = texts.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("; ");
    // Of several refusals the last one gives the reason, as peers have it.
    let (status, reason) = texts.last().map_or(("True", names::REASON_SATISFIED), |(reason, _)| ("False", *reason));
    let wanted = Wanted { kind: names::CONDITION_SATISFIED, status, reason, message: &message };
    let condition = render(&present, &wanted, service.metadata.generation, now);
    let before = ingress(service);
    let moved = before != result.ingress;
    if !moved && present.contains(&condition) {
        return None;
    }
    let told = |one: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        one.type_ == condition.type_ && one.reason == condition.reason && one.message == condition.message
    };
    let failure = (status == "False" && !present.iter().any(|one| told(&one))).then(|| format!("{reason}: {message}"));
    let mut conditions = present.clone();
    put(&mut conditions, condition);
    let mut body = json!({
        "metadata": {"resourceVersion": service.resource_version()},
        "status": {"conditions": conditions},
    });
    if moved {
        tracing::info!(service = %name, ?before, addresses = ?result.ingress, "assigning");
        body["status"]["loadBalancer"] = json!({"ingress": list(&result.ingress)});
    }
    let mut notes = Vec::new();
    let mut note = |type_, reason, text| notes.push(Note { regarding: service.object_ref(&()), type_, reason, text });
    for duplicate in &result.duplicates {
        let text = format!("{} was taken away: service {} had it first", duplicate.address, duplicate.holder);
        note(EventType::Warning, names::EVENT_DUPLICATE, text);
    }
    let gains: Vec<IpAddr> = result.ingress.iter().filter(|address| !before.contains(address)).copied().collect();
    let loses: Vec<IpAddr> = before.iter().filter(|address| !result.ingress.contains(address)).copied().collect();
    let gained: Vec<String> = gains
        .iter()
        .map(|address| match world.pool_of(name, *address) {
            Some(pool) => format!("{address} from pool {pool}"),
            None => address.to_string(),
        })
        .collect();
    if !gained.is_empty() {
        note(EventType::Normal, names::EVENT_ALLOCATED, format!("Assigned {}", gained.join(", ")));
    } else if result.ingress.is_empty() && !before.is_empty() {
        note(EventType::Normal, names::EVENT_RELEASED, format!("Took back {}", strings(&before)));
    }
    if let Some(text) = failure {
        note(EventType::Warning, names::EVENT_FAILED, text);
    }
    Some(Change { body, notes, gains, loses })
}

/// A Service that we served and that is not ours any more: our condition goes, and the address if it is from us.
fn withdraw(service: &Service) -> Option<Change> {
    let before = ingress(service);
    let take_back = owns_ingress(service) && !before.is_empty();
    if !take_back && !has_condition(service) {
        return None;
    }
    let mut conditions = service.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != names::CONDITION_SATISFIED);
    let mut body = json!({
        "metadata": {"resourceVersion": service.resource_version()},
        "status": {"conditions": conditions},
    });
    let mut notes = Vec::new();
    if take_back {
        body["status"]["loadBalancer"] = json!({"ingress": null});
        notes.push(Note {
            regarding: service.object_ref(&()),
            type_: EventType::Normal,
            reason: names::EVENT_RELEASED,
            text: format!("Took back {}", strings(&before)),
        });
    }
    let loses = if take_back { before } else { Vec::new() };
    Some(Change { body, notes, gains: Vec::new(), loses })
}

fn strings(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Reason and message of a refusal, as peers write them.
fn refusal_text(refusal: &Refusal) -> (&'static str, String) {
    match refusal {
        Refusal::NoPool => {
            (names::REASON_NO_POOL, "There are no enabled CiliumLoadBalancerIPPools that match this service".to_owned())
        }
        Refusal::OutOfIps => (
            names::REASON_OUT_OF_IPS,
            "All enabled CiliumLoadBalancerIPPools that match this service ran out of allocatable IPs".to_owned(),
        ),
        Refusal::NoPoolWith(ip) => (names::REASON_NO_POOL, format!("No pool exists with a CIDR containing '{ip}'")),
        Refusal::NotSelected(ip) => {
            (names::REASON_MISMATCH, format!("The pool with the CIDR containing '{ip}', doesn't select this service"))
        }
        Refusal::Taken(ip) => {
            (names::REASON_ALLOCATED, format!("The IP '{ip}' is already allocated to another service"))
        }
        Refusal::NotAnAddress(text) => {
            (names::REASON_NOT_AN_ADDRESS, format!("The requested {text:?} is not an IP address"))
        }
    }
}

#[cfg(test)]
#[path = "service_status_tests.rs"]
mod tests;
