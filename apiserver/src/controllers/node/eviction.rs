//! Deletes pods from nodes with taints that they do not tolerate, at once or when their patience is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::controllers::cache::{Change, Key};
use crate::controllers::client::Refused;
use crate::controllers::context::{Context, Controller, Tools};
use crate::controllers::kind::{NODES, PODS};
use crate::controllers::object::{is_terminating, list, name, namespace, text, uid};
use crate::controllers::pods::{disruption, end};
use crate::controllers::scheduler::fit::covers;
use crate::controllers::selection;

pub(super) fn start(context: &mut Context) {
    let tools = context.tools("node-controller", "taint-eviction-controller");
    context.run(selection::Controller::TaintEviction, Evictions { tools, planned: Mutex::default() });
}

struct Evictions {
    tools: Tools<Key>,
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

impl Controller for Evictions {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.tools
    }

    fn note(&self, change: &Change) {
        let Tools { cache, queue, .. } = &self.tools;
        if change.is(&PODS) {
            let view = |pod: &Arc<Value>| json!([pod["spec"]["nodeName"], pod["spec"]["tolerations"]]);
            if change.before.as_ref().map(view) != change.after.as_ref().map(view) {
                queue.add(Key::of(change.object()));
            }
        } else if change.is(&NODES) {
            let view = |node: &Arc<Value>| node["spec"]["taints"].clone();
            if change.before.as_ref().map(view) != change.after.as_ref().map(view) {
                queue.extend(cache.pods_on(name(change.object())).iter().map(|pod| Key::of(pod)));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let Some(pod) = self.tools.cache.get(&PODS, &key.namespace, &key.name) else { return Ok(()) };
        let node = self.tools.cache.get(&NODES, "", text(&pod, "/spec/nodeName"));
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
                self.tools.queue.add_after(key, left);
                Ok(())
            }
        }
    }
}

impl Evictions {
    fn planned(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn evict(&self, pod: &Value) -> Result<(), Refused> {
        self.planned().remove(uid(pod));
        self.say(pod, format!("Marking for deletion Pod {}/{}", namespace(pod), name(pod)));
        let message = "Taint manager: deleting due to NoExecute taint";
        let condition = disruption(pod, "DeletionByTaintManager", message, self.tools.clock.now());
        end(&self.tools.client, pod, Some(condition), json!({}), None).await
    }

    fn say(&self, pod: &Value, message: String) {
        let about =
            json!({"kind": "Pod", "apiVersion": "v1", "name": name(pod), "namespace": namespace(pod), "uid": uid(pod)});
        self.tools.recorder.about(about, "Normal", "TaintManagerEviction", "", message);
    }
}
