//! Who is still there: a node whose kubelet renews neither its lease nor its status becomes unknown, its pods not ready,
//! and its taints follow its conditions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::judgement::{Zone, cut_off, no_execute, silent, taints, zone, zone_of};
use crate::clock::seconds;
use crate::controllers::cache::{Change, Key};
use crate::controllers::client::{PatchType, Refused};
use crate::controllers::context::{Context, Controller, Tools};
use crate::controllers::kind::{LEASES, NODES, PODS};
use crate::controllers::object::{condition, condition_status, list, name, namespace, revision, text, uid};
use crate::controllers::pods::{is_ready, patch_status};
use crate::controllers::selection;

const LEASE_SPACE: &str = "kube-node-lease";
/// A zone loses no more than one node in this time, a large one that is mostly gone one in the other.
const BETWEEN_EVICTIONS: Duration = Duration::from_secs(10);
const BETWEEN_DISRUPTED: Duration = Duration::from_secs(100);
/// Up to this many nodes a zone that is mostly gone loses none at all.
const SMALL_ZONE: usize = 50;

pub(super) fn start(context: &mut Context) {
    let tools = context.tools("node-controller", "node-controller");
    context.run(selection::Controller::NodeLifecycle, Health { tools, book: Mutex::default() });
}

/// What needs a look.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Look {
    Node(String),
    /// A pod that came to a node, perhaps to one that is gone.
    Newcomer(Key),
}

/// What was seen of a node last.
struct Seen {
    node: Value,
    /// Heartbeat of the status and renewal of the lease.
    signs: (String, String),
    at: Instant,
    /// Whether its pods were marked since it is not ready.
    marked: bool,
}

#[derive(Default)]
struct Book {
    seen: HashMap<String, Seen>,
    /// When a zone last lost a node to evictions.
    evicted: BTreeMap<String, Instant>,
}

struct Health {
    tools: Tools<Look>,
    book: Mutex<Book>,
}

impl Controller for Health {
    type Key = Look;

    fn tools(&self) -> &Tools<Look> {
        &self.tools
    }

    fn note(&self, change: &Change) {
        let (Tools { cache, queue, .. }, object) = (&self.tools, change.object());
        let ready = |node: &Arc<Value>| condition_status(node, "Ready").to_owned();
        if change.is(&NODES) && change.before.as_ref().map(ready) != change.after.as_ref().map(ready) {
            // Whether we are cut off depends on all of them.
            queue.extend(cache.list(&NODES, "").iter().map(|node| Look::Node(name(node).to_owned())));
        }
        if change.is(&NODES) || (change.is(&LEASES) && namespace(object) == LEASE_SPACE) {
            queue.add(Look::Node(name(object).to_owned()));
        } else if change.is(&PODS)
            && let Some(pod) = &change.after
        {
            let node = |pod: &Value| text(pod, "/spec/nodeName").to_owned();
            if !node(pod).is_empty() && change.before.as_ref().is_none_or(|old| node(old).is_empty()) {
                queue.add(Look::Newcomer(Key::of(pod)));
            }
        }
    }

    async fn reconcile(&self, look: Look) -> Result<(), Refused> {
        match look {
            Look::Node(name) => self.node(&name).await,
            Look::Newcomer(pod) => self.newcomer(&pod).await,
        }
    }
}

