//! Deletes pods from nodes with taints that they do not tolerate, at once or when their patience is over.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock::{Clock, seconds};
use crate::controllers::Context;
use crate::controllers::cache::{Cache, Change, Key};
use crate::controllers::client::{Client, DeleteOptions, PatchType, Refused};
use crate::controllers::events::Recorder;
use crate::controllers::kind::{NODES, PODS};
use crate::controllers::object::{generation, is_terminating, list, name, namespace, text, uid};
use crate::controllers::queue::Queue;
use crate::controllers::scheduler::fit::covers;

pub(super) fn start(context: &mut Context) {
    let queue = Queue::new();
    context.subscribe(&queue, note);
    let client = context.client("node-controller");
    let controller = Arc::new(Controller {
        recorder: context.recorder("taint-eviction-controller", &client),
        client,
        cache: Arc::clone(&context.cache),
        clock: Arc::clone(&context.clock),
        queue: Arc::clone(&queue),
    });
    context.work("taint-eviction", &queue, move |key: Key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

fn note(cache: &Cache, queue: &Queue<Key>, change: &Change) {
    if change.is(&PODS) {
        let view = |pod: &Arc<Value>| json!([pod["spec"]["nodeName"], pod["spec"]["tolerations"]]);
        if change.before.as_ref().map(view) != change.after.as_ref().map(view) {
            queue.add(Key::of(change.object()));
        }
    } else if change.is(&NODES) {
        let view = |node: &Arc<Value>| node["spec"]["taints"].clone();
        if change.before.as_ref().map(view) != change.after.as_ref().map(view) {
            cache.pods_on(name(change.object())).iter().for_each(|pod| queue.add(Key::of(pod)));
        }
    }
}

struct Controller {
    client: Client,
    recorder: Recorder,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    queue: Arc<Queue<Key>>,
}

/// How long a pod stays on its node.
#[derive(Debug, PartialEq)]
enum Stay {
    Always,
    Until(Timestamp),
    Gone,
}

/// What the taints of a node mean for a pod: the shortest of the tolerations that cover them counts, from the moment at
/// which the first of the taints came.
fn stay(pod: &Value, node: &Value) -> Stay {
    let taints: Vec<&Value> = list(node, "/spec/taints").iter().filter(|t| t["effect"] == "NoExecute").collect();
    let tolerations = list(pod, "/spec/tolerations");
    let mut shortest: Option<i64> = None;
    for taint in &taints {
        let mut covering = tolerations.iter().filter(|toleration| covers(toleration, taint)).peekable();
        if covering.peek().is_none() {
            return Stay::Gone;
        }
        let limits = covering.filter_map(|toleration| toleration["tolerationSeconds"].as_i64());
        shortest = limits.map(|limit| limit.max(0)).chain(shortest).min();
    }
    let Some(limit) = shortest else { return Stay::Always };
    let added = taints.iter().filter_map(|taint| text(taint, "/timeAdded").parse::<Timestamp>().ok()).min();
    match added.and_then(|added| added.checked_add(jiff::SignedDuration::from_secs(limit)).ok()) {
        Some(end) if limit > 0 => Stay::Until(end),
        _ => Stay::Gone,
    }
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<(), Refused> {
        self.queue.cancel(key);
        let Some(pod) = self.cache.get(&PODS, &key.namespace, &key.name).filter(|pod| !is_terminating(pod)) else {
            return Ok(());
        };
        let Some(node) = self.cache.get(&NODES, "", text(&pod, "/spec/nodeName")) else { return Ok(()) };
        match stay(&pod, &node) {
            Stay::Always => Ok(()),
            Stay::Gone => self.evict(&pod).await,
            Stay::Until(end) => match Duration::try_from(end.duration_since(self.clock.now())) {
                Ok(left) if !left.is_zero() => {
                    self.queue.add_after(key.clone(), left);
                    Ok(())
                }
                _ => self.evict(&pod).await,
            },
        }
    }

    async fn evict(&self, pod: &Value) -> Result<(), Refused> {
        let message = format!("Marking for deletion Pod {}/{}", namespace(pod), name(pod));
        let about =
            json!({"kind": "Pod", "apiVersion": "v1", "name": name(pod), "namespace": namespace(pod), "uid": uid(pod)});
        self.recorder.about(about, "Normal", "TaintManagerEviction", "", message);
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": seconds(self.clock.now()), "observedGeneration": generation(pod),
        });
        let patch = json!({"status": {"conditions": [condition]}});
        match self.client.patch(&PODS, pod, "status", PatchType::Strategic, &patch).await {
            Err(refused) if refused.is_not_found() => return Ok(()),
            other => other.map(drop)?,
        }
        let options = DeleteOptions { uid: uid(pod).to_owned(), ..DeleteOptions::default() };
        self.client.delete(&PODS, pod, &options).await
    }
}
