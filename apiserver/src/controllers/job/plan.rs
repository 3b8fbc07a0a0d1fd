//! What is to be done next about a Job: a pure function of what is there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::backoff;
use super::pods::{index, is_indexed};
use super::remaining;
use super::tally::Tally;
use crate::clock::seconds;
use crate::controllers::object::{condition, condition_status, is_terminating, list, number, text};
use crate::controllers::pods::{is_active, is_finished, is_ready};

/// Most pods that are made or deleted at once.
const BURST: usize = 500;

/// The next steps.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Pods to make, by index if the Job is indexed.
    pub(super) create: Vec<Option<u64>>,
    /// Pods that are too many; they do not count.
    pub(super) drop: Vec<Arc<Value>>,
    /// Pods of a Job that ends; they count as failed.
    pub(super) end: Vec<Arc<Value>>,
    /// Pods that run and go on to do so.
    pub(super) active: usize,
    pub(super) ready: usize,
    /// Pods that are on their way out.
    pub(super) terminating: usize,
    /// The conditions of the status.
    pub(super) conditions: Vec<Value>,
    /// Whether the Job ends.
    pub(super) ends: bool,
    /// When the Job began, or began again.
    pub(super) start: Option<String>,
    /// Events: type, reason, message.
    pub(super) notes: Vec<(&'static str, &'static str, String)>,
    /// When there is something to do without a change.
    pub(super) look_again: Option<Duration>,
}

/// A field of the Job that asks for what this controller does not do.
pub(super) fn unknown(job: &Value) -> Option<&'static str> {
    let fields = ["podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "maxFailedIndexes"];
    fields.into_iter().find(|field| !job["spec"][*field].is_null())
}

/// A condition that has just become so.
pub(super) fn became(type_: &str, status: &str, reason: &str, message: &str, now: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message,
        "lastProbeTime": now, "lastTransitionTime": now})
}

impl Plan {
    pub(super) fn of(job: &Value, pods: &[Arc<Value>], tally: &Tally, now: Timestamp) -> Self {
        let active: Vec<&Arc<Value>> = pods.iter().filter(|pod| is_active(pod)).collect();
        let mut plan = Self {
            active: active.len(),
            ready: active.iter().filter(|pod| is_ready(pod)).count(),
            terminating: pods.iter().filter(|pod| is_terminating(pod) && !is_finished(pod)).count(),
            conditions: list(job, "/status/conditions").to_vec(),
            ..Self::default()
        };
        let started = text(job, "/status/startTime");
        let suspended = job["spec"]["suspend"] == true;
        if started.is_empty() && !suspended {
            plan.start = Some(seconds(now));
        }
        if let Some(verdict) = verdict(job, &active, tally, now) {
            if condition(job, text(&verdict, "/type")).is_none() {
                plan.conditions.push(verdict);
            }
            plan.ends = true;
            plan.end = active.into_iter().cloned().collect();
        } else if suspended {
            plan.suspend(job, &active, now);
        } else {
            plan.resume(job, now);
            plan.balance(job, pods, &active, tally, now);
            let started = plan.start.as_deref().unwrap_or(started).parse::<Timestamp>();
            if let (Some(span), Ok(started)) = (job["spec"]["activeDeadlineSeconds"].as_u64(), started) {
                plan.wait(remaining(started, Duration::from_secs(span), now));
            }
        }
        plan.active = plan.active + plan.create.len() - plan.drop.len() - plan.end.len();
        plan.terminating += plan.drop.len() + plan.end.len();
        let gone = |pod: &&Arc<Value>| is_ready(pod);
        plan.ready -= plan.drop.iter().filter(gone).count() + plan.end.iter().filter(gone).count();
        plan
    }

    fn wait(&mut self, wait: Duration) {
        self.look_again = Some(self.look_again.map_or(wait, |sooner| sooner.min(wait)));
    }

    fn set(&mut self, condition: Value) {
        let known = self.conditions.iter_mut().find(|known| known["type"] == condition["type"]);
        match known {
            Some(known) => *known = condition,
            None => self.conditions.push(condition),
        }
    }

