//! Pods that nobody will ever end: those of nodes that are gone, and those that were deleted before they had a node.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::controllers::cache::{Cache, Change};
use crate::controllers::client::{Client, Refused};
use crate::controllers::kind::{NODES, PODS};
use crate::controllers::object::{is_terminating, name, text};
use crate::controllers::pods::{disruption, end, is_finished};
use crate::controllers::queue::Queue;
use crate::controllers::{Context, ControllerOptions};

pub(super) fn start(context: &mut Context) {
    let queue = Queue::new();
    let options = Arc::clone(&context.options);
    context.subscribe(&queue, move |cache, queue, change| note(cache, queue, change, &options));
    let collector = Arc::new(Collector {
        client: context.client("pod-garbage-collector"),
        cache: Arc::clone(&context.cache),
        clock: Arc::clone(&context.clock),
    });
    context.work("pod-gc", &queue, move |node: String| {
        let collector = Arc::clone(&collector);
        async move { collector.reconcile(&node).await }
    });
}

fn note(cache: &Cache, queue: &Queue<String>, change: &Change, options: &ControllerOptions) {
    let object = change.object();
    if change.is(&NODES) && change.after.is_none() {
        queue.add_after(name(object).to_owned(), options.lost_pod_grace);
    } else if change.is(&PODS) && change.after.is_some() {
        let node = text(object, "/spec/nodeName");
        if node.is_empty() && is_terminating(object) {
            queue.add(String::new());
        } else if !node.is_empty() && cache.get(&NODES, "", node).is_none() {
            queue.add_after(node.to_owned(), options.lost_pod_grace);
        }
    }
}

struct Collector {
    client: Client,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
}

impl Collector {
    /// `node` is empty for pods without one.
    async fn reconcile(&self, node: &str) -> Result<(), Refused> {
        if node.is_empty() {
            let pods = self.cache.list(&PODS, "");
            for pod in pods.iter().filter(|pod| text(pod, "/spec/nodeName").is_empty() && is_terminating(pod)) {
                self.end(pod, None).await?;
            }
            return Ok(());
        }
        if self.cache.get(&NODES, "", node).is_some() {
            return Ok(());
        }
        match self.client.get(&NODES, "", node).await {
            Err(refused) if refused.is_not_found() => {}
            other => return other.map(drop),
        }
        for pod in self.cache.pods_on(node) {
            let message = "PodGC: node no longer exists";
            self.end(&pod, Some(disruption(&pod, "DeletionByPodGC", message, self.clock.now()))).await?;
        }
        Ok(())
    }

    async fn end(&self, pod: &Value, condition: Option<Value>) -> Result<(), Refused> {
        let (why, status) = match is_finished(pod) {
            true => (None, json!({})),
            false => (condition, json!({"phase": "Failed"})),
        };
        end(&self.client, pod, why, status, Some(0)).await
    }
}
