//! The scheduler: finds a node for each pod that has none, one pod after the other, and says why there is none.

mod claims;
pub(crate) mod fit;
mod preemption;
pub(crate) mod quantity;
mod topology;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::cache::{Change, Key};
use super::client::Refused;
use super::context::{Context, Controller, Tools};
use super::kind::{NAMESPACES, NODES, PERSISTENT_VOLUME_CLAIMS, PODS};
use super::object::{condition, generation, is_terminating, list, name, namespace, text, uid};
use super::pods::{disruption, end, is_finished, patch_status};
use super::selection;
use crate::auth::User;
use crate::clock::seconds;
use fit::{Place, rank, unfit};
use preemption::{Sacrifice, ineligible, preempt, priority};
use topology::{Cluster, depends_on_pods};

const NAME: &str = "default-scheduler";

pub(super) fn start(context: &mut Context) {
    let client = context.client_of("kube-scheduler", User::new("system:kube-scheduler", &[]));
    context.run(selection::Controller::Scheduler, Scheduler(context.tools_of(client, NAME)));
}

/// Whether the pod is ours to place.
fn waits(pod: &Value) -> bool {
    text(pod, "/spec/nodeName").is_empty()
        && text(pod, "/spec/schedulerName") == NAME
        && list(pod, "/spec/schedulingGates").is_empty()
        && !is_terminating(pod)
        && !is_finished(pod)
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

struct Scheduler(Tools<Key>);

/// Where a pod goes, or why it goes nowhere.
#[derive(Debug, PartialEq)]
enum Choice {
    Node(String),
    Nowhere(String),
    /// Others have to go first.
    Later(String, Sacrifice),
}

impl Controller for Scheduler {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.0
    }

    fn note(&self, change: &Change) {
        let Tools { cache, queue, .. } = &self.0;
        // Those of a higher priority come first, then those that wait for longer.
        let waiting = || {
            let mut pods: Vec<Arc<Value>> = cache.list(&PODS, "").into_iter().filter(|pod| waits(pod)).collect();
            pods.sort_by_cached_key(|pod| {
                (Reverse(priority(pod)), text(pod, "/metadata/creationTimestamp").to_owned())
            });
            pods.into_iter()
        };
        if change.is(&PODS) {
            let spec = |object: &Option<Arc<Value>>| object.as_ref().map(|object| object["spec"].clone());
            match &change.after {
                // Its own status is written by the attempt itself.
                Some(pod) if waits(pod) && spec(&change.before) != spec(&change.after) => queue.add(Key::of(pod)),
                // It may be what others want to be near to.
                Some(pod) if !text(pod, "/spec/nodeName").is_empty() && !is_finished(pod) => {
                    let view = |pod: &Arc<Value>| json!([pod["spec"]["nodeName"], pod["metadata"]["labels"]]);
                    if change.before.as_ref().map(view) != Some(view(pod)) {
                        waiting().filter(|pod| depends_on_pods(pod)).for_each(|pod| queue.add(Key::of(&pod)));
                    }
                }
                Some(pod) if !is_finished(pod) => {}
                // A place became free.
                _ if !text(change.object(), "/spec/nodeName").is_empty() => {
                    waiting().for_each(|pod| queue.add(Key::of(&pod)));
                }
                _ => {}
            }
        } else if change.is(&NODES) && change.after.is_some() && node_changed(change) {
            waiting().for_each(|pod| queue.add(Key::of(&pod)));
        } else if change.is(&PERSISTENT_VOLUME_CLAIMS) {
            waiting()
                .filter(|pod| super::storage::claims(pod).next().is_some())
                .for_each(|pod| queue.add(Key::of(&pod)));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let Some(pod) = self.0.cache.get(&PODS, &key.namespace, &key.name).filter(|pod| waits(pod)) else {
            return Ok(());
        };
        let (places, namespaces) = (self.places(&pod), self.0.cache.list(&NAMESPACES, ""));
        if let Some(why) = claims::missing(&self.0.cache, &pod).filter(|_| !places.is_empty()) {
            // So the real scheduler puts it when no node was looked at.
            let why = format!("0/{} nodes are available: {why}. not found", places.len());
            return self.report(&pod, why, None).await;
        }
        match choose(&pod, &Cluster { places: &places, namespaces: &namespaces }) {
            Choice::Node(node) => self.bind(&pod, &node).await,
            Choice::Nowhere(why) => self.report(&pod, why, None).await,
            Choice::Later(why, Sacrifice { node, victims }) => {
                self.report(&pod, why, Some(&node)).await?;
                for victim in victims {
                    self.evict(&pod, &node, &victim).await?;
                }
                Ok(())
            }
        }
    }
}

impl Scheduler {
    /// All nodes, with what is on them for this pod: also those for whom others had to go, unless the pod comes first.
    fn places(&self, pod: &Value) -> Vec<Place> {
        let pods = self.0.cache.list(&PODS, "");
        let nominated: Vec<&Arc<Value>> = pods
            .iter()
            .filter(|other| waits(other) && uid(other) != uid(pod) && priority(other) >= priority(pod))
            .filter(|other| !text(other, "/status/nominatedNodeName").is_empty())
            .collect();
        let place = |node: Arc<Value>| {
            let mut pods = self.0.cache.pods_on(name(&node));
            let mine = nominated.iter().filter(|other| text(other, "/status/nominatedNodeName") == name(&node));
            pods.extend(mine.map(|other| Arc::clone(other)));
            Place { node, pods }
        };
        self.0.cache.list(&NODES, "").into_iter().map(place).collect()
    }

    /// Deletes a pod in whose place another one will run.
    async fn evict(&self, pod: &Value, node: &str, victim: &Value) -> Result<(), Refused> {
        if is_terminating(victim) {
            return Ok(());
        }
        let message = "default-scheduler: preempting to accommodate a higher priority pod";
        let condition = disruption(victim, "PreemptionByScheduler", message, self.0.clock.now());
        end(&self.0.client, victim, Some(condition), json!({}), None).await?;
        let message = format!("Preempted by pod {} on node {node}", uid(pod));
        self.0.recorder.act(&PODS, victim, "Normal", "Preempted", "Preempting", message);
        Ok(())
    }

    async fn bind(&self, pod: &Value, node: &str) -> Result<(), Refused> {
        let (space, name) = (namespace(pod), name(pod));
        let binding = json!({
            "kind": "Binding", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": space, "uid": uid(pod)},
            "target": {"kind": "Node", "name": node},
        });
        match self.0.client.post(&PODS.path(space, name, "binding"), &binding).await {
            Ok(_) => {}
            Err(refused) if refused.is_not_found() => return Ok(()),
            Err(refused) => {
                let message = format!("running Bind plugin \"DefaultBinder\": {}", refused.message);
                self.0.recorder.act(&PODS, pod, "Warning", "FailedScheduling", "Scheduling", message);
                return Err(refused);
            }
        }
        let message = format!("Successfully assigned {space}/{name} to {node}");
        self.0.recorder.act(&PODS, pod, "Normal", "Scheduled", "Binding", message);
        // The answer is no pod; the next choice must know that the place is taken.
        match self.0.client.get(&PODS, space, name).await {
            Ok(bound) => _ = self.0.cache.written(&PODS, bound),
            Err(refused) => tracing::debug!(%refused, "bound pod not read"),
        }
        Ok(())
    }

    /// Says why the pod has no place; `nominated` is the node on which it will have one.
    async fn report(&self, pod: &Value, why: String, nominated: Option<&str>) -> Result<(), Refused> {
        self.0.recorder.act(&PODS, pod, "Warning", "FailedScheduling", "Scheduling", why.clone());
        let old = condition(pod, "PodScheduled");
        let said = |field: &str, value: &str| old.is_some_and(|old| old[field] == value);
        let known = nominated.is_none_or(|node| node == text(pod, "/status/nominatedNodeName"));
        if known && said("status", "False") && said("reason", "Unschedulable") && said("message", &why) {
            return Ok(());
        }
        let since = match old.filter(|_| said("status", "False")).and_then(|old| old["lastTransitionTime"].as_str()) {
            Some(since) => since.to_owned(),
            None => seconds(self.0.clock.now()),
        };
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
            "lastProbeTime": null, "lastTransitionTime": since, "observedGeneration": generation(pod),
        });
        let status = nominated.map_or_else(|| json!({}), |node| json!({"nominatedNodeName": node}));
        patch_status(&self.0.client, pod, Some(condition), status).await.map(drop)
    }
}

