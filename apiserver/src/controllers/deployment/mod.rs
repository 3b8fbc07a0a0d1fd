//! Deployments: a set for each template, and the way from the old ones to the new one.

mod math;
mod revision;
mod status;

use std::sync::Arc;

use serde_json::{Value, json};

use super::cache::{Change, Key};
use super::client::{DeleteOptions, Refused};
use super::context::{Context, Controller, Tools};
use super::kind::{DEPLOYMENTS, PODS, REPLICA_SETS};
use super::object::{annotation, generation, is_terminating, name, number, set_entry, uid};
use super::pods::{is_finished, owner_of, owners};
use super::selection;
use crate::clock::seconds;
use math::{DESIRED, MOST, by_age, max_surge, replicas, total};

pub(super) fn start(context: &mut Context) {
    context.run(
        selection::Controller::Deployment,
        Deployments(context.tools("deployment-controller", "deployment-controller")),
    );
}

struct Deployments(Tools<Key>);

impl Controller for Deployments {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.0
    }

    fn note(&self, change: &Change) {
        let Tools { cache, queue, .. } = &self.0;
        if change.is(&DEPLOYMENTS) {
            queue.add(Key::of(change.object()));
        } else if change.is(&REPLICA_SETS) {
            queue.extend(owners(cache, &DEPLOYMENTS, change));
        } else if change.is(&PODS) && (change.after.is_none() || is_finished(change.object())) {
            // One that recreates its pods waits for the last old one to end.
            let set = owner_of(cache, &REPLICA_SETS, change.object());
            let owner = set.and_then(|set| owner_of(cache, &DEPLOYMENTS, &set));
            queue.extend(owner.filter(|owner| !math::is_rolling(owner)).map(|owner| Key::of(&owner)));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let Some(deployment) = self.0.cache.get(&DEPLOYMENTS, &key.namespace, &key.name) else { return Ok(()) };
        let own = self.0.claim((&DEPLOYMENTS, &deployment), &REPLICA_SETS, |_| true).await?;
        Rollout { tools: &self.0, deployment: Value::clone(&deployment) }.run(own).await
    }
}

/// The sets of one Deployment.
struct Sets {
    new: Option<Arc<Value>>,
    old: Vec<Arc<Value>>,
}

impl Sets {
    fn all(&self) -> Vec<Arc<Value>> {
        self.old.iter().chain(&self.new).cloned().collect()
    }

    /// Takes the newer form of a set.
    fn replace(&mut self, set: Arc<Value>) {
        let new = self.new.iter_mut();
        if let Some(own) = self.old.iter_mut().chain(new).find(|own| uid(own) == uid(&set)) {
            *own = set;
        }
    }
}

/// One look at one Deployment, which changes on the way as its status is written.
struct Rollout<'a> {
    tools: &'a Tools<Key>,
    deployment: Value,
}

