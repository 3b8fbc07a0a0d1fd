//! The scheduler: finds a node for each pod that has none, one pod after the other, and says why there is none.

pub(crate) mod fit;
pub(crate) mod quantity;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Context;
use super::cache::{Cache, Change, Key};
use super::client::{Client, PatchType, Refused};
use super::events::Recorder;
use super::kind::{NODES, PODS};
use super::object::{condition, generation, is_terminating, list, name, namespace, text, uid};
use super::pods::is_finished;
use super::queue::Queue;
use crate::auth::User;
use crate::clock::{Clock, seconds};
use fit::{Place, Unfit, rank, unfit};

const NAME: &str = "default-scheduler";

pub(super) fn start(context: &mut Context) {
    let queue = Queue::new();
    context.subscribe(&queue, note);
    let client = context.client_of("kube-scheduler", User::new("system:kube-scheduler", &[]));
    let scheduler = Arc::new(Scheduler {
        recorder: context.recorder(NAME, &client),
        client,
        cache: Arc::clone(&context.cache),
        clock: Arc::clone(&context.clock),
    });
    context.work("scheduler", &queue, move |key: Key| {
        let scheduler = Arc::clone(&scheduler);
        async move { scheduler.schedule(&key).await }
    });
}

/// Whether the pod is ours to place.
fn waits(pod: &Value) -> bool {
    text(pod, "/spec/nodeName").is_empty()
        && text(pod, "/spec/schedulerName") == NAME
        && list(pod, "/spec/schedulingGates").is_empty()
        && !is_terminating(pod)
        && !is_finished(pod)
}

fn note(cache: &Cache, queue: &Queue<Key>, change: &Change) {
    let waiting = || cache.list(&PODS, "").into_iter().filter(|pod| waits(pod));
    if change.is(&PODS) {
        let spec = |object: &Option<Arc<Value>>| object.as_ref().map(|object| object["spec"].clone());
        match &change.after {
            // Its own status is written by the attempt itself.
            Some(pod) if waits(pod) && spec(&change.before) != spec(&change.after) => queue.add(Key::of(pod)),
            Some(pod) if !is_finished(pod) => {}
            // A place became free.
            _ if !text(change.object(), "/spec/nodeName").is_empty() => {
                waiting().for_each(|pod| queue.add(Key::of(&pod)));
            }
            _ => {}
        }
    } else if change.is(&NODES) && change.after.is_some() && node_changed(change) {
        waiting().for_each(|pod| queue.add(Key::of(&pod)));
    }
}

/// Whether a node is of another use than before.
fn node_changed(change: &Change) -> bool {
    let view = |node: &Option<Arc<Value>>| {
        let node = node.as_ref()?;
        let (spec, labels) = (&node["spec"], &node["metadata"]["labels"]);
        Some(json!([spec["unschedulable"], spec["taints"], labels, node["status"]["allocatable"]]))
    };
    view(&change.before) != view(&change.after)
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
}

/// Where a pod goes, or why it goes nowhere.
#[derive(Debug, PartialEq)]
enum Choice {
    Node(String),
    Nowhere(String),
}

impl Scheduler {
    async fn schedule(&self, key: &Key) -> Result<(), Refused> {
        let Some(pod) = self.cache.get(&PODS, &key.namespace, &key.name).filter(|pod| waits(pod)) else {
            return Ok(());
        };
        let nodes = self.cache.list(&NODES, "");
        let places: Vec<Place> =
            nodes.into_iter().map(|node| Place { pods: self.cache.pods_on(name(&node)), node }).collect();
        match choose(&pod, &places) {
            Choice::Node(node) => self.bind(&pod, &node).await,
            Choice::Nowhere(why) => self.report(&pod, why).await,
        }
    }

    async fn bind(&self, pod: &Value, node: &str) -> Result<(), Refused> {
        let (space, name) = (namespace(pod), name(pod));
        let binding = json!({
            "kind": "Binding", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": space, "uid": uid(pod)},
            "target": {"kind": "Node", "name": node},
        });
        match self.client.post(&PODS.path(space, name, "binding"), &binding).await {
            Ok(_) => {}
            Err(refused) if refused.is_not_found() => return Ok(()),
            Err(refused) => {
                let message = format!("running Bind plugin \"DefaultBinder\": {}", refused.message);
                self.recorder.act(&PODS, pod, "Warning", "FailedScheduling", "Scheduling", message);
                return Err(refused);
            }
        }
        let message = format!("Successfully assigned {space}/{name} to {node}");
        self.recorder.act(&PODS, pod, "Normal", "Scheduled", "Binding", message);
        // The answer is no pod; the next choice must know that the place is taken.
        match self.client.get(&PODS, space, name).await {
            Ok(bound) => _ = self.cache.written(&PODS, bound),
            Err(refused) => tracing::debug!(%refused, "bound pod not read"),
        }
        Ok(())
    }

    async fn report(&self, pod: &Value, why: String) -> Result<(), Refused> {
        self.recorder.act(&PODS, pod, "Warning", "FailedScheduling", "Scheduling", why.clone());
        let old = condition(pod, "PodScheduled");
        let said = |field: &str, value: &str| old.is_some_and(|old| old[field] == value);
        if said("status", "False") && said("reason", "Unschedulable") && said("message", &why) {
            return Ok(());
        }
        let since = match old.filter(|_| said("status", "False")).and_then(|old| old["lastTransitionTime"].as_str()) {
            Some(since) => since.to_owned(),
            None => seconds(self.clock.now()),
        };
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
            "lastProbeTime": null, "lastTransitionTime": since, "observedGeneration": generation(pod),
        });
        let patch = json!({"status": {"conditions": [condition]}});
        match self.client.patch(&PODS, pod, "status", PatchType::Strategic, &patch).await {
            Err(refused) if !refused.is_not_found() => Err(refused),
            _ => Ok(()),
        }
    }
}

/// The best of the nodes on which the pod fits.
fn choose(pod: &Value, places: &[Place]) -> Choice {
    if places.is_empty() {
        return Choice::Nowhere("no nodes available to schedule pods".into());
    }
    let mut against = Vec::new();
    let mut best = None;
    for place in places {
        match unfit(pod, place) {
            Some(why) => against.push(why),
            None => {
                let rank = rank(pod, place);
                if best.as_ref().is_none_or(|best| rank < *best) {
                    best = Some(rank);
                }
            }
        }
    }
    match best {
        Some((.., name)) => Choice::Node(name),
        None => Choice::Nowhere(explain(&against)),
    }
}

/// `0/3 nodes are available: …`, with what removing other pods would help.
fn explain(against: &[Unfit]) -> String {
    let all = against.len();
    let list = |counts: BTreeMap<&str, usize>| {
        let mut parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        parts.join(", ")
    };
    let mut reasons = BTreeMap::new();
    let mut helps = BTreeMap::new();
    for unfit in against {
        for reason in &unfit.reasons {
            *reasons.entry(reason.as_str()).or_insert(0) += 1;
        }
        let help = match unfit.crowded {
            true => "No preemption victims found for incoming pod",
            false => "Preemption is not helpful for scheduling",
        };
        *helps.entry(help).or_insert(0) += 1;
    }
    format!(
        "0/{all} nodes are available: {}. no new claims to deallocate, preemption: 0/{all} nodes are available: {}.",
        list(reasons),
        list(helps)
    )
}
