//! A pod as an endpoint.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{condition_status, is_terminating, list, name, namespace, text, uid};
use crate::controllers::pods::is_finished;

/// Everything about a pod that endpoints depend on.
pub(super) fn view_of(pod: Option<&Value>) -> Value {
    let Some(pod) = pod else { return Value::Null };
    json!([
        pod["metadata"]["labels"],
        is_terminating(pod),
        uid(pod),
        pod["spec"]["nodeName"],
        pod["spec"]["hostname"],
        pod["spec"]["subdomain"],
        pod["status"]["phase"],
        pod["status"]["podIP"],
        pod["status"]["podIPs"],
        condition_status(pod, "Ready"),
    ])
}

/// The pod's address of a family (`IPv4`, `IPv6`).
pub(super) fn address<'a>(pod: &'a Value, family: &str) -> Option<&'a str> {
    let all = list(pod, "/status/podIPs").iter().map(|address| text(address, "/ip"));
    all.chain([text(pod, "/status/podIP")])
        .find(|address| address.parse().is_ok_and(|address: IpAddr| address.is_ipv4() == (family == "IPv4")))
}

/// Whether the pod has an address and has not ended; one that is ending counts if `ending` says so.
pub(super) fn may_serve(pod: &Value, ending: bool) -> bool {
    !is_finished(pod) && !text(pod, "/status/podIP").is_empty() && (ending || !is_terminating(pod))
}

pub(super) fn is_ready(pod: &Value) -> bool {
    condition_status(pod, "Ready") == "True"
}

/// The ports of the service on this pod; a name that the pod does not have is left out.
pub(super) fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let ports = list(service, "/spec/ports").iter();
    let resolved = ports.filter_map(|port| Some((port, target(port, pod)?)));
    resolved
        .map(|(port, number)| {
            let mut own = json!({"name": text(port, "/name"), "port": number,
                "protocol": port["protocol"].as_str().unwrap_or("TCP")});
            if let Some(application) = port["appProtocol"].as_str() {
                own["appProtocol"] = json!(application);
            }
            own
        })
        .collect()
}

fn target(port: &Value, pod: &Value) -> Option<i64> {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    match &port["targetPort"] {
        Value::String(wanted) => {
            let sidecars = list(pod, "/spec/initContainers").iter().filter(|c| c["restartPolicy"] == "Always");
            let containers = list(pod, "/spec/containers").iter().chain(sidecars);
            let mut all = containers.flat_map(|container| list(container, "/ports"));
            let found =
                all.find(|own| own["name"] == wanted.as_str() && own["protocol"].as_str().unwrap_or("TCP") == protocol);
            found?["containerPort"].as_i64()
        }
        other => other.as_i64().filter(|number| *number > 0).or_else(|| port["port"].as_i64()),
    }
}

/// A reference to the pod.
pub(super) fn reference(pod: &Value) -> Value {
    json!({"kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod)})
}

/// The name by which the service knows the pod, if the pod asks for one.
pub(super) fn hostname<'a>(service: &Value, pod: &'a Value) -> Option<&'a str> {
    let hostname = pod["spec"]["hostname"].as_str().filter(|hostname| !hostname.is_empty())?;
    (text(pod, "/spec/subdomain") == name(service)).then_some(hostname)
}