/// The best of the nodes on which the pod fits.
fn choose(pod: &Value, cluster: &Cluster) -> Choice {
    if cluster.places.is_empty() {
        return Choice::Nowhere("no nodes available to schedule pods".into());
    }
    let mut against = Vec::new();
    let mut best = None;
    for place in cluster.places {
        match unfit(pod, place, cluster) {
            Some(why) => against.push(why),
            None => {
                let rank = rank(pod, place);
                if best.as_ref().is_none_or(|best| rank < *best) {
                    best = Some(rank);
                }
            }
        }
    }
    if let Some((.., name)) = best {
        return Choice::Node(name);
    }
    let why = explain(against.iter().map(|unfit| &unfit.reasons));
    if let Some(reason) = ineligible(pod, cluster.places) {
        return Choice::Nowhere(format!("{why} no new claims to deallocate, preemption: {reason}"));
    }
    match preempt(pod, cluster, &against) {
        Ok(sacrifice) => Choice::Later(why, sacrifice),
        Err(useless) => {
            let useless = explain(useless.iter());
            Choice::Nowhere(format!("{why} no new claims to deallocate, preemption: {useless}"))
        }
    }
}

/// `0/3 nodes are available: …`, with how many nodes have which reason.
fn explain<'a>(against: impl ExactSizeIterator<Item = &'a Vec<String>>) -> String {
    let all = against.len();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in against.flatten() {
        *counts.entry(reason).or_insert(0) += 1;
    }
    let mut parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{all} nodes are available: {}.", parts.join(", "))
}
