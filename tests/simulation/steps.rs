//! How users and other controllers do what a case says. A request that is refused changes nothing.

use serde_json::{Value, json};

use crate::case::Step;
use crate::network::Network;
use crate::node::OWN;
use crate::run::object;

/// Services 0 to 2 are in `default`, the others in `team`.
fn namespace(service: u8) -> &'static str {
    if service < 3 { "default" } else { "team" }
}

fn service_path(service: u8) -> String {
    format!("/api/v1/namespaces/{}/services", namespace(service))
}

/// What there is before the first step.
pub(crate) async fn prepare(network: &Network) {
    let (status, answer) =
        network.user("POST", "/api/v1/namespaces", &object("Namespace", "v1", "team", &json!({}))).await;
    assert!(status.is_success(), "{answer}");
    put_node(network, OWN, 9).await;
}

/// Makes the object, or changes it if it is there.
async fn put(network: &Network, collection: &str, body: &Value) {
    let name = body["metadata"]["name"].as_str().unwrap();
    let (status, _) = network.user("PATCH", &format!("{collection}/{name}"), body).await;
    if status == http::StatusCode::NOT_FOUND {
        network.user("POST", collection, body).await;
    }
}

async fn put_node(network: &Network, name: &str, number: u8) {
    let cidr = format!("10.244.{number}.0/24");
    // Some have no podCIDR yet.
    let spec = if number == 4 { json!({}) } else { json!({"podCIDR": cidr, "podCIDRs": [cidr]}) };
    put(network, "/api/v1/nodes", &object("Node", "v1", name, &json!({"spec": spec}))).await;
    let addresses = json!([{"type": "InternalIP", "address": format!("172.18.0.{number}")}]);
    let body = json!({"status": {"addresses": addresses}});
    network.user("PATCH", &format!("/api/v1/nodes/{name}/status"), &body).await;
}

/// Does it.
pub(crate) async fn carry_out(network: &Network, step: &Step) {
    let pools = "/apis/cilium.io/v2/ciliumloadbalancerippools";
    match step {
        Step::PutPool(number, spec) => {
            let name = format!("p{number}");
            let body = object("CiliumLoadBalancerIPPool", "cilium.io/v2", &name, &json!({"spec": spec}));
            let (status, present) = network.user("GET", &format!("{pools}/{name}"), &Value::Null).await;
            if status.is_success() {
                let mut body = body;
                body["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"].clone();
                network.user("PUT", &format!("{pools}/{name}"), &body).await;
            } else {
                network.user("POST", pools, &body).await;
            }
        }
        Step::DeletePool(number) => {
            network.user("DELETE", &format!("{pools}/p{number}"), &Value::Null).await;
        }
        Step::PutService(number, body) => put_service(network, *number, body).await,
        Step::DeleteService(number) => {
            let path = format!("{}/s{number}", service_path(*number));
            network.user("DELETE", &path, &Value::Null).await;
        }
        Step::EmptyNamespace => {
            let (status, _) = network.user("DELETE", &service_path(4), &Value::Null).await;
            if status.is_success() {
                network.meet("namespace emptied");
            }
        }
        Step::Foreign(number, addresses) => {
            let list: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
            let ingress = if list.is_empty() { Value::Null } else { json!(list) };
            write_status(network, *number, &json!({"loadBalancer": {"ingress": ingress}})).await;
        }
        Step::Condition(number) => {
            let path = format!("{}/s{number}", service_path(*number));
            let (_, present) = network.user("GET", &path, &Value::Null).await;
            let mut all = present["status"]["conditions"].as_array().cloned().unwrap_or_default();
            all.retain(|one| one["type"] != "example.com/Other");
            all.push(json!({"type": "example.com/Other", "status": "True", "reason": "x", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}));
            write_status(network, *number, &json!({"conditions": all})).await;
        }
        Step::PutSlice(number, endpoints) => {
            let name = format!("e{number}");
            let body = object(
                "EndpointSlice",
                "discovery.k8s.io/v1",
                &name,
                &json!({
                    "metadata": {"labels": {"kubernetes.io/service-name": format!("s{number}")}},
                    "addressType": "IPv4", "endpoints": endpoints,
                    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                }),
            );
            put(network, &slice_path(*number), &body).await;
        }
        Step::DeleteSlice(number) => {
            network.user("DELETE", &format!("{}/e{number}", slice_path(*number)), &Value::Null).await;
        }
        Step::PutNode(number, address) => {
            let name = if *number == 0 { OWN.to_owned() } else { format!("n{number}") };
            put_node(network, &name, *address).await;
        }
        Step::DeleteNode(number) => {
            network.user("DELETE", &format!("/api/v1/nodes/n{number}"), &Value::Null).await;
        }
    }
}

fn slice_path(service: u8) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", namespace(service))
}

async fn put_service(network: &Network, number: u8, body: &Value) {
    let name = format!("s{number}");
    let (status, _) = network.user("GET", &format!("{}/{name}", service_path(number)), &Value::Null).await;
    let mut body = object("Service", "v1", &name, body);
    let kind = body["spec"]["type"].clone();
    body["spec"]["ports"] = json!([{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]);
    if !status.is_success() {
        network.user("POST", &service_path(number), &body).await;
        return;
    }
    // What the new form does not have, goes.
    body["spec"].as_object_mut().unwrap().remove("ports");
    for field in ["externalIPs", "loadBalancerIP", "loadBalancerClass"] {
        let spec = body["spec"].as_object_mut().unwrap();
        spec.entry(field).or_insert(Value::Null);
    }
    if kind != "LoadBalancer" {
        body["spec"]["allocateLoadBalancerNodePorts"] = Value::Null;
    }
    network.user("PATCH", &format!("{}/{name}", service_path(number)), &body).await;
}

async fn write_status(network: &Network, number: u8, status: &Value) {
    let path = format!("{}/s{number}/status", service_path(number));
    network.user("PATCH", &path, &json!({"status": status})).await;
}
