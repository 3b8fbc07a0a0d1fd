//! Deletes pods from nodes with taints that they do not tolerate, at once or when their patience is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::controllers::Context;
use crate::controllers::cache::{Cache, Change, Key};
use crate::controllers::client::{Client, Refused};
use crate::controllers::events::Recorder;
use crate::controllers::kind::{NODES, PODS};
use crate::controllers::object::{is_terminating, list, name, namespace, text, uid};
use crate::controllers::pods::{disruption, end};
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
        planned: Mutex::default(),
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
    /// When pods with patience have to go, by uid.
    planned: Mutex<HashMap<String, Instant>>,
}

/// How long a pod stays on its node.
#[derive(Debug, PartialEq)]
enum Stay {
    Always,
    For(Duration),
    Gone,
}

/// What the taints of a node mean for a pod: the shortest of the tolerations that cover them counts.
fn stay(pod: &Value, node: &Value) -> Stay {
    let taints = list(node, "/spec/taints").iter().filter(|taint| taint["effect"] == "NoExecute");
    let tolerations = list(pod, "/spec/tolerations");
    let mut shortest: Option<u64> = None;
    for taint in taints {
        let mut covering = tolerations.iter().filter(|toleration| covers(toleration, taint)).peekable();
        if covering.peek().is_none() {
            return Stay::Gone;
        }
        let limits = covering.filter_map(|toleration| toleration["tolerationSeconds"].as_i64());
        shortest = limits.map(|limit| limit.max(0).unsigned_abs()).chain(shortest).min();
    }
    match shortest {
        None => Stay::Always,
        Some(0) => Stay::Gone,
        Some(limit) => Stay::For(Duration::from_secs(limit)),
    }
}

impl Controller {
    fn planned(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reconcile(&self, key: &Key) -> Result<(), Refused> {
        let Some(pod) = self.cache.get(&PODS, &key.namespace, &key.name) else { return Ok(()) };
        let node = self.cache.get(&NODES, "", text(&pod, "/spec/nodeName"));
        let (Some(node), false) = (node, is_terminating(&pod)) else {
            self.planned().remove(uid(&pod));
            return Ok(());
        };
        match stay(&pod, &node) {
            Stay::Always => {
                if self.planned().remove(uid(&pod)).is_some() {
                    self.say(&pod, format!("Cancelling deletion of Pod {}/{}", namespace(&pod), name(&pod)));
                }
                Ok(())
            }
            Stay::Gone => self.evict(&pod).await,
            // As long as the pod is not free of taints it goes when it was said first, whatever taints come and go.
            Stay::For(limit) => {
                let end = *self.planned().entry(uid(&pod).to_owned()).or_insert_with(|| Instant::now() + limit);
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return self.evict(&pod).await;
                }
                self.queue.add_after(key.clone(), left);
                Ok(())
            }
        }
    }

    async fn evict(&self, pod: &Value) -> Result<(), Refused> {
        self.planned().remove(uid(pod));
        self.say(pod, format!("Marking for deletion Pod {}/{}", namespace(pod), name(pod)));
        let message = "Taint manager: deleting due to NoExecute taint";
        let condition = disruption(pod, "DeletionByTaintManager", message, self.clock.now());
        end(&self.client, pod, Some(condition), json!({}), None).await
    }

    fn say(&self, pod: &Value, message: String) {
        let about =
            json!({"kind": "Pod", "apiVersion": "v1", "name": name(pod), "namespace": namespace(pod), "uid": uid(pod)});
        self.recorder.about(about, "Normal", "TaintManagerEviction", "", message);
    }
}
