//! What a Deployment says of itself: counts, and the conditions Available, Progressing and ReplicaFailure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::math::{available, max_unavailable, replicas, total};
use super::{Rollout, Sets};
use crate::controllers::cache::Key;
use crate::controllers::client::Refused;
use crate::controllers::object::{annotation, condition_status, generation, list, name, number, text};

const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
/// What stands for "no deadline".
const NO_DEADLINE: i64 = i32::MAX as i64;

pub(super) use crate::controllers::object::condition;

fn count(status: &Value, name: &str) -> i64 {
    number(status, &format!("/{name}"))
}

/// Whether everything wanted is there, up to date and available.
pub(super) fn is_complete(deployment: &Value, status: &Value) -> bool {
    let wanted = replicas(deployment);
    ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|name| count(status, name) == wanted)
        && count(status, "observedGeneration") >= generation(deployment)
}

/// Whether the new set is as large as the Deployment wanted it to be, and all of it available.
pub(super) fn is_saturated(deployment: &Value, set: &Value) -> bool {
    let wanted = replicas(deployment);
    let noted = annotation(set, super::DESIRED).and_then(|n| n.parse::<i64>().ok());
    replicas(set) == wanted && noted == Some(wanted) && available(set) == wanted
}

fn progresses(old: &Value, new: &Value) -> bool {
    let grown = |name: &str| count(new, name) > count(old, name);
    let outdated = |status: &Value| count(status, "replicas") - count(status, "updatedReplicas");
    grown("updatedReplicas") || outdated(new) < outdated(old) || grown("readyReplicas") || grown("availableReplicas")
}

/// Sets a condition; one with the same status and reason stays as it is.
pub(super) fn set_condition(status: &mut Value, now: &str, type_: &str, value: &str, reason: &str, message: &str) {
    let old = list(status, "/conditions").iter().find(|condition| condition["type"] == type_).cloned();
    if old.as_ref().is_some_and(|old| old["status"] == value && old["reason"] == reason) {
        return;
    }
    let since = match old.filter(|old| old["status"] == value) {
        Some(old) => text(&old, "/lastTransitionTime").to_owned(),
        None => now.to_owned(),
    };
    remove_condition(status, type_);
    let mut conditions = list(status, "/conditions").to_vec();
    conditions.push(json!({"type": type_, "status": value, "lastUpdateTime": now, "lastTransitionTime": since,
        "reason": reason, "message": message}));
    status["conditions"] = json!(conditions);
}

fn remove_condition(status: &mut Value, type_: &str) {
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"] != type_);
    }
}

/// The counts that are true now, and whether enough is available.
fn counts(deployment: &Value, sets: &Sets, now: &str) -> Value {
    let all = sets.all();
    let sum = |name: &str| all.iter().map(|set| number(set, &format!("/status/{name}"))).sum::<i64>();
    let mut status = json!({"observedGeneration": generation(deployment)});
    let updated = sets.new.as_ref().map_or(0, |new| number(new, "/status/replicas"));
    let available = sum("availableReplicas");
    for (name, count) in [
        ("replicas", sum("replicas")),
        ("updatedReplicas", updated),
        ("readyReplicas", sum("readyReplicas")),
        ("availableReplicas", available),
        ("unavailableReplicas", (total(&all) - available).max(0)),
    ] {
        if count > 0 {
            status[name] = json!(count);
        }
    }
    for kept in ["collisionCount", "conditions"] {
        if let Some(value) = deployment["status"].get(kept).filter(|value| !value.is_null()) {
            status[kept] = value.clone();
        }
    }
    let (value, reason, message) = if available >= replicas(deployment) - max_unavailable(deployment) {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut status, now, "Available", value, reason, message);
    status
}

/// A condition of a set that cannot make its pods.
fn failure(sets: &Sets) -> Option<Value> {
    let failed = |set: &Arc<Value>| condition(set, "ReplicaFailure").cloned();
    sets.new.as_ref().and_then(failed).or_else(|| sets.old.iter().find_map(failed))
}