impl Rollout<'_> {
    async fn run(&mut self, own: Vec<Arc<Value>>) -> Result<(), Refused> {
        if is_terminating(&self.deployment) {
            let sets = revision::split(&self.deployment, own);
            return self.tell_counts(&sets).await;
        }
        self.check_paused().await?;
        let paused = self.deployment["spec"]["paused"] == true;
        if paused || self.was_scaled(&own) {
            let mut sets = self.sync_revision(own, false).await?;
            self.scale_all(&mut sets).await?;
            if paused {
                self.clean_up(&sets).await?;
            }
            return self.tell_counts(&sets).await;
        }
        if math::is_rolling(&self.deployment) { self.roll(own).await } else { self.recreate(own).await }
    }

    /// Whether a set in use was made for another number of replicas.
    fn was_scaled(&self, own: &[Arc<Value>]) -> bool {
        let wanted = replicas(&self.deployment);
        own.iter()
            .filter(|set| replicas(set) > 0)
            .any(|set| annotation(set, DESIRED).and_then(|n| n.parse::<i64>().ok()).is_some_and(|n| n != wanted))
    }

    /// Step by step: the new set grows as far as there is room, then the old ones shrink.
    async fn roll(&mut self, own: Vec<Arc<Value>>) -> Result<(), Refused> {
        let mut sets = self.sync_revision(own, true).await?;
        let Some(new) = sets.new.clone() else { return Ok(()) };
        let wanted = replicas(&self.deployment);
        let size = match replicas(&new) {
            own if own > wanted => wanted,
            own => math::new_replicas(&self.deployment, total(&sets.all()), own),
        };
        if size != replicas(&new) {
            self.scale(&mut sets, &new, size).await?;
            return self.tell_progress(&sets).await;
        }
        let fewer = math::old_replicas(&self.deployment, &new, &sets.old);
        if !fewer.is_empty() {
            for (set, size) in fewer {
                self.scale(&mut sets, &set, size).await?;
            }
            return self.tell_progress(&sets).await;
        }
        if status::is_complete(&self.deployment, &self.deployment["status"]) {
            self.clean_up(&sets).await?;
        }
        self.tell_progress(&sets).await
    }

    /// All old pods end before the first new one begins.
    async fn recreate(&mut self, own: Vec<Arc<Value>>) -> Result<(), Refused> {
        let mut sets = self.sync_revision(own, false).await?;
        let active: Vec<Arc<Value>> = sets.old.iter().filter(|set| replicas(set) > 0).cloned().collect();
        if !active.is_empty() {
            for set in active {
                self.scale(&mut sets, &set, 0).await?;
            }
            return self.tell_progress(&sets).await;
        }
        if self.old_pods_run(&sets) {
            return self.tell_progress(&sets).await;
        }
        if sets.new.is_none() {
            sets = self.sync_revision(sets.all(), true).await?;
        }
        if let Some(new) = sets.new.clone() {
            self.scale(&mut sets, &new, replicas(&self.deployment)).await?;
        }
        if status::is_complete(&self.deployment, &self.deployment["status"]) {
            self.clean_up(&sets).await?;
        }
        self.tell_progress(&sets).await
    }

    fn old_pods_run(&self, sets: &Sets) -> bool {
        let cache = &self.tools.cache;
        let pods = sets.old.iter().flat_map(|set| cache.dependents(uid(set)));
        pods.into_iter().any(|(kind, pod)| kind == PODS && !is_finished(&pod))
    }

    /// Brings the numbers of all sets to that of the Deployment, without a change of template.
    async fn scale_all(&mut self, sets: &mut Sets) -> Result<(), Refused> {
        let wanted = replicas(&self.deployment);
        let active: Vec<Arc<Value>> = sets.all().into_iter().filter(|set| replicas(set) > 0).collect();
        if active.len() <= 1 {
            let newest = || {
                let mut old = sets.old.clone();
                by_age(&mut old);
                old.pop()
            };
            if let Some(only) = active.into_iter().next().or_else(|| sets.new.clone()).or_else(newest)
                && replicas(&only) != wanted
            {
                self.scale(sets, &only, wanted).await?;
            }
            return Ok(());
        }
        if let Some(new) = &sets.new
            && status::is_saturated(&self.deployment, new)
        {
            for set in sets.old.clone().iter().filter(|set| replicas(set) > 0) {
                self.scale(sets, set, 0).await?;
            }
            return Ok(());
        }
        if math::is_rolling(&self.deployment) {
            for (set, size) in math::proportional(&self.deployment, &sets.all()) {
                self.scale(sets, &set, size).await?;
            }
        }
        Ok(())
    }

    /// Gives a set its number, and notes beside it for what number of the Deployment that was.
    async fn scale(&self, sets: &mut Sets, set: &Arc<Value>, size: i64) -> Result<(), Refused> {
        let (old, wanted) = (replicas(set), replicas(&self.deployment));
        let most = wanted + max_surge(&self.deployment);
        let mut scaled = Value::clone(set);
        scaled["spec"]["replicas"] = json!(size);
        set_entry(&mut scaled, "annotations", DESIRED, &wanted.to_string());
        set_entry(&mut scaled, "annotations", MOST, &most.to_string());
        if scaled == **set {
            return Ok(());
        }
        let scaled = self.tools.client.update(&REPLICA_SETS, "", &scaled).await?;
        if size != old {
            self.say_scaled(name(set), old, size);
        }
        sets.replace(scaled);
        Ok(())
    }

    fn say_scaled(&self, set: &str, from: i64, to: i64) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.tools.recorder.say(&DEPLOYMENTS, &self.deployment, "Normal", "ScalingReplicaSet", message);
    }

    /// Deletes the oldest sets without pods, beyond the limit.
    async fn clean_up(&self, sets: &Sets) -> Result<(), Refused> {
        let Some(keep) = self.deployment["spec"]["revisionHistoryLimit"].as_u64() else { return Ok(()) };
        let mut old: Vec<&Arc<Value>> = sets.old.iter().filter(|set| !is_terminating(set)).collect();
        old.sort_by_key(|set| revision::number_of(set));
        let surplus = old.len().saturating_sub(keep as usize);
        for set in &old[..surplus] {
            let settled = generation(set) <= number(set, "/status/observedGeneration");
            if settled && replicas(set) == 0 && number(set, "/status/replicas") == 0 {
                self.tools.client.delete(&REPLICA_SETS, set, &DeleteOptions::default()).await?;
            }
        }
        Ok(())
    }

    fn now(&self) -> String {
        seconds(self.tools.clock.now())
    }

    /// Writes the Deployment with its present status and annotations; goes on with what the server answers.
    async fn write(&mut self) -> Result<(), Refused> {
        let written = self.tools.client.update(&DEPLOYMENTS, "status", &self.deployment).await?;
        self.deployment = Value::clone(&written);
        Ok(())
    }
}
