//! `pods/eviction`: deleting a pod as far as its disruption budget allows.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, Written, delete, meta};
use crate::admission;
use crate::body::read_object;
use crate::failure::{Failure, Outcome};
use crate::registry::Resource;
use crate::request::WriteOptions;
use crate::schema::builtin;
use crate::selector::LabelSelector;
use crate::state::State;
use crate::store::Key;

const BUDGETS: &str = "policy/poddisruptionbudgets";
const VIOLATION: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const TOO_MANY: &str =
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
/// Longest book of disrupted pods that a budget keeps.
const DISRUPTED_MAX: usize = 2000;

fn kind() -> &'static Resource {
    static KIND: std::sync::OnceLock<Resource> = std::sync::OnceLock::new();
    KIND.get_or_init(|| {
        let schema = builtin::types().get("io.k8s.api.policy.v1.Eviction").cloned().unwrap_or_default();
        Resource::of_request("policy", "v1", "Eviction", schema)
    })
}

/// `POST pods/NAME/eviction`.
pub fn evict(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = WriteOptions::parse(&call.query, "CreateOptions", &call.user_agent)?;
    let decoded = read_object(&call.body, &call.media_type, kind(), "Eviction", options.validation)?;
    if meta(&decoded.object, "name") != call.target.name {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let wanted = &decoded.object["deleteOptions"];
    let dry_run = options.dry_run || wanted["dryRun"].as_array().is_some_and(|list| list.contains(&json!("All")));
    let pod = state.read(&call.resource, call.namespace(), &call.target.name)?;
    delete::check_options(call, wanted, &pod)?;
    // Before anything is written: a refusal changes nothing.
    admission::delete(state, call, &pod)?;
    if !goes_anyway(&pod) {
        spend_budget(state, &pod, dry_run)?;
    }
    if !dry_run {
        mark(state, call, &pod)?;
        delete::delete_with(state, call, wanted)?;
    }
    let object = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Written { code: 201, object, warnings: decoded.warnings })
}

/// A pod that does no work is not protected.
fn goes_anyway(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
        || pod["metadata"]["deletionTimestamp"].is_string()
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Takes one disruption from the budget of the pod, if it has one.
fn spend_budget(state: &mut State, pod: &Value, dry_run: bool) -> Outcome<()> {
    let storage: Arc<str> = Arc::from(BUDGETS);
    let labels = pod["metadata"]["labels"].as_object();
    let mut budgets: Vec<(Key, Arc<Value>)> = Vec::new();
    for (key, budget) in state.store.list(&storage, meta(pod, "namespace")) {
        let selector = &budget["spec"]["selector"];
        if !selector.is_null() && LabelSelector::of(selector).matches(labels) {
            budgets.push((Key::clone(key), budget));
        }
    }
    let [(key, budget)] = &budgets[..] else {
        return if budgets.is_empty() { Ok(()) } else { Err(Failure::plain(TOO_MANY)) };
    };
    let number = |name: &str| budget["status"][name].as_i64().unwrap_or(0);
    let name = meta(budget, "name");
    if !is_ready(pod) {
        let healthy = number("desiredHealthy") > 0 && number("currentHealthy") >= number("desiredHealthy");
        if healthy || budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
            return Ok(());
        }
    }
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(Failure::disruption(VIOLATION, &why, Some(10)));
    }
    let disrupted = budget["status"]["disruptedPods"].as_object().map_or(0, serde_json::Map::len);
    if number("disruptionsAllowed") < 0 {
        let why = "pdb disruptions allowed is negative";
        return Err(Failure::forbidden("policy", "poddisruptionbudgets", name, why));
    }
    if disrupted > DISRUPTED_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Failure::forbidden("policy", "poddisruptionbudgets", name, why));
    }
    if number("disruptionsAllowed") == 0 {
        let (need, have) = (number("desiredHealthy"), number("currentHealthy"));
        let why = format!("The disruption budget {name} needs {need} healthy pods and has {have} currently");
        return Err(Failure::disruption(VIOLATION, &why, None));
    }
    if dry_run {
        return Ok(());
    }
    let mut next = Value::clone(budget);
    let left = number("disruptionsAllowed") - 1;
    next["status"]["disruptionsAllowed"] = json!(left);
    if left == 0 {
        let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
            "message": "", "observedGeneration": number("observedGeneration"), "lastTransitionTime": state.now()});
        set_condition(&mut next["status"], condition);
    }
    if !next["status"]["disruptedPods"].is_object() {
        next["status"]["disruptedPods"] = json!({});
    }
    next["status"]["disruptedPods"][meta(pod, "name")] = json!(state.now());
    state.put(key.clone(), next)?;
    Ok(())
}

/// Says in the pod's status why it ends.
fn mark(state: &mut State, call: &Call, pod: &Value) -> Outcome<()> {
    let mut next = pod.clone();
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": state.now()});
    set_condition(&mut next["status"], condition);
    state.put(State::key(&call.resource, call.namespace(), &call.target.name), next)?;
    Ok(())
}

fn set_condition(status: &mut Value, condition: Value) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|old| old["type"] == condition["type"]) {
        Some(old) if old["status"] == condition["status"] => {}
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}
