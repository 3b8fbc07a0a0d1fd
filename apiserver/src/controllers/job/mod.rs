//! Jobs: pods that shall succeed so and so often, each of them counted once.
//!
//! A pod carries a finalizer until its end is in the status of its Job: first its uid is written there, then the finalizer
//! is removed, then the uid becomes a count. So no end is lost or counted twice, wherever the controller is interrupted.

mod backoff;
mod plan;
mod pods;
mod status;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::cache::{Change, Key};
use super::client::{Client, DeleteOptions, PatchType, Refused};
use super::context::{Context, Controller, Tools};
use super::kind::{JOBS, PODS};
use super::object::{is_terminating, namespace, revision, uid};
use super::pods::owner_of;
use super::selection;
use plan::Plan;
use pods::{is_tracked, untracked};
use tally::Tally;

/// Who runs a Job that does not say it.
const MANAGER: &str = "kubernetes.io/job-controller";

/// What happens to pods within this time makes one write of the status, as the real controller has it.
const BATCH: Duration = Duration::from_secs(1);

pub(super) fn start(context: &mut Context) {
    let janitor: Tools<Key> = context.tools("ttl-after-finished-controller", "ttl-after-finished-controller");
    let tools = context.tools("job-controller", "job-controller");
    context.run(selection::Controller::Job, Jobs { tools, janitor: janitor.client });
}

struct Jobs {
    tools: Tools<Key>,
    /// Deletes Jobs whose time is over.
    janitor: Client,
}

impl Controller for Jobs {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.tools
    }

    fn note(&self, change: &Change) {
        let Tools { cache, queue, .. } = &self.tools;
        if change.is(&JOBS) {
            queue.add(Key::of(change.object()));
        } else if change.is(&PODS) {
            for pod in change.both() {
                match owner_of(cache, &JOBS, pod) {
                    Some(job) => queue.add_after(Key::of(&job), BATCH),
                    // Its Job is gone, or was never there.
                    None if is_tracked(pod) => queue.add(Key::new(namespace(pod), "")),
                    None => {}
                }
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let Some(job) = self.tools.cache.get(&JOBS, &key.namespace, &key.name) else {
            return self.release_orphans(&key.namespace).await;
        };
        if job["spec"]["managedBy"].as_str().is_some_and(|manager| manager != MANAGER) {
            return Ok(());
        }
        let pods = self.tools.claim((&JOBS, &job), &PODS, |_| true).await?;
        if is_terminating(&job) || status::is_finished(&job) {
            for pod in pods.iter().filter(|pod| is_tracked(pod)) {
                self.release(pod).await?;
            }
            return self.remove_in_time(&job).await;
        }
        if let Some(field) = plan::unknown(&job) {
            let message = format!("spec.{field} is not known here: only a real control plane runs such a Job");
            self.tools.recorder.say(&JOBS, &job, "Warning", "Unsupported", message);
            return Ok(());
        }
        self.run(&job, pods).await
    }
}

impl Jobs {
    async fn run(&self, job: &Value, pods: Vec<Arc<Value>>) -> Result<(), Refused> {
        let now = self.tools.clock.now();
        let tally = Tally::of(job, &pods);
        let plan = Plan::of(job, &pods, &tally, now);
        if let Some(wait) = plan.look_again {
            self.tools.queue.add_after(Key::of(job), wait);
        }
        for (type_, reason, message) in &plan.notes {
            self.tools.recorder.say(&JOBS, job, type_, reason, message.clone());
        }
        for pod in &plan.drop {
            // It does not count as failed.
            self.release(pod).await?;
            self.tools.delete_pod(&JOBS, job, pod).await?;
        }
        for pod in &plan.end {
            self.tools.delete_pod(&JOBS, job, pod).await?;
        }
        let mut made = 0;
        for index in &plan.create {
            let pod = pods::pod(job, *index);
            if !self.tools.create_pod(&JOBS, job, &pod).await? {
                return Ok(());
            }
            made += 1;
        }
        let fresh = status::Fresh { tally: &tally, plan: &plan, made };
        let before = self.tell(job, status::before_release(job, &fresh)).await?;
        for pod in &tally.ended {
            self.release(pod).await?;
        }
        let after = status::after_release(&before, &fresh, now);
        if let Some((type_, reason, message)) = status::last_words(&after).filter(|_| !status::is_finished(&before)) {
            self.tools.recorder.say(&JOBS, job, type_, reason, message);
        }
        self.tell(&before, after["status"].clone()).await.map(drop)
    }

    /// Writes a status, if it is another one.
    async fn tell(&self, job: &Value, status: Value) -> Result<Arc<Value>, Refused> {
        let mut wanted = job.clone();
        wanted["status"] = status;
        if wanted["status"] == job["status"] {
            return Ok(Arc::new(wanted));
        }
        self.tools.client.update(&JOBS, "status", &wanted).await
    }

    /// The pod's end is known.
    async fn release(&self, pod: &Value) -> Result<(), Refused> {
        if !is_tracked(pod) {
            return Ok(());
        }
        match self.tools.client.patch(&PODS, pod, "", PatchType::Strategic, &untracked(pod)).await {
            Err(refused) if !refused.is_not_found() => Err(refused),
            _ => Ok(()),
        }
    }

    /// Lets go of all pods of a namespace whose Job is gone, or that have been made orphans: nobody counts them any more.
    async fn release_orphans(&self, namespace: &str) -> Result<(), Refused> {
        let Tools { cache, .. } = &self.tools;
        for pod in cache.list(&PODS, namespace).iter().filter(|pod| owner_of(cache, &JOBS, pod).is_none()) {
            self.release(pod).await?;
        }
        Ok(())
    }

    /// Deletes a Job that has been finished for as long as it says.
    async fn remove_in_time(&self, job: &Value) -> Result<(), Refused> {
        let (Some(keep), Some(since)) = (job["spec"]["ttlSecondsAfterFinished"].as_u64(), status::finished_at(job))
        else {
            return Ok(());
        };
        if is_terminating(job) {
            return Ok(());
        }
        let wait = remaining(since, Duration::from_secs(keep), self.tools.clock.now());
        if !wait.is_zero() {
            self.tools.queue.add_after(Key::of(job), wait);
            return Ok(());
        }
        let (uid, revision) = (uid(job).to_owned(), revision(job).to_owned());
        self.janitor.delete(&JOBS, job, &DeleteOptions { policy: "Foreground", uid, revision, grace: None }).await
    }
}

/// What is left of a span that began at a moment.
fn remaining(since: Timestamp, span: Duration, now: Timestamp) -> Duration {
    span.saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default())
}
