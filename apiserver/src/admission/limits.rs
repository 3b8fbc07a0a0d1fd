//! LimitRanges of a namespace: what containers get that ask for nothing, and what pods and claims may ask for (admission
//! plug-in LimitRanger).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::shown_name;
use crate::failure::{Failure, Outcome};
use crate::kinds::quantity::{self, compare};
use crate::state::State;
use crate::verbs::{Call, meta};

const STORAGE: &str = "/limitranges";
const NOTE: &str = "kubernetes.io/limit-ranger";

/// Whether the plug-in looks at the kind.
pub(super) fn concerns(call: &Call) -> bool {
    call.resource.group.is_empty()
        && matches!(call.resource.plural.as_str(), "pods" | "persistentvolumeclaims")
        && call.target.subresource.is_empty()
}

fn ranges(state: &State, object: &Value) -> Vec<Arc<Value>> {
    state.store.list(&Arc::from(STORAGE), meta(object, "namespace")).map(|(_, range)| range).collect()
}

fn limits<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    range["spec"]["limits"].as_array().into_iter().flatten().filter(move |limit| limit["type"] == kind)
}

/// Gives the containers of a new pod what the ranges say, and notes it.
pub(super) fn fill(state: &State, pod: &mut Value) {
    for range in ranges(state, pod) {
        let mut requests = Map::new();
        let mut most = Map::new();
        for limit in limits(&range, "Container") {
            requests.extend(limit["defaultRequest"].as_object().cloned().unwrap_or_default());
            most.extend(limit["default"].as_object().cloned().unwrap_or_default());
        }
        let mut notes = Vec::new();
        for (list, words) in [("containers", "container"), ("initContainers", "init container")] {
            for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                for (field, word, defaults) in [("requests", "request", &requests), ("limits", "limit", &most)] {
                    let set = add_missing(container, field, defaults);
                    if !set.is_empty() {
                        notes.push(format!("{} {word} for {words} {}", set.join(", "), text(&container["name"])));
                    }
                }
            }
        }
        if !notes.is_empty() {
            if !pod["metadata"]["annotations"].is_object() {
                pod["metadata"]["annotations"] = json!({});
            }
            pod["metadata"]["annotations"][NOTE] = json!(format!("LimitRanger plugin set: {}", notes.join("; ")));
        }
    }
}

