//! What is wrong with a pod, or with the template of one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::containers::{self, Room, one_of};
use super::{gates, names, pod_rules, pod_security, pod_volumes};
use crate::failure::FieldError;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
/// The real server adds the difference of its own form of both specs.
const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

pub(super) fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = (usize, &'a Value)> + use<'a> {
    value[name].as_array().into_iter().flatten().enumerate()
}

/// `template`: its labels and what it says of its pods.
pub(super) fn template_errors(template: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = names::label_errors(&template["metadata"]["labels"], &format!("{path}.labels"));
    for key in template["metadata"]["annotations"].as_object().into_iter().flatten().map(|(key, _)| key) {
        let field = format!("{path}.annotations");
        errors.extend(FieldError::each(&field, &json!(key), names::qualified(&key.to_lowercase())));
    }
    errors.extend(spec_errors(&template["spec"], &format!("{path}.spec")));
    errors
}

/// What is wrong with a pod, or with the change of one.
pub(super) fn validate(pod: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &pod["spec"];
    let Some(old) = old else {
        let mut errors = spec_errors(spec, "spec");
        errors.extend(image_errors(spec, "spec"));
        if !spec["ephemeralContainers"].is_null() {
            errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
        }
        errors.extend(gates::creation_errors(spec));
        return errors;
    };
    let mut errors = spec_errors(spec, "spec");
    errors.extend(change_errors(spec, &old["spec"]));
    errors
}

/// A pod's spec is as it was made, but for a few fields.
fn change_errors(spec: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for kind in ["containers", "initContainers"] {
        let count = |spec: &Value| spec[kind].as_array().map_or(0, Vec::len);
        if count(spec) != count(old) {
            return vec![FieldError::forbidden(format!("spec.{kind}"), "pod updates may not add or remove containers")];
        }
    }
    let tolerations = |spec: &Value| spec["tolerations"].as_array().cloned().unwrap_or_default();
    let (had, has) = (tolerations(old), tolerations(spec));
    if had.iter().any(|toleration| !has.contains(toleration)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", detail));
    }
    errors.extend(gates::added_errors(spec, old));
    if !errors.is_empty() {
        return errors;
    }
    let (deadline, before) = (spec["activeDeadlineSeconds"].as_i64(), old["activeDeadlineSeconds"].as_i64());
    match (before, deadline) {
        (Some(before), Some(now)) if now > before => {
            let detail = "must be less than or equal to previous value";
            return vec![FieldError::invalid("spec.activeDeadlineSeconds", &json!(now), detail)];
        }
        (Some(_), None) => {
            let detail = "must not update from a positive integer to nil value";
            return vec![FieldError::invalid("spec.activeDeadlineSeconds", &Value::Null, detail)];
        }
        _ => {}
    }
    let (mut has, mut had) = (without_changeable(spec), without_changeable(old));
    if gates::is_gated(old) {
        errors.extend(gates::narrowing_errors(spec, old));
        (has, had) = (gates::ungated(has), gates::ungated(had));
    }
    if has != had {
        errors.push(FieldError::forbidden("spec", FIXED));
    }
    errors
}

fn without_changeable(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for kind in ["containers", "initContainers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            container["image"] = Value::Null;
        }
    }
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        spec[name] = Value::Null;
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        spec["terminationGracePeriodSeconds"] = json!(1);
    }
    spec
}

/// Images of a new pod; a template may have others, since something may mend them before there are pods.
fn image_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for kind in ["containers", "initContainers"] {
        for (index, container) in list(spec, kind) {
            let image = text(container, "image");
            if image.trim() != image {
                let detail = "must not have leading or trailing whitespace";
                errors.push(FieldError::invalid(format!("{path}.{kind}[{index}].image"), &json!(image), detail));
            }
        }
    }
    errors
}

