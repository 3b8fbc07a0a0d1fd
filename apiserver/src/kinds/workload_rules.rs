//! What is wrong with Deployments, DaemonSets and their like.

use serde_json::{Map, Value, json};

use super::pod_security::word_error;
use super::pods::{not_negative, template_errors};
use super::{names, statuses, volumes};
use crate::failure::FieldError;

/// Errors of a workload, and of the change of one.
pub(super) fn validate(plural: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = match plural {
        "deployments" => deployment(spec),
        "daemonsets" => daemon_set(spec),
        "replicasets" => replica_set(spec),
        "statefulsets" => stateful_set(spec, old.is_none()),
        "replicationcontrollers" => controller(spec),
        _ => Vec::new(),
    };
    if let Some(old) = old {
        let changed = change_error(plural, spec, &old["spec"]);
        // Of a DaemonSet the change is told first.
        let at = if plural == "daemonsets" { 0 } else { errors.len() };
        errors.splice(at..at, changed);
    }
    if plural == "controllerrevisions" {
        if old.is_some_and(|old| old["data"] != object["data"]) {
            errors.push(FieldError::invalid("data", &object["data"], "field is immutable"));
        }
        errors.extend(not_negative(&object["revision"], "revision"));
    }
    errors
}

/// What of a StatefulSet may change.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn change_error(plural: &str, spec: &Value, old: &Value) -> Option<FieldError> {
    match plural {
        "statefulsets" => {
            let fixed = |spec: &Value| -> Map<String, Value> {
                let fields = spec.as_object().cloned().unwrap_or_default();
                fields.into_iter().filter(|(name, _)| !CHANGEABLE.contains(&name.as_str())).collect()
            };
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            (fixed(spec) != fixed(old)).then(|| FieldError::forbidden("spec", detail))
        }
        "controllerrevisions" | "replicationcontrollers" => None,
        _ if old["selector"] == spec["selector"] => None,
        _ => Some(names::bad_selector("spec.selector", &spec["selector"], "field is immutable")),
    }
}

/// Errors of `/status`: counts are counts.
pub(super) fn validate_status(plural: &str, object: &Value, old: &Value) -> Vec<FieldError> {
    let (status, before) = (&object["status"], &old["status"]);
    match plural {
        "deployments" => statuses::deployment(status, before),
        "daemonsets" => statuses::daemon_set(status, before),
        "replicasets" => statuses::replica_set(status),
        "statefulsets" => statuses::stateful_set(status, before),
        _ => Vec::new(),
    }
}

pub(super) fn matches(selector: &Value, labels: &Value) -> bool {
    let empty = Map::new();
    let labels = labels.as_object().unwrap_or(&empty);
    if !selector.is_object() {
        return false;
    }
    let fits = |requirement: &Value| {
        let value = labels.get(requirement["key"].as_str().unwrap_or_default());
        let named = || requirement["values"].as_array().is_some_and(|values| value.is_some_and(|v| values.contains(v)));
        match requirement["operator"].as_str() {
            Some("In") => named(),
            Some("NotIn") => !named(),
            Some("Exists") => value.is_some(),
            _ => value.is_none(),
        }
    };
    selector["matchLabels"].as_object().into_iter().flatten().all(|(key, want)| labels.get(key) == Some(want))
        && selector["matchExpressions"].as_array().into_iter().flatten().all(fits)
}

