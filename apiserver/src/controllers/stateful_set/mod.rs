//! StatefulSets: pods with names and claims of their own, made and replaced one after the other.

mod claims;
mod identity;
mod plan;
mod status;

use std::sync::Arc;

use serde_json::Value;

use super::cache::{Change, Key};
use super::client::{DeleteOptions, PatchType, Refused};
use super::context::{Context, Controller, Tools};
use super::history::{History, template};
use super::kind::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use super::object::{is_terminating, label, name, namespace, text};
use super::pods::{min_ready, owners};
use super::selection;
use identity::HASH;
use plan::{Pods, Step, View};

/// Label of a revision: the hash of its template.
const REVISION_HASH: &str = "controller.kubernetes.io/hash";

pub(super) fn start(context: &mut Context) {
    context.run(
        selection::Controller::StatefulSet,
        StatefulSets(context.tools("statefulset-controller", "statefulset-controller")),
    );
}

struct StatefulSets(Tools<Key>);

/// The revision that pods had, and the one that they shall have.
struct Pair {
    current: Arc<Value>,
    update: Arc<Value>,
}

impl Controller for StatefulSets {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.0
    }

    fn note(&self, change: &Change) {
        if change.is(&STATEFUL_SETS) {
            self.0.queue.add(Key::of(change.object()));
        } else if change.is(&PODS) || change.is(&CONTROLLER_REVISIONS) {
            self.0.queue.extend(owners(&self.0.cache, &STATEFUL_SETS, change));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let Some(set) = self.0.cache.get(&STATEFUL_SETS, &key.namespace, &key.name) else { return Ok(()) };
        if is_terminating(&set) {
            return Ok(());
        }
        let history = History { tools: &self.0, kind: &STATEFUL_SETS, set: &set, hash_label: REVISION_HASH };
        let found = history.newest_and_old().await?;
        let before = text(&set, "/status/currentRevision");
        let known = found.old.iter().find(|revision| name(revision) == before);
        let revisions = Pair { current: Arc::clone(known.unwrap_or(&found.newest)), update: found.newest };
        let done = self.manage(&set, &revisions).await;
        let pods = self.pods(&set).await?;
        if done.is_ok() {
            let in_use = |revision: &Value| {
                name(revision) == name(&revisions.current)
                    || pods.all().any(|pod| label(pod, HASH) == Some(name(revision)))
            };
            history.forget_old(&found.old, in_use).await?;
        }
        let told = self.tell(&set, &revisions, &pods).await;
        done.and(told)
    }
}

impl StatefulSets {
    fn view(&self, set: &Value, revisions: &Pair) -> View {
        let owned = |revision: &Value| name(revision).to_owned();
        let (current, update) = (owned(&revisions.current), owned(&revisions.update));
        View { current, update, minimum: min_ready(set), now: self.0.clock.now() }
    }

    /// The set's pods; others that the selector selects are not adopted unless they have a name that the set gives.
    async fn pods(&self, set: &Value) -> Result<Pods, Refused> {
        let adoptable = |pod: &Value| identity::ordinal(set, pod).is_some();
        let pods = self.0.claim((&STATEFUL_SETS, set), &PODS, adoptable).await?;
        Ok(Pods::sorted(set, pods))
    }

    async fn manage(&self, set: &Value, revisions: &Pair) -> Result<(), Refused> {
        let pods = self.pods(set).await?;
        for pod in pods.all() {
            self.keep_claims(set, pod, pods.is_surplus(pod)).await?;
        }
        for step in plan::steps(set, &pods, &self.view(set, revisions)) {
            match step {
                Step::Create { ordinal, updated } => {
                    let revision = if updated { &revisions.update } else { &revisions.current };
                    let pod = identity::pod(set, ordinal, name(revision), &template(revision));
                    match self.create(set, &pod).await {
                        Err(refused) if refused.is_namespace_terminating() => return Ok(()),
                        other => other?,
                    }
                }
                Step::Identify(pod) => {
                    let patch = identity::marks(set, &pod);
                    self.0.client.patch(&PODS, &pod, "", PatchType::Merge, &patch).await?;
                }
                Step::Delete(pod) => self.delete(set, &pod).await?,
            }
        }
        Ok(())
    }

