//! DaemonSets: one pod on every node that should have one, replaced step by step when the template changes.

mod placement;
mod plan;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Context;
use super::cache::{Cache, Change, Key};
use super::client::Refused;
use super::history::History;
use super::kind::{CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS};
use super::object::{
    annotation, controller_of, generation, is_terminating, label, labels, list, name, namespace, selects, set_entry,
    text,
};
use super::pods::{PodControl, claim, from_template, is_ready, min_ready, owner_of, until_available};
use super::queue::Queue;
use crate::clock::Clock;

/// Label of pods and revisions: the hash of the template.
const HASH: &str = "controller-revision-hash";
/// Annotation of the set and label of its pods: how often the template has changed.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const POD_GENERATION: &str = "pod-template-generation";

pub(super) fn start(context: &mut Context) {
    let queue = Queue::new();
    context.subscribe(&queue, note);
    let client = context.client("daemon-set-controller");
    let recorder = context.recorder("daemonset-controller", &client);
    let controller = Arc::new(Controller {
        pods: PodControl { client, recorder },
        cache: Arc::clone(&context.cache),
        clock: Arc::clone(&context.clock),
        queue: Arc::clone(&queue),
    });
    context.work("daemonset", &queue, move |key: Key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

fn note(cache: &Cache, queue: &Queue<Key>, change: &Change) {
    let all = || cache.list(&DAEMON_SETS, "").into_iter().for_each(|set| queue.add(Key::of(&set)));
    if change.is(&DAEMON_SETS) {
        queue.add(Key::of(change.object()));
    } else if change.is(&NODES) {
        if placement::node_changed(change) {
            all();
        }
    } else if change.is(&PODS) || change.is(&CONTROLLER_REVISIONS) {
        for object in change.both() {
            match controller_of(object) {
                Some(_) => queue.extend(owner_of(cache, &DAEMON_SETS, object).map(|set| Key::of(&set))),
                None => queue.extend(
                    cache
                        .list(&DAEMON_SETS, namespace(object))
                        .into_iter()
                        .filter(|set| selects(&set["spec"]["selector"], labels(object)))
                        .map(|set| Key::of(&set)),
                ),
            }
        }
    }
}

struct Controller {
    pods: PodControl,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    queue: Arc<Queue<Key>>,
}

/// Pods of a set by the node that they are on, or are meant for.
type ByNode = BTreeMap<String, Vec<Arc<Value>>>;

/// What a pod is to the set.
struct View {
    hash: String,
    generation: String,
    minimum: Duration,
    now: Timestamp,
}

impl View {
    fn is_updated(&self, pod: &Value) -> bool {
        label(pod, HASH) == Some(&self.hash)
            || (!self.generation.is_empty() && label(pod, POD_GENERATION) == Some(&self.generation))
    }

    fn is_available(&self, pod: &Value) -> bool {
        is_ready(pod) && until_available(pod, self.minimum, self.now) == Some(Duration::ZERO)
    }
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<(), Refused> {
        let Some(set) = self.cache.get(&DAEMON_SETS, &key.namespace, &key.name) else { return Ok(()) };
        if is_terminating(&set) {
            return Ok(());
        }
        let (client, cache) = (&self.pods.client, &*self.cache);
        let history = History { client, cache, kind: &DAEMON_SETS, set: &set, hash_label: HASH };
        let revisions = history.newest_and_old().await?;
        let view = View {
            hash: label(&revisions.newest, HASH).unwrap_or_default().to_owned(),
            generation: annotation(&set, TEMPLATE_GENERATION).unwrap_or_default().to_owned(),
            minimum: min_ready(&set),
            now: self.clock.now(),
        };
        let done = self.manage(&set, &view).await;
        if done.is_ok() {
            let pods = self.own_pods(&set).await?;
            let in_use = |revision: &Value| pods.iter().any(|pod| label(pod, HASH) == label(revision, HASH));
            history.forget_old(&revisions.old, in_use).await?;
        }
        let told = self.tell(&set, &view).await;
        done.and(told)
    }

    async fn own_pods(&self, set: &Value) -> Result<Vec<Arc<Value>>, Refused> {
        let client = &self.pods.client;
        claim(client, &self.cache, (&DAEMON_SETS, set), &PODS, &set["spec"]["selector"], |_| true).await
    }

    async fn by_node(&self, set: &Value) -> Result<ByNode, Refused> {
        let mut by_node = ByNode::new();
        for pod in self.own_pods(set).await? {
            by_node.entry(target(&pod).to_owned()).or_default().push(pod);
        }
        for pods in by_node.values_mut() {
            pods.sort_by_cached_key(|pod| (text(pod, "/metadata/creationTimestamp").to_owned(), Key::of(pod)));
        }
        Ok(by_node)
    }

    /// Makes the pods what they should be: those that are missing or too many first, then those of an old template.
    async fn manage(&self, set: &Value, view: &View) -> Result<(), Refused> {
        let nodes = self.cache.list(&NODES, "");
        let by_node = self.by_node(set).await?;
        let steps = plan::places(set, &nodes, &by_node, view);
        for (reason, message) in &steps.notes {
            self.pods.recorder.say(&DAEMON_SETS, set, "Warning", reason, message.clone());
        }
        self.carry_out(set, view, &steps).await?;
        if set["spec"]["updateStrategy"]["type"] == "RollingUpdate" {
            let by_node = self.by_node(set).await?;
            let steps = plan::rolling(set, &nodes, &by_node, view);
            self.carry_out(set, view, &steps).await?;
        }
        Ok(())
    }

    async fn carry_out(&self, set: &Value, view: &View, steps: &plan::Steps) -> Result<(), Refused> {
        for node in &steps.create {
            let pod = pod_for(set, node, view);
            match self.pods.create(&DAEMON_SETS, set, &pod).await {
                Err(refused) if refused.is_namespace_terminating() => return Ok(()),
                other => other.map(drop)?,
            }
        }
        for pod in &steps.delete {
            self.pods.delete(&DAEMON_SETS, set, pod).await?;
        }
        Ok(())
    }

    async fn tell(&self, set: &Value, view: &View) -> Result<(), Refused> {
        let by_node = self.by_node(set).await?;
        let status = status::status(set, &self.cache.list(&NODES, ""), &by_node, view);
        let pending = status::next_look(&by_node, view);
        if let Some(wait) = pending {
            self.queue.add_after(Key::of(set), wait);
        }
        let current = self.cache.get(&DAEMON_SETS, namespace(set), name(set));
        let Some(current) = current.filter(|current| generation(current) == generation(set)) else { return Ok(()) };
        if status::same(&current["status"], &status) {
            return Ok(());
        }
        let mut wanted = Value::clone(&current);
        wanted["status"] = status;
        self.pods.client.update(&DAEMON_SETS, "status", &wanted).await.map(drop)
    }
}

const NODE_TERMS: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

/// The node that a pod is on, or the one that its affinity names.
fn target(pod: &Value) -> &str {
    let bound = text(pod, "/spec/nodeName");
    if !bound.is_empty() {
        return bound;
    }
    let mut fields = list(pod, NODE_TERMS).iter().flat_map(|term| list(term, "/matchFields"));
    fields.find(|field| field["key"] == "metadata.name").map(|field| text(field, "/values/0")).unwrap_or_default()
}

/// The pod of the set for one node.
fn pod_for(set: &Value, node: &str, view: &View) -> Value {
    let mut pod = from_template(&DAEMON_SETS, set, &set["spec"]["template"]);
    placement::tolerate(&mut pod["spec"]);
    if !view.generation.is_empty() {
        set_entry(&mut pod, "labels", POD_GENERATION, &view.generation);
    }
    set_entry(&mut pod, "labels", HASH, &view.hash);
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let terms = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = terms;
    pod
}
