//! PodDisruptionBudgets: how many of their pods may be evicted now.

mod expected;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::cache::{Change, Key};
use super::client::Refused;
use super::context::{Context, Controller, Tools};
use super::kind::{POD_DISRUPTION_BUDGETS, PODS};
use super::object::{
    condition, condition_status, generation, is_terminating, labels, name, namespace, number, selects,
};
use super::pods::is_ready;
use super::selection;
use crate::clock::seconds;

/// A pod that was evicted counts as gone for so long; one that is still there then counts again.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";
const EVICTED: &str = "DisruptionTarget";

pub(super) fn start(context: &mut Context) {
    context.run(
        selection::Controller::Disruption,
        Disruption(context.tools("disruption-controller", "controllermanager")),
    );
}

struct Disruption(Tools<Key>);

impl Controller for Disruption {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.0
    }

    fn note(&self, change: &Change) {
        if change.is(&POD_DISRUPTION_BUDGETS) {
            self.0.queue.add(Key::of(change.object()));
        } else if change.is(&PODS) {
            for pod in change.both() {
                let budgets = self.0.cache.list(&POD_DISRUPTION_BUDGETS, namespace(pod)).into_iter();
                let over = budgets.filter(|budget| selects(&budget["spec"]["selector"], labels(pod)));
                self.0.queue.extend(over.map(|budget| Key::of(&budget)));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let Some(budget) = self.0.cache.get(&POD_DISRUPTION_BUDGETS, &key.namespace, &key.name) else { return Ok(()) };
        let mut pods = self.0.cache.list(&PODS, &key.namespace);
        pods.retain(|pod| selects(&budget["spec"]["selector"], labels(pod)));
        if pods.is_empty() {
            let message = "No matching pods found".to_owned();
            self.0.recorder.say(&POD_DISRUPTION_BUDGETS, &budget, "Normal", "NoPods", message);
        }
        self.unmark(&pods).await?;
        match expected::count(&self.0, &budget, &pods).await {
            Ok(expected) => self.tell(&budget, &pods, &expected).await,
            Err(refused) => {
                let message = format!("Failed to calculate the number of expected pods: {}", refused.message);
                let reason = "CalculateExpectedPodCountFailed";
                self.0.recorder.say(&POD_DISRUPTION_BUDGETS, &budget, "Warning", reason, message);
                self.forbid(&budget, &refused).await.and(Err(refused))
            }
        }
    }
}

impl Disruption {
    async fn tell(&self, budget: &Value, pods: &[Arc<Value>], expected: &expected::Expected) -> Result<(), Refused> {
        if expected.unmanaged {
            let message = format!(
                "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the \
                 status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for \
                 these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                in_go(&budget["spec"]["selector"])
            );
            self.0.recorder.say(&POD_DISRUPTION_BUDGETS, budget, "Warning", "UnmanagedPods", message);
        }
        let now = self.0.clock.now();
        let (disrupted, again) = self.disrupted(budget, pods, now);
        let healthy =
            pods.iter().filter(|pod| !is_terminating(pod) && !disrupted.contains_key(name(pod)) && is_ready(pod));
        let status = status(budget, healthy.count() as i64, expected, &disrupted, &seconds(now));
        self.0.write_status(&POD_DISRUPTION_BUDGETS, budget, status).await?;
        if let Some(wait) = again {
            self.0.queue.add_after(Key::of(budget), wait);
        }
        Ok(())
    }

    /// The pods that were evicted and are not gone yet, and when the first of them will count again.
    fn disrupted(&self, budget: &Value, pods: &[Arc<Value>], now: Timestamp) -> (Map<String, Value>, Option<Duration>) {
        let (mut disrupted, mut again) = (Map::new(), None::<Duration>);
        for pod in pods.iter().filter(|pod| !is_terminating(pod)) {
            let Some(since) = budget["status"]["disruptedPods"].get(name(pod)) else { continue };
            let wait = left(since, now);
            if wait.is_zero() {
                let (namespace, budget) = (namespace(budget), name(budget));
                let message = format!("Pod was expected by PDB {namespace}/{budget} to be deleted but it wasn't");
                self.0.recorder.say(&PODS, pod, "Warning", "NotDeleted", message);
            } else {
                disrupted.insert(name(pod).to_owned(), since.clone());
                again = Some(again.map_or(wait, |least| least.min(wait)));
            }
        }
        (disrupted, again)
    }

    /// A pod that was to be evicted, and is still there long after, says so no longer.
    async fn unmark(&self, pods: &[Arc<Value>]) -> Result<(), Refused> {
        let now = self.0.clock.now();
        for pod in pods.iter().filter(|pod| !is_terminating(pod) && condition_status(pod, EVICTED) == "True") {
            let since = condition(pod, EVICTED).map_or(&Value::Null, |condition| &condition["lastTransitionTime"]);
            let wait = left(since, now);
            if !wait.is_zero() {
                let budgets = self.0.cache.list(&POD_DISRUPTION_BUDGETS, namespace(pod)).into_iter();
                let over = budgets.filter(|budget| selects(&budget["spec"]["selector"], labels(pod)));
                over.for_each(|budget| self.0.queue.add_after(Key::of(&budget), wait));
                continue;
            }
            let mut next = Value::clone(pod);
            if let Some(conditions) = next["status"]["conditions"].as_array_mut() {
                for condition in conditions.iter_mut().filter(|condition| condition["type"] == EVICTED) {
                    *condition = json!({"type": EVICTED, "status": "False", "lastProbeTime": null,
                        "lastTransitionTime": seconds(now)});
                }
            }
            self.0.write_status(&PODS, pod, next["status"].take()).await?;
        }
        Ok(())
    }

    /// Whoever cannot be counted is not disturbed.
    async fn forbid(&self, budget: &Value, why: &Refused) -> Result<(), Refused> {
        let mut status = budget["status"].clone();
        let now = seconds(self.0.clock.now());
        status["disruptionsAllowed"] = json!(0);
        let generation = number(budget, "/status/observedGeneration");
        set_allowed(&mut status, ("False", "SyncFailed", &why.message), generation, &now);
        self.0.write_status(&POD_DISRUPTION_BUDGETS, budget, status).await
    }
}

/// What is left of the time in which an eviction counts.
fn left(since: &Value, now: Timestamp) -> Duration {
    let since = since.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let age = since.map(|since| Duration::try_from(now.duration_since(since)).unwrap_or_default());
    age.map_or(Duration::ZERO, |age| EVICTION_TIMEOUT.saturating_sub(age))
}

/// The status that is true now.
fn status(
    budget: &Value,
    healthy: i64,
    expected: &expected::Expected,
    disrupted: &Map<String, Value>,
    now: &str,
) -> Value {
    let allowed = if expected.pods <= 0 { 0 } else { (healthy - expected.healthy).max(0) };
    let mut status = json!({
        "observedGeneration": generation(budget), "disruptionsAllowed": allowed, "currentHealthy": healthy,
        "desiredHealthy": expected.healthy, "expectedPods": expected.pods,
    });
    if !disrupted.is_empty() {
        status["disruptedPods"] = json!(disrupted);
    }
    if let Some(conditions) = budget["status"].get("conditions") {
        status["conditions"] = conditions.clone();
    }
    let verdict = if allowed > 0 { ("True", "SufficientPods", "") } else { ("False", "InsufficientPods", "") };
    set_allowed(&mut status, verdict, generation(budget), now);
    status
}

fn set_allowed(status: &mut Value, (value, reason, message): (&str, &str, &str), generation: i64, now: &str) {
    let old = status["conditions"].as_array().cloned().unwrap_or_default();
    let same = old.iter().find(|condition| condition["type"] == ALLOWED && condition["status"] == value);
    let since = same.map_or(json!(now), |same| same["lastTransitionTime"].clone());
    let mut set = json!({"type": ALLOWED, "status": value, "reason": reason, "message": message,
        "lastTransitionTime": since});
    if generation > 0 {
        set["observedGeneration"] = json!(generation);
    }
    let mut conditions: Vec<Value> = old.into_iter().filter(|condition| condition["type"] != ALLOWED).collect();
    conditions.push(set);
    status["conditions"] = json!(conditions);
}

/// A selector as Go prints the type, which is how the real controller's event shows it.
fn in_go(selector: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let pairs: String = pairs.map(|(key, value)| format!("{key}: {},", text(value))).collect();
    let terms = selector["matchExpressions"].as_array().into_iter().flatten().map(|term| {
        let values: Vec<String> = term["values"].as_array().into_iter().flatten().map(text).collect();
        let (key, operator) = (text(&term["key"]), text(&term["operator"]));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
    });
    let terms: String = terms.collect();
    let labels = format!("map[string]string{{{pairs}}}");
    format!("&LabelSelector{{MatchLabels:{labels},MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}")
}
