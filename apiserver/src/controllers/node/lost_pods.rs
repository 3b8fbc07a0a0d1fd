//! Pods that nobody will ever end: those of nodes that are gone, and those that were deleted before they had a node.

use serde_json::{Value, json};

use crate::controllers::cache::Change;
use crate::controllers::client::Refused;
use crate::controllers::context::{Context, Controller, Tools};
use crate::controllers::kind::{NODES, PODS};
use crate::controllers::object::{is_terminating, name, text};
use crate::controllers::pods::{disruption, end, is_finished};
use crate::controllers::selection;

pub(super) fn start(context: &mut Context) {
    context.run(
        selection::Controller::PodGarbageCollector,
        LostPods(context.tools("pod-garbage-collector", "pod-garbage-collector")),
    );
}

struct LostPods(Tools<String>);

impl Controller for LostPods {
    type Key = String;

    fn tools(&self) -> &Tools<String> {
        &self.0
    }

    fn note(&self, change: &Change) {
        let (Tools { cache, queue, options, .. }, object) = (&self.0, change.object());
        if change.is(&NODES) && change.after.is_none() {
            queue.add_after(name(object).to_owned(), options.pod_gc_quarantine);
        } else if change.is(&PODS) && change.after.is_some() {
            let node = text(object, "/spec/nodeName");
            if node.is_empty() && is_terminating(object) {
                queue.add(String::new());
            } else if !node.is_empty() && cache.get(&NODES, "", node).is_none() {
                queue.add_after(node.to_owned(), options.pod_gc_quarantine);
            }
        }
    }

    /// `node` is empty for pods without one.
    async fn reconcile(&self, node: String) -> Result<(), Refused> {
        if node.is_empty() {
            let pods = self.0.cache.list(&PODS, "");
            for pod in pods.iter().filter(|pod| text(pod, "/spec/nodeName").is_empty() && is_terminating(pod)) {
                self.end(pod, None).await?;
            }
            return Ok(());
        }
        if self.0.cache.get(&NODES, "", &node).is_some() {
            return Ok(());
        }
        match self.0.client.get(&NODES, "", &node).await {
            Err(refused) if refused.is_not_found() => {}
            other => return other.map(drop),
        }
        for pod in self.0.cache.pods_on(&node) {
            let message = "PodGC: node no longer exists";
            self.end(&pod, Some(disruption(&pod, "DeletionByPodGC", message, self.0.clock.now()))).await?;
        }
        Ok(())
    }
}

impl LostPods {
    async fn end(&self, pod: &Value, condition: Option<Value>) -> Result<(), Refused> {
        let (why, status) = match is_finished(pod) {
            true => (None, json!({})),
            false => (condition, json!({"phase": "Failed"})),
        };
        end(&self.0.client, pod, why, status, Some(0)).await
    }
}