fn is_empty(selector: &Value) -> bool {
    let none = |name: &str| match &selector[name] {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    none("matchLabels") && none("matchExpressions")
}

/// Whether a selector can be understood at all.
pub(super) fn is_sound(selector: &Value) -> bool {
    names::selector_errors(selector, "").is_empty()
}

fn mismatch(spec: &Value) -> FieldError {
    let labels = &spec["template"]["metadata"]["labels"];
    let detail = "`selector` does not match template `labels`";
    FieldError::invalid("spec.template.metadata.labels", labels, detail)
}

/// The template of pods that run for ever.
fn lasting_template(spec: &Value, owner: &str) -> Vec<FieldError> {
    [template_errors(&spec["template"], "spec.template"), lasting(spec, owner)].concat()
}

fn lasting(spec: &Value, owner: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let pod = &spec["template"]["spec"];
    if pod["restartPolicy"] != "Always" {
        let field = "spec.template.spec.restartPolicy";
        errors.push(FieldError::not_supported(field, &pod["restartPolicy"], &["Always"]));
    }
    if !pod["activeDeadlineSeconds"].is_null() {
        let detail = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.push(FieldError::forbidden("spec.template.spec.activeDeadlineSeconds", &detail));
    }
    errors
}

fn selector_errors(spec: &Value, kind: &str) -> Vec<FieldError> {
    let selector = &spec["selector"];
    if selector.is_null() {
        return vec![FieldError::required("spec.selector", "")];
    }
    let mut errors = names::selector_errors(selector, "spec.selector");
    if is_empty(selector) {
        let detail = format!("empty selector is invalid for {kind}");
        errors.push(names::bad_selector("spec.selector", selector, &detail));
    }
    errors
}

fn replicated_template(spec: &Value) -> Vec<FieldError> {
    let selector = &spec["selector"];
    if !selector.is_null() && !is_sound(selector) {
        return vec![names::bad_selector("spec.selector", selector, "invalid label selector")];
    }
    let mut errors = Vec::new();
    if (selector.is_null() || !is_empty(selector)) && !matches(selector, &spec["template"]["metadata"]["labels"]) {
        errors.push(mismatch(spec));
    }
    errors.extend(lasting_template(spec, "ReplicaSet"));
    errors
}

fn deployment(spec: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = not_negative(&spec["replicas"], "spec.replicas").into_iter().collect();
    errors.extend(selector_errors(spec, "deployment"));
    errors.extend(replicated_template(spec));
    let strategy = &spec["strategy"];
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str().unwrap_or_default() {
        "Recreate" if !rolling.is_null() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
        }
        "Recreate" => {}
        "RollingUpdate" => errors.extend(rolling_deployment(rolling)),
        _ => {
            let shown = strategy_in_go(strategy, &[("MaxUnavailable", "maxUnavailable"), ("MaxSurge", "maxSurge")]);
            let message = format!("Unsupported value: {shown}: supported values: \"Recreate\", \"RollingUpdate\"");
            errors.push(FieldError { reason: "FieldValueNotSupported", message, field: "spec.strategy".into() });
        }
    }
    errors.extend(not_negative(&spec["minReadySeconds"], "spec.minReadySeconds"));
    errors.extend(not_negative(&spec["revisionHistoryLimit"], "spec.revisionHistoryLimit"));
    if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64() {
        let field = "spec.progressDeadlineSeconds";
        errors.extend(not_negative(&spec["progressDeadlineSeconds"], field));
        if deadline <= spec["minReadySeconds"].as_i64().unwrap_or(0) {
            errors.push(FieldError::invalid(field, &json!(deadline), "must be greater than minReadySeconds"));
        }
    }
    errors
}

/// A number of pods, or a share of them.
pub(super) fn share_errors(value: &Value, field: &str) -> Vec<FieldError> {
    match value {
        Value::String(text) if percent(text).is_none() => {
            let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            vec![FieldError::invalid(field, value, detail)]
        }
        value => not_negative(value, field).into_iter().collect(),
    }
}

fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

pub(super) fn too_much(value: &Value, field: &str) -> Option<FieldError> {
    let share = percent(value.as_str()?).filter(|share| *share > 100)?;
    let _ = share;
    Some(FieldError::invalid(field, value, "must not be greater than 100%"))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => percent(text) == Some(0),
        number => number.as_i64().unwrap_or(0) == 0,
    }
}

