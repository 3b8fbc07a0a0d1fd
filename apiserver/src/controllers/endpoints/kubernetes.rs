//! The endpoints of the service `kubernetes`: where this server is. A real server writes them itself.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::auth::User;
use crate::controllers::Context;
use crate::controllers::cache::Cache;
use crate::controllers::client::{Client, Refused};
use crate::controllers::kind::{ENDPOINT_SLICES, ENDPOINTS, Kind};
use crate::controllers::object::{name, namespace};
use crate::controllers::queue::Queue;

const NAME: &str = "kubernetes";
const SPACE: &str = "default";

pub(super) fn start(context: &mut Context) {
    let Some(address) = context.options.api_endpoint else { return };
    let queue = Queue::new();
    queue.add(());
    context.subscribe(&queue, |_, queue, change| {
        let object = change.object();
        let ours = change.is(&ENDPOINTS) || change.is(&ENDPOINT_SLICES);
        if ours && name(object) == NAME && namespace(object) == SPACE {
            queue.add(());
        }
    });
    let cache = Arc::clone(&context.cache);
    let client = context.client_of("kube-apiserver", User::admin());
    context.work("kubernetes-service", &queue, move |()| {
        let (client, cache) = (client.clone(), Arc::clone(&cache));
        async move {
            keep(&client, &cache, &ENDPOINTS, &endpoints(address), "subsets").await?;
            keep(&client, &cache, &ENDPOINT_SLICES, &slice(address), "endpoints").await
        }
    });
}

fn endpoints(address: SocketAddr) -> Value {
    let port = json!({"name": "https", "port": address.port(), "protocol": "TCP"});
    json!({
        "kind": "Endpoints", "apiVersion": "v1",
        "metadata": {"name": NAME, "namespace": SPACE,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address.ip()}], "ports": [port]}],
    })
}

fn slice(address: SocketAddr) -> Value {
    let port = json!({"name": "https", "port": address.port(), "protocol": "TCP"});
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": NAME, "namespace": SPACE, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
        "ports": [port],
    })
}

async fn keep(client: &Client, cache: &Cache, kind: &Kind, wanted: &Value, part: &str) -> Result<(), Refused> {
    match cache.get(kind, SPACE, NAME) {
        None => client.create(kind, wanted).await.map(drop),
        Some(held) if held[part] == wanted[part] && (part == "subsets" || held["ports"] == wanted["ports"]) => Ok(()),
        Some(held) => {
            let mut object = Value::clone(&held);
            object[part] = wanted[part].clone();
            if part == "endpoints" {
                object["ports"] = wanted["ports"].clone();
            }
            client.update(kind, "", &object).await.map(drop)
        }
    }
}
