//! What the objects of the API server mean, read here once more from their JSON: the product's own reading is under test.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use portolan_core::ipam::{Block, Family, Pool, PoolSpec, Requirement, Selector, ServiceInput, World};
use portolan_core::service::{Endpoint, Port, Protocol, Service, ServiceName, Slice};
use serde_json::Value;

/// Objects of one kind by namespace and name.
pub(crate) type Objects = BTreeMap<(String, String), Arc<Value>>;

pub(crate) const SATISFIED: &str = "cilium.io/IPAMRequestSatisfied";

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn seconds(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.parse::<Timestamp>().ok()).map_or(0, |time| time.as_second())
}

/// A pool as `core` takes it.
pub(crate) fn pool(object: &Value) -> Pool {
    let spec = &object["spec"];
    let blocks = |name: &str| -> Vec<Block> {
        list(&spec[name])
            .iter()
            .map(|block| Block { cidr: text(&block["cidr"]), start: text(&block["start"]), stop: text(&block["stop"]) })
            .collect()
    };
    let mut requirements = Vec::new();
    for (key, value) in spec["serviceSelector"]["matchLabels"].as_object().into_iter().flatten() {
        requirements.push(Requirement::from_api(key, "In", vec![text(value).unwrap_or_default()]));
    }
    for one in list(&spec["serviceSelector"]["matchExpressions"]) {
        let values = list(&one["values"]).iter().filter_map(text).collect();
        let (key, operator) = (text(&one["key"]).unwrap_or_default(), text(&one["operator"]).unwrap_or_default());
        requirements.push(Requirement::from_api(&key, &operator, values));
    }
    Pool::new(&PoolSpec {
        blocks: blocks("blocks"),
        cidrs: blocks("cidrs"),
        allow_first_last: text(&spec["allowFirstLastIPs"]).map(|word| word == "Yes"),
        allow_first_last_unknown: None,
        selector: requirements.into_iter().collect::<Result<_, _>>().map(Selector),
        disabled: spec["disabled"] == true,
        created: seconds(&object["metadata"]["creationTimestamp"]),
    })
}

/// Whether the Service is for LB IPAM.
pub(crate) fn is_ours(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["loadBalancerClass"].is_null()
}

/// Addresses in the status.
pub(crate) fn ingress(service: &Value) -> Vec<IpAddr> {
    let entries = list(&service["status"]["loadBalancer"]["ingress"]);
    entries.iter().filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect()
}

/// Our condition.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Vec<&'a Value> {
    list(&object["status"]["conditions"]).iter().filter(|condition| condition["type"] == kind).collect()
}

/// Addresses asked for, and words that are none.
fn requests(service: &Value) -> (Vec<IpAddr>, Vec<String>) {
    let annotation = text(&service["metadata"]["annotations"]["lbipam.cilium.io/ips"]);
    let field = text(&service["spec"]["loadBalancerIP"]);
    let words =
        field.into_iter().chain(annotation.iter().flat_map(|all| all.split(',')).map(|one| one.trim().to_owned()));
    let (mut addresses, mut others) = (Vec::new(), Vec::new());
    for word in words {
        match word.parse() {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(_) => others.push(word),
        }
    }
    (addresses, others)
}

/// Who wrote the addresses, and when.
fn writers(service: &Value) -> Vec<(String, i64)> {
    let entries = list(&service["metadata"]["managedFields"]).iter();
    let of_ingress = entries.filter(|entry| !entry["fieldsV1"]["f:status"]["f:loadBalancer"]["f:ingress"].is_null());
    of_ingress.map(|entry| (text(&entry["manager"]).unwrap_or_default(), seconds(&entry["time"]))).collect()
}

/// A Service as `core` takes it.
pub(crate) fn service_input(name: &ServiceName, service: &Value) -> ServiceInput {
    let labels = service["metadata"]["labels"].as_object().into_iter().flatten();
    let mut labels: BTreeMap<String, String> =
        labels.map(|(key, value)| (key.clone(), text(value).unwrap_or_default())).collect();
    labels.insert("io.kubernetes.service.namespace".into(), name.namespace.clone());
    labels.insert("io.kubernetes.service.name".into(), name.name.clone());
    let (requested, unreadable) = requests(service);
    let writers = writers(service);
    let created = seconds(&service["metadata"]["creationTimestamp"]);
    ServiceInput {
        labels,
        ingress: ingress(service),
        families: BTreeSet::from([Family::V4]),
        requested,
        unreadable,
        created,
        held_since: writers.iter().map(|(_, at)| *at).min().unwrap_or(created),
        known: writers.iter().any(|(manager, _)| manager == "portolan-operator"),
        marked: !condition(service, SATISFIED).is_empty(),
    }
}

pub(crate) fn service_name(key: &(String, String)) -> ServiceName {
    ServiceName { namespace: key.0.clone(), name: key.1.clone() }
}

/// The world that `core` plans over.
pub(crate) fn world<'a>(pools: impl Iterator<Item = (&'a String, &'a Arc<Value>)>, services: &Objects) -> World {
    let ours = services.iter().filter(|(_, service)| is_ours(service));
    World {
        pools: pools.map(|(name, object)| (name.clone(), pool(object))).collect(),
        services: ours.map(|(key, service)| (service_name(key), service_input(&service_name(key), service))).collect(),
    }
}

/// A Service as the datapath takes it; nothing if it has no frontends.
pub(crate) fn frontends(service: &Value) -> Option<Service> {
    let spec = &service["spec"];
    if spec["clusterIP"] == "None" || spec["type"] == "ExternalName" {
        return None;
    }
    let addresses = |value: &Value| list(value).iter().filter_map(|one| one.as_str()?.parse().ok()).collect();
    let ports = list(&spec["ports"]).iter().map(|port| Port {
        name: text(&port["name"]).unwrap_or_default(),
        protocol: if port["protocol"] == "UDP" { Protocol::Udp } else { Protocol::Tcp },
        port: port["port"].as_u64().unwrap_or(0) as u16,
        node_port: port["nodePort"].as_u64().map(|port| port as u16),
    });
    let ingress_ips = if spec["type"] == "LoadBalancer" { ingress(service) } else { Vec::new() };
    Some(Service {
        cluster_ips: addresses(&spec["clusterIPs"]),
        external_ips: addresses(&spec["externalIPs"]),
        ingress_ips,
        ports: ports.collect(),
    })
}

/// A slice as the datapath takes it.
pub(crate) fn slice(namespace: &str, object: &Value) -> Option<Slice> {
    let name = text(&object["metadata"]["labels"]["kubernetes.io/service-name"])?;
    let ports = list(&object["ports"]).iter();
    let endpoints = list(&object["endpoints"]).iter().filter_map(|endpoint| {
        let state = &endpoint["conditions"];
        let ready = state["ready"].as_bool().unwrap_or(true);
        Some(Endpoint {
            address: list(&endpoint["addresses"]).first()?.as_str()?.parse().ok()?,
            ready,
            serving: state["serving"].as_bool().unwrap_or(ready),
            terminating: state["terminating"].as_bool().unwrap_or(false),
        })
    });
    Some(Slice {
        service: ServiceName { namespace: namespace.to_owned(), name },
        ports: ports
            .map(|port| {
                (text(&port["name"]).unwrap_or_default(), Protocol::Tcp, port["port"].as_u64().unwrap_or(0) as u16)
            })
            .collect(),
        endpoints: endpoints.collect(),
    })
}
