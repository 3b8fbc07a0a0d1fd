//! What a Job says of itself.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Plan, became};
use super::tally::{Tally, print};
use crate::clock::seconds;
use crate::controllers::object::{condition, condition_status, text};

/// What has been found and done.
pub(super) struct Fresh<'a> {
    pub(super) tally: &'a Tally,
    pub(super) plan: &'a Plan,
    /// Pods that were made.
    pub(super) made: usize,
}

/// Conditions of a Job that is over.
const LAST: [&str; 2] = ["Complete", "Failed"];

/// Whether the Job is over.
pub(super) fn is_finished(job: &Value) -> bool {
    LAST.iter().any(|type_| condition_status(job, type_) == "True")
}

/// Since when it is over.
pub(super) fn finished_at(job: &Value) -> Option<Timestamp> {
    let last = LAST.iter().find_map(|type_| condition(job, type_).filter(|last| last["status"] == "True"))?;
    text(last, "/lastTransitionTime").parse().ok()
}

/// The event about a Job that is over.
pub(super) fn last_words(job: &Value) -> Option<(&'static str, &'static str, String)> {
    if condition_status(job, "Complete") == "True" {
        return Some(("Normal", "Completed", "Job completed".into()));
    }
    let failed = condition(job, "Failed").filter(|failed| failed["status"] == "True")?;
    let reason = match text(failed, "/reason") {
        "DeadlineExceeded" => "DeadlineExceeded",
        _ => "BackoffLimitExceeded",
    };
    Some(("Warning", reason, text(failed, "/message").to_owned()))
}

/// Sets a count that is left out where it is zero.
fn count(status: &mut Value, name: &str, value: u64) {
    let Some(fields) = status.as_object_mut() else { return };
    match value {
        0 => fields.remove(name),
        value => fields.insert(name.into(), json!(value)),
    };
}

/// The status while pods that have ended still have their finalizers.
pub(super) fn before_release(job: &Value, fresh: &Fresh) -> Value {
    let Fresh { tally, plan, made } = fresh;
    let mut status = job["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    if let Some(start) = &plan.start {
        status["startTime"] = json!(start);
    }
    if !plan.conditions.is_empty() {
        status["conditions"] = json!(plan.conditions);
    }
    count(&mut status, "active", (plan.active - plan.create.len() + made) as u64);
    status["ready"] = json!(plan.ready);
    status["terminating"] = json!(plan.terminating);
    status["uncountedTerminatedPods"] = tally.uncounted();
    count(&mut status, "failed", tally.failed);
    if tally.indexed {
        count(&mut status, "succeeded", tally.successes());
        if !tally.indexes.is_empty() {
            status["completedIndexes"] = json!(print(&tally.indexes));
        }
    } else {
        count(&mut status, "succeeded", tally.succeeded);
    }
    status
}

/// The Job when they have lost them: all are counted, and if it ends and no pod is left, it is over.
pub(super) fn after_release(job: &Value, fresh: &Fresh, now: Timestamp) -> Value {
    let Fresh { tally, plan, .. } = fresh;
    let mut job = job.clone();
    job["status"]["uncountedTerminatedPods"] = json!({});
    count(&mut job["status"], "succeeded", tally.successes());
    count(&mut job["status"], "failed", tally.failures());
    if !plan.ends || plan.active + plan.terminating > 0 {
        return job;
    }
    let now = seconds(now);
    let (type_, target) = match condition(&job, "SuccessCriteriaMet") {
        Some(target) => ("Complete", target.clone()),
        None => ("Failed", condition(&job, "FailureTarget").cloned().unwrap_or_default()),
    };
    if type_ == "Complete" {
        job["status"]["completionTime"] = json!(now);
    }
    let last = became(type_, "True", text(&target, "/reason"), text(&target, "/message"), &now);
    if let Some(conditions) = job["status"]["conditions"].as_array_mut() {
        conditions.push(last);
    }
    job
}
