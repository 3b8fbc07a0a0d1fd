//! Claims of volumes: one that is deleted stays as long as a pod that has a place uses it, and a pod gets no place before
//! its claims are bound.

use serde_json::{Value, json};

use super::cache::{Cache, Change, Key};
use super::client::{Client, Refused};
use super::context::{Context, Controller, Tools};
use super::kind::{CLAIMS, PODS};
use super::object::{annotation, is_terminating, list, namespace, text};

/// The finalizer that the server gives to every claim.
const PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Annotation of a claim that has its volume.
const BOUND: &str = "pv.kubernetes.io/bind-completed";

pub(super) fn start(context: &mut Context) {
    context.run("pvc-protection", Protection(context.tools("pvc-protection-controller", "pvc-protection-controller")));
}

struct Protection(Tools<Key>);

impl Controller for Protection {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.0
    }

    fn note(&self, change: &Change) {
        let queue = &self.0.queue;
        if change.is(&CLAIMS) {
            queue.extend(change.after.iter().filter(|claim| is_terminating(claim)).map(|claim| Key::of(claim)));
        } else if change.is(&PODS) && change.after.is_none() {
            let pod = change.object();
            queue.extend(used_by(pod).map(|name| Key::new(namespace(pod), name)));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let_go(&self.0.client, &self.0.cache, &key).await
    }
}

/// Names of the claims that a pod uses.
pub(super) fn used_by(pod: &Value) -> impl Iterator<Item = &str> {
    let names = list(pod, "/spec/volumes").iter().map(|volume| text(volume, "/persistentVolumeClaim/claimName"));
    names.filter(|name| !name.is_empty())
}

/// Why a pod cannot be placed because of its claims, in the scheduler's words. Nothing here binds a claim to a volume.
pub(super) fn missing(cache: &Cache, pod: &Value) -> Option<String> {
    used_by(pod).find_map(|name| match cache.get(&CLAIMS, namespace(pod), name) {
        None => Some(format!("persistentvolumeclaim {name:?} not found")),
        Some(claim) if is_terminating(&claim) => Some(format!("persistentvolumeclaim {name:?} is being deleted")),
        Some(claim) if annotation(&claim, BOUND).is_none() || text(&claim, "/spec/volumeName").is_empty() => {
            Some("pod has unbound immediate PersistentVolumeClaims".into())
        }
        Some(_) => None,
    })
}

async fn let_go(client: &Client, cache: &Cache, key: &Key) -> Result<(), Refused> {
    let Some(claim) = cache.get(&CLAIMS, &key.namespace, &key.name).filter(|claim| is_terminating(claim)) else {
        return Ok(());
    };
    let uses =
        |pod: &Value| !text(pod, "/spec/nodeName").is_empty() && used_by(pod).any(|name| name == key.name.as_str());
    let finalizers = list(&claim, "/metadata/finalizers");
    let rest: Vec<&Value> = finalizers.iter().filter(|finalizer| **finalizer != PROTECTION).collect();
    if rest.len() == finalizers.len() || cache.list(&PODS, &key.namespace).iter().any(|pod| uses(pod)) {
        return Ok(());
    }
    let mut free = Value::clone(&claim);
    free["metadata"]["finalizers"] = json!(rest);
    match client.update(&CLAIMS, "", &free).await {
        Err(refused) if !refused.is_not_found() => Err(refused),
        _ => Ok(()),
    }
}