impl Health {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, node: &Value, reason: &'static str, message: String) {
        let about = json!({"kind": "Node", "apiVersion": "v1", "name": name(node), "uid": uid(node)});
        self.tools.recorder.about(about, "Normal", reason, "", message);
    }

    async fn node(&self, name: &str) -> Result<(), Refused> {
        let Some(node) = self.tools.cache.get(&NODES, "", name) else {
            self.farewell(name);
            return Ok(());
        };
        self.greet(&node);
        let node = match self.silence(&node) {
            Some(left) if left.is_zero() => self.give_up(&node).await?,
            Some(left) => {
                self.tools.queue.add_after(Look::Node(name.to_owned()), left);
                node
            }
            None => node,
        };
        let lost = no_execute(&node).is_some();
        self.taint(node).await?;
        let marked = self.book().seen.get(name).is_some_and(|seen| seen.marked);
        if lost && !marked {
            for pod in self.tools.cache.pods_on(name) {
                self.mark(&pod).await?;
            }
        }
        if let Some(seen) = self.book().seen.get_mut(name) {
            seen.marked = lost;
        }
        Ok(())
    }

    async fn newcomer(&self, key: &Key) -> Result<(), Refused> {
        let Some(pod) = self.tools.cache.get(&PODS, &key.namespace, &key.name) else { return Ok(()) };
        match self.tools.cache.get(&NODES, "", text(&pod, "/spec/nodeName")) {
            Some(node) if no_execute(&node).is_some() => self.mark(&pod).await,
            _ => Ok(()),
        }
    }

    fn farewell(&self, name: &str) {
        if let Some(seen) = self.book().seen.remove(name) {
            self.say(&seen.node, "RemovingNode", format!("Node {name} event: Removing Node {name} from Controller"));
        }
    }

    /// A node that was not known; one that was made again under the same name is another one.
    fn greet(&self, node: &Value) {
        let known = self.book().seen.get(name(node)).is_some_and(|seen| uid(&seen.node) == uid(node));
        if !known {
            let name = name(node);
            self.say(node, "RegisteredNode", format!("Node {name} event: Registered Node {name} in Controller"));
        }
    }

    /// How long the node may still be silent; nothing if it is given up already.
    fn silence(&self, node: &Value) -> Option<Duration> {
        let heartbeat = condition(node, "Ready").map(|ready| text(ready, "/lastHeartbeatTime").to_owned());
        let lease = self.tools.cache.get(&LEASES, LEASE_SPACE, name(node));
        let renewed = lease.map(|lease| text(&lease, "/spec/renewTime").to_owned());
        let grace = if heartbeat.is_some() {
            self.tools.options.node_monitor_grace_period
        } else {
            self.tools.options.node_startup_grace_period
        };
        let signs = (heartbeat.unwrap_or_default(), renewed.unwrap_or_default());
        let now = Instant::now();
        let mut book = self.book();
        let fresh = || Seen { node: node.clone(), signs: signs.clone(), at: now, marked: false };
        let seen = book.seen.entry(name(node).to_owned()).or_insert_with(fresh);
        if uid(&seen.node) != uid(node) || seen.signs != signs {
            seen.at = now;
            seen.signs = signs;
        }
        seen.node = node.clone();
        let left = grace.saturating_sub(now.duration_since(seen.at));
        let given_up = list(node, "/status/conditions").iter().all(|condition| {
            !matches!(text(condition, "/type"), "Ready" | "MemoryPressure" | "DiskPressure" | "PIDPressure")
                || condition["status"] == "Unknown"
        });
        (!(left.is_zero() && given_up && condition(node, "Ready").is_some())).then_some(left)
    }

    async fn give_up(&self, node: &Arc<Value>) -> Result<Arc<Value>, Refused> {
        let mut wanted = Value::clone(node);
        wanted["status"] = silent(node, &seconds(self.tools.clock.now()));
        let was_ready = condition_status(node, "Ready") == "True";
        let node = self.tools.client.update(&NODES, "status", &wanted).await?;
        if was_ready {
            let name = name(&node);
            self.say(&node, "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
        }
        Ok(node)
    }

    /// Brings the taints in line with the conditions: those that keep pods away first, then the one that evicts them.
    async fn taint(&self, node: Arc<Value>) -> Result<(), Refused> {
        let mut node = node;
        for effect in ["NoSchedule", "NoExecute"] {
            let evict = effect == "NoExecute" && no_execute(&node).is_some() && self.may_evict(&node);
            let wanted = taints(&node, effect, evict, &seconds(self.tools.clock.now()));
            if wanted == list(&node, "/spec/taints") {
                continue;
            }
            // The whole list, and only if nobody changed the node meanwhile.
            let wanted = if wanted.is_empty() { Value::Null } else { json!(wanted) };
            let patch = json!({"metadata": {"resourceVersion": revision(&node)}, "spec": {"taints": wanted}});
            node = self.tools.client.patch(&NODES, &node, "", PatchType::Merge, &patch).await?;
        }
        Ok(())
    }

    /// Whether the node's pods may be evicted now; if not yet, it is looked at again.
    fn may_evict(&self, node: &Value) -> bool {
        let nodes = self.tools.cache.list(&NODES, "");
        if cut_off(&nodes) {
            // When one comes back, the others are judged anew.
            return false;
        }
        let own = zone_of(node);
        let mates: Vec<&Value> = nodes.iter().map(|node| &**node).filter(|node| zone_of(node) == own).collect();
        let key = no_execute(node).unwrap_or_default();
        if list(node, "/spec/taints").iter().any(|taint| taint["key"] == key && taint["effect"] == "NoExecute") {
            return true;
        }
        let pause = match zone(&mates) {
            Zone::Partial if mates.len() <= SMALL_ZONE => return false,
            Zone::Partial => BETWEEN_DISRUPTED,
            Zone::Normal | Zone::Full => BETWEEN_EVICTIONS,
        };
        let mut book = self.book();
        let now = Instant::now();
        if let Some(next) = book.evicted.get(&own).map(|last| *last + pause).filter(|next| *next > now) {
            self.tools.queue.add_after(Look::Node(name(node).to_owned()), next - now);
            return false;
        }
        book.evicted.insert(own, now);
        true
    }

    /// A pod of a node that is gone is not ready, whatever it last said.
    async fn mark(&self, pod: &Value) -> Result<(), Refused> {
        if !is_ready(pod) {
            return Ok(());
        }
        let condition =
            json!({"type": "Ready", "status": "False", "lastTransitionTime": seconds(self.tools.clock.now())});
        if patch_status(&self.tools.client, pod, Some(condition), json!({})).await? {
            self.tools.recorder.say(&PODS, pod, "Warning", "NodeNotReady", "Node is not ready".into());
        }
        Ok(())
    }
}