    async fn create(&self, set: &Value, pod: &Value) -> Result<(), Refused> {
        for wanted in claims::of(set, pod) {
            if self.0.cache.get(&PERSISTENT_VOLUME_CLAIMS, namespace(set), name(&wanted)).is_none() {
                let what = format!("Claim {} Pod {} in StatefulSet {}", name(&wanted), name(pod), name(set));
                match self.0.client.create(&PERSISTENT_VOLUME_CLAIMS, &wanted).await {
                    Err(refused) if refused.is_already_exists() => {}
                    made => self.say(set, "create", &what, "success", made.map(drop))?,
                }
            }
        }
        let made = self.0.client.create(&PODS, pod).await;
        let what = format!("Pod {} in StatefulSet {}", name(pod), name(set));
        let pod = made.as_ref().ok().cloned();
        self.say(set, "create", &what, "successful", made.map(drop))?;
        match pod {
            Some(pod) => self.keep_claims(set, &pod, false).await,
            None => Ok(()),
        }
    }

    async fn delete(&self, set: &Value, pod: &Value) -> Result<(), Refused> {
        let what = format!("Pod {} in StatefulSet {}", name(pod), name(set));
        let gone = self.0.client.delete(&PODS, pod, &DeleteOptions::default()).await;
        self.say(set, "delete", &what, "successful", gone)
    }

    /// Says in an event how something went.
    fn say(
        &self,
        set: &Value,
        verb: &str,
        what: &str,
        success: &str,
        outcome: Result<(), Refused>,
    ) -> Result<(), Refused> {
        let (type_, reason, message) = match (&outcome, verb) {
            (Ok(()), "create") => ("Normal", "SuccessfulCreate", format!("{verb} {what} {success}")),
            (Ok(()), _) => ("Normal", "SuccessfulDelete", format!("{verb} {what} {success}")),
            (Err(refused), _) if refused.is_namespace_terminating() => return outcome,
            (Err(refused), "create") => ("Warning", "FailedCreate", format!("{verb} {what} failed error: {refused}")),
            (Err(refused), _) => ("Warning", "FailedDelete", format!("{verb} {what} failed error: {refused}")),
        };
        self.0.recorder.say(&STATEFUL_SETS, set, type_, reason, message);
        outcome
    }

    /// Lets claims of a pod go with the set or with the pod, as the set wants it.
    async fn keep_claims(&self, set: &Value, pod: &Value, surplus: bool) -> Result<(), Refused> {
        for wanted in claims::of(set, pod) {
            let Some(found) = self.0.cache.get(&PERSISTENT_VOLUME_CLAIMS, namespace(set), name(&wanted)) else {
                continue;
            };
            if let Some(kept) = claims::kept(set, pod, surplus, &found) {
                match self.0.client.update(&PERSISTENT_VOLUME_CLAIMS, "", &kept).await {
                    Err(refused) if !refused.is_not_found() => return Err(refused),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn tell(&self, set: &Value, revisions: &Pair, pods: &Pods) -> Result<(), Refused> {
        let view = self.view(set, revisions);
        if let Some(wait) = pods.next_look(&view) {
            self.0.queue.add_after(Key::of(set), wait);
        }
        let Some(current) = self.0.cache.get(&STATEFUL_SETS, namespace(set), name(set)) else { return Ok(()) };
        let status = status::status(set, pods, &view);
        if status::same(&current["status"], &status) {
            return Ok(());
        }
        let mut wanted = Value::clone(&current);
        wanted["status"] = status;
        self.0.client.update(&STATEFUL_SETS, "status", &wanted).await.map(drop)
    }
}