    fn suspend(&mut self, job: &Value, active: &[&Arc<Value>], now: Timestamp) {
        if condition_status(job, "Suspended") != "True" {
            let message = "Job suspended";
            self.set(became("Suspended", "True", "JobSuspended", message, &seconds(now)));
            self.notes.push(("Normal", "Suspended", message.into()));
        }
        self.drop = active.iter().take(BURST).map(|pod| Arc::clone(pod)).collect();
    }

    fn resume(&mut self, job: &Value, now: Timestamp) {
        if condition_status(job, "Suspended") == "True" {
            let message = "Job resumed";
            self.set(became("Suspended", "False", "JobResumed", message, &seconds(now)));
            self.notes.push(("Normal", "Resumed", message.into()));
            self.start = Some(seconds(now));
        }
    }

    /// Makes as many pods run as are wanted.
    fn balance(&mut self, job: &Value, pods: &[Arc<Value>], active: &[&Arc<Value>], tally: &Tally, now: Timestamp) {
        let parallel = number(job, "/spec/parallelism").unsigned_abs() as usize;
        let wanted = match job["spec"]["completions"].as_u64() {
            Some(completions) => parallel.min(completions.saturating_sub(tally.successes()) as usize),
            None if tally.successes() > 0 => active.len(),
            None => parallel,
        };
        if active.len() > wanted {
            let mut surplus: Vec<&Arc<Value>> = active.to_vec();
            surplus.sort_by_key(|pod| (is_ready(pod), text(pod, "/metadata/creationTimestamp").to_owned()));
            self.drop = surplus.into_iter().take((active.len() - wanted).min(BURST)).cloned().collect();
            return;
        }
        // Where only what has failed is replaced, pods that are on their way out have a place still.
        let leaving = if job["spec"]["podReplacementPolicy"] == "Failed" { self.terminating } else { 0 };
        let missing = wanted.saturating_sub(active.len() + leaving).min(BURST);
        if missing == 0 {
            return;
        }
        let wait = backoff::left(job, pods, now);
        if !wait.is_zero() {
            return self.wait(wait);
        }
        self.create = match is_indexed(job) {
            false => vec![None; missing],
            true => {
                let taken: BTreeSet<u64> = active.iter().filter_map(|pod| index(pod)).collect();
                let completions = number(job, "/spec/completions").unsigned_abs();
                let free = (0..completions).filter(|i| !taken.contains(i) && !tally.indexes.contains(i));
                free.take(missing).map(Some).collect()
            }
        };
    }
}

/// Why the Job ends, if it does: the condition that says so before its last pods are gone.
fn verdict(job: &Value, active: &[&Arc<Value>], tally: &Tally, now: Timestamp) -> Option<Value> {
    for known in ["FailureTarget", "SuccessCriteriaMet"] {
        if condition_status(job, known) == "True" {
            return condition(job, known).cloned();
        }
    }
    let failed = |reason: &str, message: &str| Some(became("FailureTarget", "True", reason, message, &seconds(now)));
    if past_limit(job, active, tally) {
        return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    let (span, started) = (job["spec"]["activeDeadlineSeconds"].as_u64(), text(job, "/status/startTime").parse());
    if let (Some(span), Ok(started)) = (span, started)
        && job["spec"]["suspend"] != true
        && remaining(started, Duration::from_secs(span), now).is_zero()
    {
        return failed("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    let complete = match job["spec"]["completions"].as_u64() {
        Some(completions) => tally.successes() >= completions,
        None => tally.successes() > 0 && active.is_empty(),
    };
    let message = "Reached expected number of succeeded pods";
    complete.then(|| became("SuccessCriteriaMet", "True", "CompletionsReached", message, &seconds(now)))
}

/// Whether too many pods have failed, or containers been started again.
fn past_limit(job: &Value, active: &[&Arc<Value>], tally: &Tally) -> bool {
    let limit = number(job, "/spec/backoffLimit").unsigned_abs();
    if tally.failures() > limit {
        return true;
    }
    if job["spec"]["template"]["spec"]["restartPolicy"] != "OnFailure" {
        return false;
    }
    let restarts = |pod: &Value| {
        let statuses = ["initContainerStatuses", "containerStatuses"].map(|name| list(pod, &format!("/status/{name}")));
        statuses.concat().iter().map(|status| number(status, "/restartCount").unsigned_abs()).sum::<u64>()
    };
    let all: u64 = active.iter().map(|pod| restarts(pod)).sum();
    if limit == 0 { all > 0 } else { all >= limit }
}
