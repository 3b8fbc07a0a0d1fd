//! ReplicaSets: as many pods as are wanted, no more and no less.

mod rank;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Context;
use super::cache::{Cache, Change, Key};
use super::client::Refused;
use super::kind::{PODS, REPLICA_SETS};
use super::object::{controller_of, generation, is_terminating, labels, list, name, namespace, number, selects, text};
use super::pods::{PodControl, claim, from_template, is_active, is_ready, min_ready, owner_of, until_available};
use super::queue::Queue;
use crate::clock::{Clock, seconds};

/// Most pods that are made or deleted at once.
const BURST: usize = 500;

pub(super) fn start(context: &mut Context) {
    let queue = Queue::new();
    context.subscribe(&queue, note);
    let client = context.client("replicaset-controller");
    let recorder = context.recorder("replicaset-controller", &client);
    let controller = Arc::new(Controller {
        pods: PodControl { client, recorder },
        cache: Arc::clone(&context.cache),
        clock: Arc::clone(&context.clock),
        queue: Arc::clone(&queue),
    });
    context.work("replicaset", &queue, move |key: Key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

fn note(cache: &Cache, queue: &Queue<Key>, change: &Change) {
    if change.is(&REPLICA_SETS) {
        queue.add(Key::of(change.object()));
    } else if change.is(&PODS) {
        for pod in change.both() {
            if controller_of(pod).is_some() {
                queue.extend(owner_of(cache, &REPLICA_SETS, pod).map(|set| Key::of(&set)));
            } else {
                let sets = cache.list(&REPLICA_SETS, namespace(pod)).into_iter();
                let wanting = sets.filter(|set| selects(&set["spec"]["selector"], labels(pod)));
                queue.extend(wanting.map(|set| Key::of(&set)));
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

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<(), Refused> {
        let Some(set) = self.cache.get(&REPLICA_SETS, &key.namespace, &key.name) else { return Ok(()) };
        let managed = if is_terminating(&set) { Ok(()) } else { self.manage(&set).await };
        let told = self.tell(&set, managed.as_ref().err()).await;
        managed.and(told)
    }

    async fn active(&self, set: &Value) -> Result<Vec<Arc<Value>>, Refused> {
        let (client, owner) = (&self.pods.client, (&REPLICA_SETS, set));
        let mut pods = claim(client, &self.cache, owner, &PODS, &set["spec"]["selector"], is_active).await?;
        pods.retain(|pod| is_active(pod));
        Ok(pods)
    }

    async fn manage(&self, set: &Value) -> Result<(), Refused> {
        let pods = self.active(set).await?;
        let wanted = replicas(set);
        for _ in pods.len()..wanted.min(pods.len() + BURST) {
            let pod = from_template(&REPLICA_SETS, set, &set["spec"]["template"]);
            match self.pods.create(&REPLICA_SETS, set, &pod).await {
                Err(refused) if refused.is_namespace_terminating() => return Ok(()),
                other => other.map(drop)?,
            }
        }
        if pods.len() > wanted {
            let surplus = (pods.len() - wanted).min(BURST);
            let related = self.related(set);
            for pod in rank::first_to_go(&pods, &related, surplus, self.clock.now()) {
                self.pods.delete(&REPLICA_SETS, set, &pod).await?;
            }
        }
        Ok(())
    }

    /// Active pods of all sets of the same owner: of those on one node, some go before the last one of another node.
    fn related(&self, set: &Value) -> Vec<Arc<Value>> {
        let owner = controller_of(set).map(|owner| owner["uid"].clone());
        let sets = self.cache.list(&REPLICA_SETS, namespace(set)).into_iter();
        let mates = sets.filter(|other| {
            name(other) == name(set) || (owner.is_some() && controller_of(other).map(|o| o["uid"].clone()) == owner)
        });
        let dependents = mates.flat_map(|mate| self.cache.dependents(super::object::uid(&mate)));
        dependents.filter(|(kind, pod)| *kind == PODS && is_active(pod)).map(|(_, pod)| pod).collect()
    }

    async fn tell(&self, set: &Value, failure: Option<&Refused>) -> Result<(), Refused> {
        let pods = self.active(set).await?;
        let (minimum, now) = (min_ready(set), self.clock.now());
        let status = status(set, &pods, failure, &seconds(now), |pod| {
            until_available(pod, minimum, now) == Some(Duration::ZERO)
        });
        let soon = pods.iter().filter_map(|pod| until_available(pod, minimum, now)).filter(|wait| !wait.is_zero());
        if let Some(wait) = soon.min() {
            self.queue.add_after(Key::of(set), wait);
        }
        let Some(current) = self.cache.get(&REPLICA_SETS, namespace(set), name(set)) else { return Ok(()) };
        if same(&current["status"], &status) {
            return Ok(());
        }
        let mut wanted = Value::clone(&current);
        wanted["status"] = status;
        self.pods.client.update(&REPLICA_SETS, "status", &wanted).await.map(drop)
    }
}

fn replicas(set: &Value) -> usize {
    set["spec"]["replicas"].as_u64().unwrap_or(1) as usize
}

const COUNTS: [&str; 3] = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

fn same(one: &Value, other: &Value) -> bool {
    let number_at = |value: &Value, name: &str| number(value, &format!("/{name}"));
    let numbers = |name: &&str| number_at(one, name) == number_at(other, name);
    COUNTS.iter().chain(&["replicas", "observedGeneration"]).all(numbers)
        && list(one, "/conditions") == list(other, "/conditions")
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
    let mut status = set["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    status["replicas"] = json!(pods.len());
    status["observedGeneration"] = json!(generation(set));
    let conditions = failures(set, pods.len(), failure, now);
    let Some(fields) = status.as_object_mut() else { return status };
    for (name, count) in COUNTS.iter().zip(counts) {
        match count {
            0 => fields.remove(*name),
            count => fields.insert((*name).into(), json!(count)),
        };
    }
    match conditions.is_empty() {
        true => fields.remove("conditions"),
        false => fields.insert("conditions".into(), json!(conditions)),
    };
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
