//! DaemonSets: one pod on every node that should have one, replaced step by step when the template changes.

mod placement;
mod plan;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cache::{Change, Key};
use super::client::Refused;
use super::context::{Context, Controller, Tools};
use super::history::History;
use super::kind::{CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS};
use super::object::{annotation, generation, is_terminating, label, list, name, namespace, set_entry, text};
use super::pods::{from_template, is_ready, min_ready, owners, until_available};
use super::selection;

/// Label of pods and revisions: the hash of the template.
const HASH: &str = "controller-revision-hash";
/// Annotation of the set and label of its pods: how often the template has changed.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const POD_GENERATION: &str = "pod-template-generation";

pub(super) fn start(context: &mut Context) {
    context.run(
        selection::Controller::DaemonSet,
        DaemonSets(context.tools("daemon-set-controller", "daemonset-controller")),
    );
}

struct DaemonSets(Tools<Key>);

impl Controller for DaemonSets {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.0
    }

    fn note(&self, change: &Change) {
        let Tools { cache, queue, .. } = &self.0;
        if change.is(&DAEMON_SETS) {
            queue.add(Key::of(change.object()));
        } else if change.is(&NODES) && placement::node_changed(change) {
            queue.extend(cache.list(&DAEMON_SETS, "").iter().map(|set| Key::of(set)));
        } else if change.is(&PODS) || change.is(&CONTROLLER_REVISIONS) {
            queue.extend(owners(cache, &DAEMON_SETS, change));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let Some(set) = self.0.cache.get(&DAEMON_SETS, &key.namespace, &key.name) else { return Ok(()) };
        if is_terminating(&set) {
            return Ok(());
        }
        let history = History { tools: &self.0, kind: &DAEMON_SETS, set: &set, hash_label: HASH };
        let revisions = history.newest_and_old().await?;
        let view = View {
            hash: label(&revisions.newest, HASH).unwrap_or_default().to_owned(),
            generation: annotation(&set, TEMPLATE_GENERATION).unwrap_or_default().to_owned(),
            minimum: min_ready(&set),
            now: self.0.clock.now(),
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

impl DaemonSets {
    async fn own_pods(&self, set: &Value) -> Result<Vec<Arc<Value>>, Refused> {
        self.0.claim((&DAEMON_SETS, set), &PODS, |_| true).await
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
        let nodes = self.0.cache.list(&NODES, "");
        let by_node = self.by_node(set).await?;
        let steps = plan::places(set, &nodes, &by_node, view);
        for (reason, message) in &steps.notes {
            self.0.recorder.say(&DAEMON_SETS, set, "Warning", reason, message.clone());
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
            if !self.0.create_pod(&DAEMON_SETS, set, &pod).await? {
                return Ok(());
            }
        }
        for pod in &steps.delete {
            self.0.delete_pod(&DAEMON_SETS, set, pod).await?;
        }
        Ok(())
    }

    async fn tell(&self, set: &Value, view: &View) -> Result<(), Refused> {
        let by_node = self.by_node(set).await?;
        let status = status::status(set, &self.0.cache.list(&NODES, ""), &by_node, view);
        let pending = status::next_look(&by_node, view);
        if let Some(wait) = pending {
            self.0.queue.add_after(Key::of(set), wait);
        }
        let current = self.0.cache.get(&DAEMON_SETS, namespace(set), name(set));
        if current.is_none_or(|current| generation(&current) != generation(set)) {
            return Ok(());
        }
        self.0.write_status(&DAEMON_SETS, set, status).await
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
