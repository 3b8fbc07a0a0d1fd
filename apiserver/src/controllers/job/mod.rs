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

use super::Context;
use super::cache::{Cache, Change, Key};
use super::client::{Client, DeleteOptions, PatchType, Refused};
use super::kind::{JOBS, PODS};
use super::object::{controller_of, is_terminating, namespace, revision, text, uid};
use super::pods::{PodControl, claim, owner_of};
use super::queue::Queue;
use crate::clock::Clock;
use plan::Plan;
use pods::{is_tracked, untracked};
use tally::Tally;

/// Who runs a Job that does not say it.
const MANAGER: &str = "kubernetes.io/job-controller";

/// What happens to pods within this time makes one write of the status, as the real controller has it.
const BATCH: Duration = Duration::from_secs(1);

pub(super) fn start(context: &mut Context) {
    let queue = Queue::new();
    context.subscribe(&queue, note);
    let client = context.client("job-controller");
    let recorder = context.recorder("job-controller", &client);
    let controller = Arc::new(Controller {
        pods: PodControl { client, recorder },
        janitor: context.client("ttl-after-finished-controller"),
        cache: Arc::clone(&context.cache),
        clock: Arc::clone(&context.clock),
        queue: Arc::clone(&queue),
    });
    context.work("job", &queue, move |key: Key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

fn note(cache: &Cache, queue: &Queue<Key>, change: &Change) {
    if change.is(&JOBS) {
        queue.add(Key::of(change.object()));
    } else if change.is(&PODS) {
        for pod in change.both() {
            match owner_of(cache, &JOBS, pod) {
                Some(job) => queue.add_after(Key::of(&job), BATCH),
                // Its Job is gone, and nobody counts it any more.
                None if is_tracked(pod) => {
                    let owner = controller_of(pod).map(|owner| text(owner, "/name")).unwrap_or_default();
                    queue.add(Key::new(namespace(pod), owner));
                }
                None => {}
            }
        }
    }
}

struct Controller {
    pods: PodControl,
    /// Deletes Jobs whose time is over.
    janitor: Client,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    queue: Arc<Queue<Key>>,
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<(), Refused> {
        let Some(job) = self.cache.get(&JOBS, &key.namespace, &key.name) else {
            return self.release_orphans(key).await;
        };
        if job["spec"]["managedBy"].as_str().is_some_and(|manager| manager != MANAGER) {
            return Ok(());
        }
        let client = &self.pods.client;
        let pods = claim(client, &self.cache, (&JOBS, &job), &PODS, &job["spec"]["selector"], |_| true).await?;
        if is_terminating(&job) || status::is_finished(&job) {
            for pod in pods.iter().filter(|pod| is_tracked(pod)) {
                self.release(pod).await?;
            }
            return self.remove_in_time(&job).await;
        }
        if let Some(field) = plan::unknown(&job) {
            let message = format!("spec.{field} is not known here: only a real control plane runs such a Job");
            self.pods.recorder.say(&JOBS, &job, "Warning", "Unsupported", message);
            return Ok(());
        }
        self.run(&job, pods).await
    }

    async fn run(&self, job: &Value, pods: Vec<Arc<Value>>) -> Result<(), Refused> {
        let now = self.clock.now();
        let tally = Tally::of(job, &pods);
        let plan = Plan::of(job, &pods, &tally, now);
        if let Some(wait) = plan.look_again {
            self.queue.add_after(Key::of(job), wait);
        }
        for (type_, reason, message) in &plan.notes {
            self.pods.recorder.say(&JOBS, job, type_, reason, message.clone());
        }
        for pod in &plan.drop {
            // It does not count as failed.
            self.release(pod).await?;
            self.pods.delete(&JOBS, job, pod).await?;
        }
        for pod in &plan.end {
            self.pods.delete(&JOBS, job, pod).await?;
        }
        let mut made = 0;
        for index in &plan.create {
            let pod = pods::pod(job, *index);
            match self.pods.create(&JOBS, job, &pod).await {
                Err(refused) if refused.is_namespace_terminating() => return Ok(()),
                other => other.map(drop)?,
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
            self.pods.recorder.say(&JOBS, job, type_, reason, message);
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
        self.pods.client.update(&JOBS, "status", &wanted).await
    }

    /// The pod's end is known.
    async fn release(&self, pod: &Value) -> Result<(), Refused> {
        if !is_tracked(pod) {
            return Ok(());
        }
        match self.pods.client.patch(&PODS, pod, "", PatchType::Strategic, &untracked(pod)).await {
            Err(refused) if !refused.is_not_found() => Err(refused),
            _ => Ok(()),
        }
    }

    async fn release_orphans(&self, key: &Key) -> Result<(), Refused> {
        for pod in self.cache.list(&PODS, &key.namespace) {
            let orphan = controller_of(&pod).is_some_and(|owner| owner["kind"] == "Job" && owner["name"] == *key.name);
            if orphan && owner_of(&self.cache, &JOBS, &pod).is_none() {
                self.release(&pod).await?;
            }
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
        let wait = remaining(since, Duration::from_secs(keep), self.clock.now());
        if !wait.is_zero() {
            self.queue.add_after(Key::of(job), wait);
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