/// Names of what was added, sorted.
fn add_missing(container: &mut Value, field: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let missing = |name: &&String| container["resources"][field].get(name.as_str()).is_none();
    let names: Vec<String> = defaults.keys().filter(missing).cloned().collect();
    for name in &names {
        container["resources"][field][name] = defaults[name].clone();
    }
    names
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Refuses what a range forbids.
///
/// # Errors
/// 403 with every limit that is not kept.
pub(super) fn check(state: &State, call: &Call, object: &Value) -> Outcome<()> {
    for range in ranges(state, object) {
        let errors = match call.resource.plural.as_str() {
            "pods" => pod_errors(&range, &object["spec"]),
            _ => claim_errors(&range, object),
        };
        let why = match &errors[..] {
            [] => continue,
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        return Err(Failure::forbidden("", &call.resource.plural, shown_name(object), &why));
    }
    Ok(())
}

fn pod_errors(range: &Value, spec: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for limit in range["spec"]["limits"].as_array().into_iter().flatten() {
        match text(&limit["type"]) {
            "Container" => {
                for container in containers(spec, "containers").chain(containers(spec, "initContainers")) {
                    let resources = &container["resources"];
                    errors.extend(amount_errors(limit, "Container", &resources["requests"], &resources["limits"]));
                }
            }
            "Pod" => errors.extend(amount_errors(limit, "Pod", &sum(spec, "requests"), &sum(spec, "limits"))),
            _ => {}
        }
    }
    errors
}

fn containers<'a>(spec: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    spec[list].as_array().into_iter().flatten()
}

/// What all containers of a pod have together; of those that run before the others only the largest counts, but one that
/// goes on running counts beside all that start after it.
fn sum(spec: &Value, field: &str) -> Value {
    let amounts = |container: &Value| container["resources"][field].as_object().cloned().unwrap_or_default();
    let mut total: BTreeMap<String, Value> = BTreeMap::new();
    let add = |total: &mut BTreeMap<String, Value>, more: Map<String, Value>| {
        for (name, amount) in more {
            let sum = total.get(&name).map(|sum| quantity::add(sum, &amount));
            total.insert(name, sum.unwrap_or(amount));
        }
    };
    containers(spec, "containers").for_each(|container| add(&mut total, amounts(container)));
    let mut staying: BTreeMap<String, Value> = BTreeMap::new();
    let mut peaks: Vec<BTreeMap<String, Value>> = Vec::new();
    for container in containers(spec, "initContainers") {
        if container["restartPolicy"] == "Always" {
            add(&mut total, amounts(container));
            add(&mut staying, amounts(container));
            peaks.push(staying.clone());
        } else {
            let mut peak = staying.clone();
            add(&mut peak, amounts(container));
            peaks.push(peak);
        }
    }
    for (name, amount) in peaks.into_iter().flatten() {
        if total.get(&name).is_none_or(|known| compare(&amount, known).is_gt()) {
            total.insert(name, amount);
        }
    }
    total.into_iter().collect()
}

fn amount_errors(limit: &Value, kind: &str, requests: &Value, limits: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, least) in limit["min"].as_object().into_iter().flatten() {
        let head = format!("minimum {name} usage per {kind} is {}", text(least));
        errors.extend(match (requests.get(name), limits.get(name)) {
            (None, _) => Some(format!("{head}.  No request is specified")),
            (Some(request), _) if compare(request, least).is_lt() => {
                Some(format!("{head}, but request is {}", text(request)))
            }
            (_, Some(limit)) if compare(limit, least).is_lt() => Some(format!("{head}, but limit is {}", text(limit))),
            _ => None,
        });
    }
    for (name, most) in limit["max"].as_object().into_iter().flatten() {
        let head = format!("maximum {name} usage per {kind} is {}", text(most));
        errors.extend(match (requests.get(name), limits.get(name)) {
            (_, None) => Some(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if compare(limit, most).is_gt() => Some(format!("{head}, but limit is {}", text(limit))),
            (Some(request), _) if compare(request, most).is_gt() => {
                Some(format!("{head}, but request is {}", text(request)))
            }
            _ => None,
        });
    }
    for (name, ratio) in limit["maxLimitRequestRatio"].as_object().into_iter().flatten() {
        let head = format!("{name} max limit to request ratio per {kind} is {}", text(ratio));
        let amount = |amounts: &Value| amounts.get(name).map(quantity::number).filter(|amount| *amount != 0.0);
        errors.extend(match (amount(requests), amount(limits)) {
            (None, _) => Some(format!("{head}, but no request is specified or request is 0")),
            (_, None) => Some(format!("{head}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) if limit / request > quantity::number(ratio) => {
                Some(format!("{head}, but provided ratio is {:.6}", limit / request))
            }
            _ => None,
        });
    }
    errors
}

/// Claims are only measured by what they request of storage.
fn claim_errors(range: &Value, claim: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let Some(request) = claim["spec"]["resources"]["requests"].get("storage") else { return errors };
    let kind = "PersistentVolumeClaim";
    for limit in limits(range, kind) {
        if let Some(least) = limit["min"].get("storage").filter(|least| compare(request, least).is_lt()) {
            let (least, request) = (text(least), text(request));
            errors.push(format!("minimum storage usage per {kind} is {least}, but request is {request}"));
        }
        if let Some(most) = limit["max"].get("storage").filter(|most| compare(request, most).is_gt()) {
            let (most, request) = (text(most), text(request));
            errors.push(format!("maximum storage usage per {kind} is {most}, but request is {request}"));
        }
    }
    errors
}
