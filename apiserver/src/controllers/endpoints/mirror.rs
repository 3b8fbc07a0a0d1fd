//! Endpoints that somebody else writes, for a service without selector, come as slices too.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::slices::{ByPorts, Plan, Source, slice_labels};
use super::{TRIGGER, list, text};
use crate::controllers::kind::ENDPOINTS;
use crate::controllers::object::{annotation, label};

pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most addresses of one subset, and so of one slice.
const MOST: usize = 1000;

/// Whether the object is meant for clients of a service.
fn is_wanted(endpoints: &Value) -> bool {
    label(endpoints, SKIP) != Some("true") && annotation(endpoints, LEADER).is_none()
}

/// The steps from the mirrored slices that are there to those that should be; `endpoints` is nothing if there is no such
/// object, or its service is not there or has a selector.
pub(super) fn plan(endpoints: Option<&Value>, existing: &[Arc<Value>]) -> Plan {
    let Some(endpoints) = endpoints.filter(|endpoints| is_wanted(endpoints)) else {
        return Plan { delete: existing.to_vec(), ..Plan::default() };
    };
    let mut wanted = vec![("IPv4", ByPorts::default()), ("IPv6", ByPorts::default())];
    for subset in list(endpoints, "/subsets") {
        let ports: Vec<Value> = list(subset, "/ports").iter().map(port).collect();
        let side = |field: &str, ready: bool| list(subset, field).iter().map(move |address| (address, ready));
        for (address, ready) in side("/addresses", true).chain(side("/notReadyAddresses", false)).take(MOST) {
            if let Ok(ip) = text(address, "/ip").parse::<IpAddr>() {
                wanted[usize::from(ip.is_ipv6())].1.add(ports.clone(), endpoint(address, ready));
            }
        }
    }
    let mut annotations = json!({});
    for (key, value) in endpoints["metadata"]["annotations"].as_object().into_iter().flatten() {
        if key != TRIGGER && key != APPLIED {
            annotations[key] = value.clone();
        }
    }
    let labels = endpoints["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let labels = slice_labels(endpoints, MANAGER, json!(labels));
    let annotations = Some(annotations);
    Source { kind: &ENDPOINTS, object: endpoints, labels, annotations, most: MOST, placeholder: false }
        .plan(wanted, existing)
}

fn port(port: &Value) -> Value {
    let mut own = port.clone();
    own["name"] = json!(text(port, "/name"));
    own
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            endpoint[field] = address[field].clone();
        }
    }
    endpoint
}
