//! ReplicaSets, and ReplicationControllers, their forerunners: as many pods as are wanted, no more and no less.

mod rank;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::cache::{Change, Key};
use super::client::Refused;
use super::context::{Context, Controller, Tools};
use super::kind::{Kind, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS};
use super::object::{
    controller_of, counted, generation, is_terminating, labels, list, name, namespace, selects, text, uid,
};
use super::pods::{from_template, is_active, is_ready, min_ready, owners, until_available};
use super::selection;
use crate::clock::seconds;

/// Most pods that are made or deleted at once.
const BURST: usize = 500;

pub(super) fn start(context: &mut Context) {
    for (which, kind, name) in [
        (selection::Controller::ReplicaSet, REPLICA_SETS, "replicaset-controller"),
        (selection::Controller::ReplicationController, REPLICATION_CONTROLLERS, "replication-controller"),
    ] {
        let tools = context.tools(name, name);
        context.run(which, ReplicaSets { kind, tools });
    }
}

struct ReplicaSets {
    kind: Kind,
    tools: Tools<Key>,
}

impl Controller for ReplicaSets {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.tools
    }

    fn note(&self, change: &Change) {
        if change.is(&self.kind) {
            self.tools.queue.add(Key::of(change.object()));
        } else if change.is(&PODS) {
            self.tools.queue.extend(owners(&self.tools.cache, &self.kind, change));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let Some(set) = self.tools.cache.get(&self.kind, &key.namespace, &key.name) else { return Ok(()) };
        let managed = if is_terminating(&set) { Ok(()) } else { self.manage(&set).await };
        let told = self.tell(&set, managed.as_ref().err()).await;
        managed.and(told)
    }
}

impl ReplicaSets {
    async fn active(&self, set: &Value) -> Result<Vec<Arc<Value>>, Refused> {
        let mut pods = self.tools.claim((&self.kind, set), &PODS, is_active).await?;
        pods.retain(|pod| is_active(pod));
        Ok(pods)
    }

    async fn manage(&self, set: &Value) -> Result<(), Refused> {
        let pods = self.active(set).await?;
        let wanted = replicas(set);
        for _ in pods.len()..wanted.min(pods.len() + BURST) {
            let pod = from_template(&self.kind, set, &set["spec"]["template"]);
            if !self.tools.create_pod(&self.kind, set, &pod).await? {
                return Ok(());
            }
        }
        if pods.len() > wanted {
            let surplus = (pods.len() - wanted).min(BURST);
            let related = self.related(set);
            for pod in rank::first_to_go(&pods, &related, surplus, self.tools.clock.now()) {
                self.tools.delete_pod(&self.kind, set, &pod).await?;
            }
        }
        Ok(())
    }

    /// Active pods of all sets of the same owner: of those on one node, some go before the last one of another node.
    fn related(&self, set: &Value) -> Vec<Arc<Value>> {
        let owner = controller_of(set).map(|owner| owner["uid"].clone());
        let sets = self.tools.cache.list(&self.kind, namespace(set)).into_iter();
        let mates = sets.filter(|other| {
            name(other) == name(set) || (owner.is_some() && controller_of(other).map(|o| o["uid"].clone()) == owner)
        });
        let dependents = mates.flat_map(|mate| self.tools.cache.dependents(uid(&mate)));
        dependents.filter(|(kind, pod)| *kind == PODS && is_active(pod)).map(|(_, pod)| pod).collect()
    }

    async fn tell(&self, set: &Value, failure: Option<&Refused>) -> Result<(), Refused> {
        let pods = self.active(set).await?;
        let (minimum, now) = (min_ready(set), self.tools.clock.now());
        let status = status(set, &pods, failure, &seconds(now), |pod| {
            until_available(pod, minimum, now) == Some(Duration::ZERO)
        });
        let soon = pods.iter().filter_map(|pod| until_available(pod, minimum, now)).filter(|wait| !wait.is_zero());
        if let Some(wait) = soon.min() {
            self.tools.queue.add_after(Key::of(set), wait);
        }
        self.tools.write_status(&self.kind, set, status).await
    }
}

fn replicas(set: &Value) -> usize {
    set["spec"]["replicas"].as_u64().unwrap_or(1) as usize
}

/// The status that is true now.
fn status(
    set: &Value,
    pods: &[Arc<Value>],
    failure: Option<&Refused>,
    now: &str,
    available: impl Fn(&Value) -> bool,
) -> Value {
    let template = json!({"matchLabels": set["spec"]["template"]["metadata"]["labels"]});
    let counts = [
        pods.iter().filter(|pod| selects(&template, labels(pod))).count(),
        pods.iter().filter(|pod| is_ready(pod)).count(),
        pods.iter().filter(|pod| available(pod)).count(),
    ];
    let [labeled, ready, available] = counts.map(|count| count as i64);
    let always = [("replicas", pods.len() as i64), ("observedGeneration", generation(set))];
    let counts = [("fullyLabeledReplicas", labeled), ("readyReplicas", ready), ("availableReplicas", available)];
    let mut status = counted(&set["status"], &always, &counts);
    let conditions = failures(set, pods.len(), failure, now);
    if let Some(fields) = status.as_object_mut() {
        match conditions.is_empty() {
            true => fields.remove("conditions"),
            false => fields.insert("conditions".into(), json!(conditions)),
        };
    }
    status
}

/// The conditions, with ReplicaFailure only while the last attempt failed.
fn failures(set: &Value, pods: usize, failure: Option<&Refused>, now: &str) -> Vec<Value> {
    let old = list(set, "/status/conditions");
    let known = old.iter().find(|condition| text(condition, "/type") == "ReplicaFailure");
    let mut conditions: Vec<Value> =
        old.iter().filter(|condition| text(condition, "/type") != "ReplicaFailure").cloned().collect();
    match (failure, known) {
        (Some(_), Some(known)) => conditions.push(known.clone()),
        (Some(failure), None) => {
            let reason = if pods < replicas(set) { "FailedCreate" } else { "FailedDelete" };
            conditions.push(json!({"type": "ReplicaFailure", "status": "True", "reason": reason,
                "message": failure.message, "lastTransitionTime": now}));
        }
        (None, _) => {}
    }
    conditions
}