/// How something is replaced, as Go's internal type is printed.
fn strategy_in_go(strategy: &Value, fields: &[(&str, &str)]) -> String {
    let rolling = match &strategy["rollingUpdate"] {
        rolling if rolling.is_object() => {
            let pairs: Vec<String> = fields.iter().map(|(go, name)| format!("\"{go}\":{}", rolling[*name])).collect();
            format!("{{{}}}", pairs.join(","))
        }
        _ => "null".into(),
    };
    format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", json!(strategy["type"].as_str().unwrap_or_default()))
}

fn rolling_deployment(rolling: &Value) -> Vec<FieldError> {
    let at = |name: &str| format!("spec.strategy.rollingUpdate.{name}");
    let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
    let mut errors = share_errors(unavailable, &at("maxUnavailable"));
    errors.extend(share_errors(surge, &at("maxSurge")));
    if is_zero(unavailable) && is_zero(surge) {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(at("maxUnavailable"), unavailable, detail));
    }
    errors.extend(too_much(unavailable, &at("maxUnavailable")));
    errors
}

fn daemon_set(spec: &Value) -> Vec<FieldError> {
    let selector = &spec["selector"];
    let mut errors = names::selector_errors(selector, "spec.selector");
    if is_sound(selector) && !matches(selector, &spec["template"]["metadata"]["labels"]) {
        errors.push(mismatch(spec));
    }
    if selector.is_object() && is_empty(selector) {
        errors.push(names::bad_selector("spec.selector", selector, "empty selector is invalid for daemonset"));
    }
    errors.extend(lasting_template(spec, "DaemonSet"));
    errors.extend(not_negative(&spec["minReadySeconds"], "spec.minReadySeconds"));
    let strategy = &spec["updateStrategy"];
    match strategy["type"].as_str().unwrap_or_default() {
        "OnDelete" => {}
        "RollingUpdate" => errors.extend(rolling_daemon_set(&strategy["rollingUpdate"])),
        _ => {
            let shown = strategy_in_go(strategy, &[("MaxUnavailable", "maxUnavailable"), ("MaxSurge", "maxSurge")]);
            let message = format!("Unsupported value: {shown}: supported values: \"RollingUpdate\", \"OnDelete\"");
            errors.push(FieldError { reason: "FieldValueNotSupported", message, field: "spec.updateStrategy".into() });
        }
    }
    errors.extend(not_negative(&spec["revisionHistoryLimit"], "spec.revisionHistoryLimit"));
    errors
}

fn rolling_daemon_set(rolling: &Value) -> Vec<FieldError> {
    let at = |name: &str| format!("spec.updateStrategy.rollingUpdate.{name}");
    let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
    let mut errors = share_errors(unavailable, &at("maxUnavailable"));
    errors.extend(share_errors(surge, &at("maxSurge")));
    errors.extend(too_much(unavailable, &at("maxUnavailable")));
    errors.extend(too_much(surge, &at("maxSurge")));
    match (is_zero(unavailable), is_zero(surge)) {
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(at("maxSurge"), surge, detail));
        }
        (true, true) => {
            errors.push(FieldError::required(at("maxUnavailable"), "cannot be 0 when maxSurge is 0"));
        }
        _ => {}
    }
    errors
}

fn replica_set(spec: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = not_negative(&spec["replicas"], "spec.replicas").into_iter().collect();
    errors.extend(not_negative(&spec["minReadySeconds"], "spec.minReadySeconds"));
    errors.extend(selector_errors(spec, "deployment"));
    errors.extend(replicated_template(spec));
    errors
}

