//! Volumes and claims that are to go: they are let go when nothing uses them.

use std::sync::Arc;

use serde_json::Value;

use super::Context;
use super::cache::{Cache, Change, Key};
use super::client::{Client, Refused};
use super::kind::{Kind, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS};
use super::object::{is_terminating, name, namespace, text};
use super::queue::Queue;

const CLAIM_IN_USE: &str = "kubernetes.io/pvc-protection";
const VOLUME_IN_USE: &str = "kubernetes.io/pv-protection";

pub(super) fn start(context: &mut Context) {
    release(context, "pvc-protection", PERSISTENT_VOLUME_CLAIMS, CLAIM_IN_USE, |cache, claim| {
        cache.list(&PODS, namespace(claim)).iter().any(|pod| uses(pod, name(claim)))
    });
    release(context, "pv-protection", PERSISTENT_VOLUMES, VOLUME_IN_USE, |_, volume| {
        text(volume, "/status/phase") == "Bound"
    });
}

/// Takes a finalizer from what is to go and is not used.
fn release(
    context: &mut Context,
    controller: &'static str,
    kind: Kind,
    finalizer: &'static str,
    is_used: fn(&Cache, &Value) -> bool,
) {
    let queue = Queue::new();
    let own = kind.clone();
    context.subscribe(&queue, move |_, queue, change| note(queue, change, &own));
    let (client, cache) = (context.client(&format!("{controller}-controller")), Arc::clone(&context.cache));
    context.work(controller, &queue, move |key: Key| {
        let (client, cache, kind) = (client.clone(), Arc::clone(&cache), kind.clone());
        async move { reconcile(&client, &cache, &kind, &key, finalizer, is_used).await }
    });
}

fn note(queue: &Queue<Key>, change: &Change, kind: &Kind) {
    let object = change.object();
    if change.is(kind) && change.after.is_some() && is_terminating(object) {
        queue.add(Key::of(object));
    } else if change.is(&PODS) && *kind == PERSISTENT_VOLUME_CLAIMS && change.after.is_none() {
        claims(object).for_each(|claim| queue.add(Key::new(namespace(object), claim)));
    }
}

/// The claims that a pod names.
pub(super) fn claims(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

/// A pod that no kubelet has seen uses nothing yet, and will not get a claim that is to go.
fn uses(pod: &Value, claim: &str) -> bool {
    !text(pod, "/spec/nodeName").is_empty() && claims(pod).any(|name| name == claim)
}

async fn reconcile(
    client: &Client,
    cache: &Cache,
    kind: &Kind,
    key: &Key,
    finalizer: &str,
    is_used: fn(&Cache, &Value) -> bool,
) -> Result<(), Refused> {
    let Some(found) = cache.get(kind, &key.namespace, &key.name).filter(|found| is_terminating(found)) else {
        return Ok(());
    };
    let mut object = Value::clone(&found);
    let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() else { return Ok(()) };
    let before = finalizers.len();
    finalizers.retain(|name| name != finalizer);
    if finalizers.len() == before || is_used(cache, &found) {
        return Ok(());
    }
    match client.update(kind, "", &object).await {
        Err(refused) if refused.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
