//! The endpoints of the service `kubernetes`: where this server is. A real server writes them itself.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::auth::User;
use crate::controllers::cache::Change;
use crate::controllers::client::Refused;
use crate::controllers::context::{Context, Controller, Tools};
use crate::controllers::kind::{ENDPOINT_SLICES, ENDPOINTS, Kind};
use crate::controllers::object::{name, namespace};
use crate::controllers::selection;

const NAME: &str = "kubernetes";
const SPACE: &str = "default";

pub(super) fn start(context: &mut Context) {
    let Some(address) = context.options.advertise_address else { return };
    let tools = context.tools_of(context.client_of("kube-apiserver", User::admin()), "kube-apiserver");
    tools.queue.add(());
    context.run(selection::Controller::KubernetesService, Own { tools, address });
}

struct Own {
    tools: Tools<()>,
    address: SocketAddr,
}

impl Controller for Own {
    type Key = ();

    fn tools(&self) -> &Tools<()> {
        &self.tools
    }

    fn note(&self, change: &Change) {
        let object = change.object();
        let ours = change.is(&ENDPOINTS) || change.is(&ENDPOINT_SLICES);
        if ours && name(object) == NAME && namespace(object) == SPACE {
            self.tools.queue.add(());
        }
    }

    async fn reconcile(&self, (): ()) -> Result<(), Refused> {
        keep(&self.tools, &ENDPOINTS, &endpoints(self.address), "subsets").await?;
        keep(&self.tools, &ENDPOINT_SLICES, &slice(self.address), "endpoints").await
    }
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

async fn keep(tools: &Tools<()>, kind: &Kind, wanted: &Value, part: &str) -> Result<(), Refused> {
    let Tools { client, cache, .. } = tools;
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
