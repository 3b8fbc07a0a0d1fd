//! Volumes and claims that are to go: they are let go when nothing uses them.

use serde_json::Value;

use super::cache::{Cache, Change, Key};
use super::client::Refused;
use super::context::{Context, Controller, Tools};
use super::kind::{Kind, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS};
use super::object::{is_terminating, name, namespace, text};
use super::selection;

pub(super) fn start(context: &mut Context) {
    let claim_in_use =
        |cache: &Cache, claim: &Value| cache.list(&PODS, namespace(claim)).iter().any(|pod| uses(pod, name(claim)));
    let (claims, volumes) = ("pvc-protection", "pv-protection");
    let protection = Protection {
        tools: context.tools("pvc-protection-controller", claims),
        kind: PERSISTENT_VOLUME_CLAIMS,
        finalizer: "kubernetes.io/pvc-protection",
        is_used: claim_in_use,
    };
    context.run(selection::Controller::PersistentVolumeClaimProtection, protection);
    let protection = Protection {
        tools: context.tools("pv-protection-controller", volumes),
        kind: PERSISTENT_VOLUMES,
        finalizer: "kubernetes.io/pv-protection",
        is_used: |_, volume| text(volume, "/status/phase") == "Bound",
    };
    context.run(selection::Controller::PersistentVolumeProtection, protection);
}

/// Takes a finalizer from what is to go and is not used.
struct Protection {
    tools: Tools<Key>,
    kind: Kind,
    finalizer: &'static str,
    is_used: fn(&Cache, &Value) -> bool,
}

impl Controller for Protection {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.tools
    }

    fn note(&self, change: &Change) {
        let (object, queue) = (change.object(), &self.tools.queue);
        if change.is(&self.kind) && change.after.is_some() && is_terminating(object) {
            queue.add(Key::of(object));
        } else if change.is(&PODS) && self.kind == PERSISTENT_VOLUME_CLAIMS && change.after.is_none() {
            claims(object).for_each(|claim| queue.add(Key::new(namespace(object), claim)));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let Tools { client, cache, .. } = &self.tools;
        let found = cache.get(&self.kind, &key.namespace, &key.name);
        let Some(found) = found.filter(|found| is_terminating(found)) else { return Ok(()) };
        let mut object = Value::clone(&found);
        let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() else { return Ok(()) };
        let before = finalizers.len();
        finalizers.retain(|name| name != self.finalizer);
        if finalizers.len() == before || (self.is_used)(cache, &found) {
            return Ok(());
        }
        match client.update(&self.kind, "", &object).await {
            Err(refused) if refused.is_not_found() => Ok(()),
            other => other.map(drop),
        }
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
