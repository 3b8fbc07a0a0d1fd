//! The Endpoints object of a service: what older clients read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{copied_labels, is_headless, is_terminating, list, name, namespace, pod, text};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses of one object.
const MOST: usize = 1000;

/// The object as it should be; nothing if the one that is held is that already.
pub(super) fn wanted(service: &Value, pods: &[Arc<Value>], held: Option<&Value>) -> Option<Value> {
    let (subsets, truncated) = subsets(service, pods);
    let mut labels = copied_labels(service, &[MANAGED_BY]);
    labels[MANAGED_BY] = json!(MANAGER);
    let mut object = match held {
        Some(held) => held.clone(),
        None => json!({"kind": "Endpoints", "apiVersion": "v1",
            "metadata": {"name": name(service), "namespace": namespace(service)}}),
    };
    object["metadata"]["labels"] = labels;
    if truncated {
        super::set_entry(&mut object, "annotations", OVER_CAPACITY, "truncated");
    } else if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(OVER_CAPACITY);
    }
    let same_subsets = held.is_some_and(|held| list(held, "/subsets") == subsets);
    let same_rest = held.is_some_and(|held| held["metadata"] == object["metadata"]);
    if same_subsets && same_rest {
        return None;
    }
    object["subsets"] = json!(subsets);
    Some(object)
}

/// An address with its place in the order, and whether it is ready.
type Address = (IpAddr, String, bool);

/// Addresses that share all their ports stand together.
fn subsets(service: &Value, pods: &[Arc<Value>]) -> (Vec<Value>, bool) {
    let publish = service["spec"]["publishNotReadyAddresses"] == true;
    let family = service["spec"]["ipFamilies"][0].as_str().unwrap_or("IPv4");
    let mut by_port: BTreeMap<Option<String>, BTreeSet<Address>> = BTreeMap::new();
    let mut seen = 0;
    for pod in pods.iter().filter(|pod| pod::may_serve(pod, publish)) {
        let Some(ip) = pod::address(pod, family).and_then(|ip| ip.parse().ok()) else { continue };
        let ready = publish || pod::is_ready(pod);
        if !ready && (!may_come_back(pod) || is_terminating(pod)) {
            continue;
        }
        seen += 1;
        if seen > MOST {
            break;
        }
        let address = (ip, address(service, pod, ip).to_string(), ready);
        if list(service, "/spec/ports").is_empty() && is_headless(service) {
            by_port.entry(None).or_default().insert(address.clone());
        }
        for port in pod::ports(service, pod) {
            by_port.entry(Some(shown(port).to_string())).or_default().insert(address.clone());
        }
    }
    let mut by_addresses: BTreeMap<BTreeSet<Address>, Vec<Value>> = BTreeMap::new();
    for (port, addresses) in by_port {
        let port = port.and_then(|text| serde_json::from_str(&text).ok());
        by_addresses.entry(addresses).or_default().extend(port);
    }
    (by_addresses.into_iter().map(|(addresses, ports)| subset(&addresses, ports)).collect(), seen > MOST)
}

/// An empty name is left out here, other than in slices.
fn shown(mut port: Value) -> Value {
    if port["name"] == ""
        && let Some(port) = port.as_object_mut()
    {
        port.remove("name");
    }
    port
}

fn subset(addresses: &BTreeSet<Address>, ports: Vec<Value>) -> Value {
    let side = |wanted: bool| -> Vec<Value> {
        let own = addresses.iter().filter(|(_, _, ready)| *ready == wanted);
        own.filter_map(|(_, text, _)| serde_json::from_str(text).ok()).collect()
    };
    let mut subset = json!({});
    for (field, list) in [("addresses", side(true)), ("notReadyAddresses", side(false)), ("ports", ports)] {
        if !list.is_empty() {
            subset[field] = json!(list);
        }
    }
    subset
}

/// A pod that will not be started again is not shown as not ready.
fn may_come_back(pod: &Value) -> bool {
    match text(pod, "/spec/restartPolicy") {
        "Never" => !matches!(text(pod, "/status/phase"), "Failed" | "Succeeded"),
        "OnFailure" => text(pod, "/status/phase") != "Succeeded",
        _ => true,
    }
}

fn address(service: &Value, pod: &Value, ip: IpAddr) -> Value {
    let mut address = json!({"ip": ip, "targetRef": pod::reference(pod)});
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        address["nodeName"] = json!(node);
    }
    if let Some(hostname) = pod::hostname(service, pod) {
        address["hostname"] = json!(hostname);
    }
    address
}