fn stateful_set(spec: &Value, new: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let policy = &spec["podManagementPolicy"];
    match policy.as_str().unwrap_or_default() {
        "OrderedReady" | "Parallel" => {}
        "" => errors.push(FieldError::required("spec.podManagementPolicy", "")),
        _ => {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid("spec.podManagementPolicy", policy, detail));
        }
    }
    errors.extend(stateful_strategy(&spec["updateStrategy"]));
    let kept = &spec["persistentVolumeClaimRetentionPolicy"];
    for name in ["whenDeleted", "whenScaled"] {
        errors.extend(word_error(kept, name, "spec.persistentVolumeClaimRetentionPolicy", &["Retain", "Delete"]));
    }
    errors.extend(not_negative(&spec["replicas"], "spec.replicas"));
    errors.extend(not_negative(&spec["minReadySeconds"], "spec.minReadySeconds"));
    errors.extend(not_negative(&spec["ordinals"]["start"], "spec.ordinals.start"));
    errors.extend(selector_errors(spec, "statefulset"));
    if is_sound(&spec["selector"]) {
        if !matches(&spec["selector"], &spec["template"]["metadata"]["labels"]) {
            errors.push(mismatch(spec));
        }
        let template = &with_claims(spec)["template"];
        // Its labels are looked at twice.
        errors.extend(names::template_metadata_errors(&template["metadata"], "spec.template"));
        errors.extend(template_errors(template, "spec.template"));
    } else {
        let mut bad = names::bad_selector("spec.selector", &spec["selector"], "");
        bad.message.truncate(bad.message.len() - 2);
        errors.push(bad);
    }
    errors.extend(lasting(spec, "StatefulSet"));
    // What cannot change is looked at once.
    let claims = spec["volumeClaimTemplates"].as_array().filter(|_| new);
    for (index, claim) in claims.into_iter().flatten().enumerate() {
        errors.extend(volumes::claim_errors(&claim["spec"], &format!("spec.volumeClaimTemplates[{index}].spec")));
    }
    errors
}

fn stateful_strategy(strategy: &Value) -> Option<FieldError> {
    let (field, rolling) = ("spec.updateStrategy", &strategy["rollingUpdate"]);
    let shown = || strategy_in_go(strategy, &[("Partition", "partition"), ("MaxUnavailable", "maxUnavailable")]);
    let refuse = |field: &str, shown: &str, detail: &str| FieldError {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {shown}: {detail}"),
        field: field.into(),
    };
    match strategy["type"].as_str().unwrap_or_default() {
        "" => Some(FieldError::required(field, "")),
        "OnDelete" if rolling.is_object() => {
            let shown = shown();
            let inner = shown.split_once("\"RollingUpdate\":").map_or("", |(_, rest)| rest.trim_end_matches('}'));
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            Some(refuse("spec.updateStrategy.rollingUpdate", &format!("{inner}}}"), detail))
        }
        "OnDelete" => None,
        "RollingUpdate" => not_negative(&rolling["partition"], "spec.updateStrategy.rollingUpdate.partition"),
        _ => Some(refuse(field, &shown(), "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

/// The claims of a StatefulSet are volumes of its pods.
fn with_claims(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let claims: Vec<Value> = spec["volumeClaimTemplates"].as_array().cloned().unwrap_or_default();
    let made: Vec<Value> = claims
        .iter()
        .map(|claim| {
            let name = claim["metadata"]["name"].as_str().unwrap_or_default();
            json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
        })
        .collect();
    let own = spec["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let own = own.into_iter().filter(|volume| made.iter().all(|made| made["name"] != volume["name"]));
    let all: Vec<Value> = made.iter().cloned().chain(own).collect();
    if !made.is_empty() && spec["template"]["spec"].is_object() {
        spec["template"]["spec"]["volumes"] = Value::Array(all);
    }
    spec
}

fn controller(spec: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> =
        not_negative(&spec["minReadySeconds"], "spec.minReadySeconds").into_iter().collect();
    let selector = json!({"matchLabels": spec["selector"]});
    if is_empty(&selector) {
        errors.push(FieldError::required("spec.selector", ""));
    }
    errors.extend(not_negative(&spec["replicas"], "spec.replicas"));
    if spec["template"].is_null() {
        errors.push(FieldError::required("spec.template", ""));
        return errors;
    }
    if !is_empty(&selector) && !matches(&selector, &spec["template"]["metadata"]["labels"]) {
        errors.push(mismatch(spec));
    }
    errors.extend(lasting_template(spec, "ReplicationController"));
    errors
}
