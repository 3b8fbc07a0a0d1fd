//! In every namespace: the service account `default`, and the authority that the server's certificate is checked with.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Context;
use super::cache::{Cache, Change};
use super::client::{Client, Refused};
use super::kind::{CONFIG_MAPS, Kind, NAMESPACES, SERVICE_ACCOUNTS};
use super::object::{is_terminating, name, namespace, set_entry, text};
use super::queue::Queue;

const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_ABOUT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

pub(super) fn start(context: &mut Context) {
    keep(context, "serviceaccount", "service-account-controller", SERVICE_ACCOUNTS, account);
    if let Some(authority) = context.options.root_ca.clone() {
        keep(context, "root-ca", "root-ca-cert-publisher", CONFIG_MAPS, move |namespace| {
            root_ca(namespace, &authority)
        });
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

/// Keeps one object in every active namespace.
fn keep(
    context: &mut Context,
    controller: &'static str,
    user: &str,
    kind: Kind,
    wanted: impl Fn(&str) -> Value + Send + Sync + 'static,
) {
    let queue = Queue::new();
    let (own_kind, own_name) = (kind.clone(), name(&wanted("")).to_owned());
    context.subscribe(&queue, move |_, queue, change| note(queue, change, &own_kind, &own_name));
    let (client, cache, wanted) = (context.client(user), Arc::clone(&context.cache), Arc::new(wanted));
    context.work(controller, &queue, move |namespace: String| {
        let (client, cache, kind, wanted) = (client.clone(), Arc::clone(&cache), kind.clone(), Arc::clone(&wanted));
        async move { reconcile(&client, &cache, &kind, &wanted(&namespace)).await }
    });
}

fn note(queue: &Queue<String>, change: &Change, kind: &Kind, own: &str) {
    let object = change.object();
    if change.is(&NAMESPACES) && change.after.is_some() {
        queue.add(name(object).to_owned());
    } else if change.is(kind) && name(object) == own {
        queue.add(namespace(object).to_owned());
    }
}

async fn reconcile(client: &Client, cache: &Cache, kind: &Kind, wanted: &Value) -> Result<(), Refused> {
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