impl Rollout<'_> {
    pub(super) fn has_deadline(&self) -> bool {
        self.deployment["spec"]["progressDeadlineSeconds"].as_i64().is_some_and(|limit| limit != NO_DEADLINE)
    }

    pub(super) fn set_condition(&mut self, type_: &str, value: &str, reason: &str, message: &str) {
        let now = self.now();
        if !self.deployment["status"].is_object() {
            self.deployment["status"] = json!({});
        }
        set_condition(&mut self.deployment["status"], &now, type_, value, reason, message);
    }

    /// Notes that progress is not expected while paused, and is again afterwards.
    pub(super) async fn check_paused(&mut self) -> Result<(), Refused> {
        let reason = condition(&self.deployment, "Progressing").map(|c| text(c, "/reason").to_owned());
        if !self.has_deadline() || reason.as_deref() == Some(TIMED_OUT) {
            return Ok(());
        }
        let noted = reason.as_deref() == Some("DeploymentPaused");
        let (reason, message) = match (self.deployment["spec"]["paused"] == true, noted) {
            (true, false) => ("DeploymentPaused", "Deployment is paused"),
            (false, true) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return Ok(()),
        };
        self.set_condition("Progressing", "Unknown", reason, message);
        self.write().await
    }

    /// Writes the counts if they have changed.
    pub(super) async fn tell_counts(&mut self, sets: &Sets) -> Result<(), Refused> {
        let status = counts(&self.deployment, sets, &self.now());
        self.write_status(status).await
    }

    /// Writes the counts and how the rollout goes.
    pub(super) async fn tell_progress(&mut self, sets: &Sets) -> Result<(), Refused> {
        let now = self.now();
        let mut status = counts(&self.deployment, sets, &now);
        self.judge(&mut status, sets, &now);
        match failure(sets) {
            Some(failure) => {
                let part = |name: &str| text(&failure, name).to_owned();
                let (value, reason, message) = (part("/status"), part("/reason"), part("/message"));
                set_condition(&mut status, &now, "ReplicaFailure", &value, &reason, &message);
            }
            None => remove_condition(&mut status, "ReplicaFailure"),
        }
        self.look_again(&status);
        self.write_status(status).await
    }

    fn judge(&self, status: &mut Value, sets: &Sets, now: &str) {
        if !self.has_deadline() {
            remove_condition(status, "Progressing");
            return;
        }
        let old = condition(&self.deployment, "Progressing").cloned();
        let settled = count(status, "replicas") == count(status, "updatedReplicas")
            && old.as_ref().is_some_and(|old| old["reason"] == AVAILABLE);
        if settled {
            return;
        }
        let subject = match &sets.new {
            Some(new) => format!("ReplicaSet \"{}\"", name(new)),
            None => format!("Deployment \"{}\"", name(&self.deployment)),
        };
        if is_complete(&self.deployment, status) {
            let message = format!("{subject} has successfully progressed.");
            set_condition(status, now, "Progressing", "True", AVAILABLE, &message);
        } else if progresses(&self.deployment["status"], status) {
            // Every step forward is a new update, and the transition stays where it was.
            let since = old.filter(|old| old["status"] == "True").map(|old| old["lastTransitionTime"].clone());
            remove_condition(status, "Progressing");
            set_condition(
                status,
                now,
                "Progressing",
                "True",
                "ReplicaSetUpdated",
                &format!("{subject} is progressing."),
            );
            if let (Some(since), Some(conditions)) = (since, status["conditions"].as_array_mut())
                && let Some(fresh) = conditions.last_mut()
            {
                fresh["lastTransitionTime"] = since;
            }
        } else if self.overdue() == Some(Duration::ZERO) {
            let message = format!("{subject} has timed out progressing.");
            set_condition(status, now, "Progressing", "False", TIMED_OUT, &message);
        }
    }

    /// How long it takes until the deadline is over; nothing if none runs.
    fn overdue(&self) -> Option<Duration> {
        let progressing = condition(&self.deployment, "Progressing")?;
        match text(progressing, "/reason") {
            AVAILABLE => return None,
            TIMED_OUT => return Some(Duration::ZERO),
            _ => {}
        }
        let since: Timestamp = text(progressing, "/lastUpdateTime").parse().ok()?;
        let limit = self.deployment["spec"]["progressDeadlineSeconds"].as_u64()?;
        let age = Duration::try_from(self.tools.clock.now().duration_since(since)).unwrap_or_default();
        Some(Duration::from_secs(limit).saturating_sub(age))
    }

    fn look_again(&self, status: &Value) {
        let late = condition_status(&json!({"status": status}), "Progressing") == "False";
        if !self.has_deadline() || late || is_complete(&self.deployment, status) {
            return;
        }
        if let Some(wait) = self.overdue().filter(|wait| !wait.is_zero()) {
            self.tools.queue.add_after(Key::of(&self.deployment), wait + Duration::from_secs(1));
        }
    }

    async fn write_status(&mut self, status: Value) -> Result<(), Refused> {
        if self.deployment["status"] == status {
            return Ok(());
        }
        self.deployment["status"] = status;
        self.write().await
    }
}
