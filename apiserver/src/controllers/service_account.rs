//! In every namespace: the service account `default`, and the authority that the server's certificate is checked with.

use serde_json::{Value, json};

use super::cache::Change;
use super::client::Refused;
use super::context::{Context, Controller, Tools};
use super::kind::{CONFIG_MAPS, Kind, NAMESPACES, SERVICE_ACCOUNTS};
use super::object::{is_terminating, name, namespace, set_entry, text};
use super::selection;

const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_ABOUT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

pub(super) fn start(context: &mut Context) {
    let tools = context.tools("service-account-controller", "serviceaccount-controller");
    context.run(selection::Controller::ServiceAccount, Kept { tools, kind: SERVICE_ACCOUNTS, wanted: account });
    if let Some(authority) = context.options.root_ca.clone() {
        let tools = context.tools("root-ca-cert-publisher", "root-ca-cert-publisher");
        let wanted = move |namespace: &str| root_ca(namespace, &authority);
        context.run(selection::Controller::RootCaCertificatePublisher, Kept { tools, kind: CONFIG_MAPS, wanted });
    }
}

fn account(namespace: &str) -> Value {
    json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default", "namespace": namespace}})
}

fn root_ca(namespace: &str, authority: &str) -> Value {
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": ROOT_CA, "namespace": namespace,
            "annotations": {"kubernetes.io/description": ROOT_CA_ABOUT}},
        "data": {"ca.crt": authority},
    })
}

/// An object that every active namespace has.
struct Kept<F> {
    tools: Tools<String>,
    kind: Kind,
    wanted: F,
}

impl<F: Fn(&str) -> Value + Send + Sync + 'static> Controller for Kept<F> {
    type Key = String;

    fn tools(&self) -> &Tools<String> {
        &self.tools
    }

    fn note(&self, change: &Change) {
        let (queue, object) = (&self.tools.queue, change.object());
        if change.is(&NAMESPACES) && change.after.is_some() {
            queue.add(name(object).to_owned());
        } else if change.is(&self.kind) && name(object) == name(&(self.wanted)("")) {
            queue.add(namespace(object).to_owned());
        }
    }

    async fn reconcile(&self, space: String) -> Result<(), Refused> {
        let (Tools { client, cache, .. }, kind, wanted) = (&self.tools, &self.kind, &(self.wanted)(&space));
        let active = cache
            .get(&NAMESPACES, "", namespace(wanted))
            .is_some_and(|namespace| text(&namespace, "/status/phase") == "Active" && !is_terminating(&namespace));
        if !active {
            return Ok(());
        }
        let done = match cache.get(kind, namespace(wanted), name(wanted)) {
            None => client.create(kind, wanted).await.map(drop),
            Some(held) if wanted.get("data").is_some_and(|data| *data != held["data"]) => {
                let mut object = Value::clone(&held);
                object["data"] = wanted["data"].clone();
                for (key, value) in wanted["metadata"]["annotations"].as_object().into_iter().flatten() {
                    set_entry(&mut object, "annotations", key, value.as_str().unwrap_or_default());
                }
                client.update(kind, "", &object).await.map(drop)
            }
            Some(_) => Ok(()),
        };
        match done {
            Err(refused) if refused.is_namespace_terminating() || refused.is_already_exists() => Ok(()),
            other => other,
        }
    }
}