/// Everything about a pod's `spec`.
pub(super) fn spec_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let (volumes, mut errors) = pod_volumes::check(spec, path);
    let room = Room {
        volumes,
        grace: spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(30),
        restart: text(spec, "restartPolicy"),
        host_users: spec["hostUsers"] != false,
    };
    errors.extend(containers::main_errors(spec, path, &room));
    errors.extend(containers::init_errors(spec, path, &room));
    errors.extend(host_port_errors(spec, path));
    errors.extend(one_of(spec, "restartPolicy", path, &["Always", "OnFailure", "Never"]));
    errors.extend(one_of(spec, "dnsPolicy", path, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]));
    errors.extend(names::label_errors(&spec["nodeSelector"], &at("nodeSelector")));
    errors.extend(pod_security::pod_errors(spec, &at("securityContext")));
    errors.extend(pod_rules::affinity_errors(&spec["affinity"], &at("affinity")));
    errors.extend(pod_rules::dns_errors(spec, path));
    errors.extend(pod_rules::readiness_errors(spec, path));
    errors.extend(gates::name_errors(spec, path));
    errors.extend(pod_rules::spread_errors(spec, path));
    errors.extend(name_errors(spec, &at, &["serviceAccountName", "nodeName"], names::subdomain));
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64().filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let detail = format!("must be between 1 and {}, inclusive", i32::MAX);
        errors.push(FieldError::invalid(at("activeDeadlineSeconds"), &json!(seconds), &detail));
    }
    errors.extend(name_errors(spec, &at, &["hostname", "subdomain"], names::label));
    errors.extend(toleration_errors(spec, path));
    errors.extend(pod_rules::alias_errors(spec, path));
    errors.extend(name_errors(spec, &at, &["priorityClassName", "runtimeClassName"], names::subdomain));
    errors.extend(pod_security::word_error(spec, "preemptionPolicy", path, &["Never", "PreemptLowerPriority"]));
    errors.extend(pod_rules::system_error(spec, path));
    errors
}

/// Names that need not be given.
fn name_errors(
    spec: &Value,
    at: &impl Fn(&str) -> String,
    fields: &[&str],
    check: fn(&str) -> Vec<String>,
) -> Vec<FieldError> {
    let given = fields.iter().filter(|name| !text(spec, name).is_empty());
    given.flat_map(|name| FieldError::each(&at(name), &spec[*name], check(text(spec, name)))).collect()
}

/// Numbers that count something.
pub(super) fn not_negative(value: &Value, field: &str) -> Option<FieldError> {
    let number = value.as_i64().filter(|number| *number < 0)?;
    Some(FieldError::invalid(field, &json!(number), "must be greater than or equal to 0"))
}

/// In the network of the host a port is one of the host.
fn host_port_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if spec["hostNetwork"] != true {
        return errors;
    }
    for (index, container) in list(spec, "containers") {
        for (number, port) in list(container, "ports") {
            // A template need not repeat it: pods get it.
            if !port["hostPort"].is_null() && port["hostPort"] != port["containerPort"] {
                let field = format!("{path}.containers[{index}].ports[{number}].hostPort");
                let value = json!(port["hostPort"].as_i64().unwrap_or(0));
                errors.push(FieldError::invalid(
                    field,
                    &value,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
    }
    errors
}

/// `tolerations` of a pod, or of the pods of a class.
pub(super) fn toleration_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, toleration) in list(spec, "tolerations") {
        let at = |name: &str| format!("{path}.tolerations[{index}].{name}");
        let (key, operator, value) = (text(toleration, "key"), text(toleration, "operator"), text(toleration, "value"));
        if !key.is_empty() {
            errors.extend(FieldError::each(&at("key"), &json!(key), names::qualified(key)));
        }
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(at("operator"), &json!(operator), detail));
        }
        let effect = text(toleration, "effect");
        if toleration["tolerationSeconds"].is_number() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(at("effect"), &json!(effect), detail));
        }
        match operator {
            "" | "Equal" => {
                let complaints = names::label_value(value);
                if !complaints.is_empty() {
                    errors.push(FieldError::invalid(at("operator"), &json!(value), &complaints.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(at("operator"), &json!(value), detail));
            }
            "Exists" => {}
            other => errors.push(FieldError::not_supported(at("operator"), &json!(other), &["Equal", "Exists"])),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.push(FieldError::not_supported(at("effect"), &json!(effect), &EFFECTS));
        }
    }
    errors
}

/// Taints of a node; errors are shown where the real server shows them.
pub(super) fn taint_errors(taints: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.as_array().into_iter().flatten().enumerate() {
        let at = |name: &str| format!("{path}[{index}].{name}");
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        errors.extend(FieldError::each(&at("key"), &json!(key), names::qualified(key)));
        let complaints = names::label_value(value);
        if !complaints.is_empty() {
            errors.push(FieldError::invalid(at("value"), &json!(value), &complaints.join(";")));
        }
        errors.extend(one_of(taint, "effect", &format!("{path}[{index}]"), &EFFECTS));
        if !seen.insert((key, effect)) {
            let shown = format!(
                "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":{}}}",
                json!(key),
                json!(value),
                json!(effect),
                taint["timeAdded"],
            );
            let message = format!("Duplicate value: {shown}: taints must be unique by key and effect pair");
            errors.push(FieldError { reason: "FieldValueDuplicate", message, field: format!("{path}[{index}]") });
        }
    }
    errors
}
