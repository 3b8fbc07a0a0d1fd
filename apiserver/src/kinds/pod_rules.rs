//! What is wrong with a pod's placement, security and lifecycle.

use serde_json::{Value, json};

use super::names;
use crate::failure::FieldError;

const FIELD_PATHS: [&str; 11] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "metadata.annotations",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = (usize, &'a Value)> + use<'a> {
    value[name].as_array().into_iter().flatten().enumerate()
}

/// `securityContext` of a pod.
pub(super) fn security_errors(security: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let detail = format!("must be between 0 and {}, inclusive", i32::MAX);
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        if let Some(id) = security[name].as_i64().filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
            errors.push(FieldError::invalid(format!("{path}.{name}"), &json!(id), &detail));
        }
    }
    for (index, control) in list(security, "sysctls") {
        let (at, name) = (format!("{path}.sysctls[{index}].name"), text(control, "name"));
        if name.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if !is_sysctl(name) {
            let detail = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(FieldError::invalid(at, &control["name"], detail));
        }
    }
    if security["seccompProfile"].is_object() {
        let known = ["Localhost", "RuntimeDefault", "Unconfined"];
        let at = format!("{path}.seccompProfile.type");
        match text(&security["seccompProfile"], "type") {
            "" => errors.push(FieldError::required(at, "type is required when seccompProfile is set")),
            word if known.contains(&word) => {}
            word => errors.push(FieldError::not_supported(at, &json!(word), &known)),
        }
    }
    errors
}

fn is_sysctl(name: &str) -> bool {
    let part = |part: &str| {
        let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        end(part.chars().next())
            && end(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

/// `affinity` of a pod, as far as a mistake in it is likely.
pub(super) fn affinity_errors(affinity: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let required = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    if required.is_object() && list(required, "nodeSelectorTerms").next().is_none() {
        let at = "nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        errors.push(FieldError::required(format!("{path}.{at}"), "must have at least one node selector term"));
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let at = format!("{path}.{name}");
        for (index, term) in list(&affinity[name], "requiredDuringSchedulingIgnoredDuringExecution") {
            let at = format!("{at}.requiredDuringSchedulingIgnoredDuringExecution[{index}]");
            errors.extend(term_errors(term, &at));
        }
        for (index, preferred) in list(&affinity[name], "preferredDuringSchedulingIgnoredDuringExecution") {
            let at = format!("{at}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
            if preferred["weight"].as_i64().is_none_or(|weight| !(1..=100).contains(&weight)) {
                let weight = json!(preferred["weight"].as_i64().unwrap_or(0));
                errors.push(FieldError::invalid(format!("{at}.weight"), &weight, "must be in the range 1-100"));
            }
            errors.extend(term_errors(&preferred["podAffinityTerm"], &format!("{at}.podAffinityTerm")));
        }
    }
    errors
}

fn term_errors(term: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = names::selector_errors(&term["labelSelector"], &format!("{path}.labelSelector"));
    let key = text(term, "topologyKey");
    let at = format!("{path}.topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(&*at, "can not be empty"));
    }
    errors.extend(FieldError::each(&at, &json!(key), names::qualified(key)));
    errors
}

/// Terms of a pod's affinity that select nothing.
pub(super) fn affinity_warnings(affinity: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for name in ["podAffinity", "podAntiAffinity"] {
        for (when, below) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", ""),
            ("preferredDuringSchedulingIgnoredDuringExecution", "podAffinityTerm"),
        ] {
            for (index, term) in list(&affinity[name], when) {
                let (term, dot) = if below.is_empty() { (term, "") } else { (&term[below], ".") };
                if term["labelSelector"].is_null() {
                    let at = format!("{path}.{name}.{when}[{index}]{dot}{below}.labelSelector");
                    warnings.push(format!("{at}: a null labelSelector results in matching no pod"));
                }
            }
        }
    }
    warnings
}

/// `topologySpreadConstraints` of a pod.
pub(super) fn spread_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, constraint) in list(spec, "topologySpreadConstraints") {
        let at = |name: &str| format!("{path}.topologySpreadConstraints[{index}].{name}");
        if constraint["maxSkew"].as_i64().unwrap_or(0) <= 0 {
            let skew = json!(constraint["maxSkew"].as_i64().unwrap_or(0));
            errors.push(FieldError::invalid(at("maxSkew"), &skew, "must be greater than zero"));
        }
        if text(constraint, "topologyKey").is_empty() {
            errors.push(FieldError::required(at("topologyKey"), "can not be empty"));
        }
        let known = ["DoNotSchedule", "ScheduleAnyway"];
        let word = text(constraint, "whenUnsatisfiable");
        if !known.contains(&word) {
            errors.push(FieldError::not_supported(at("whenUnsatisfiable"), &json!(word), &known));
        }
        errors.extend(names::selector_errors(&constraint["labelSelector"], &at("labelSelector")));
    }
    errors
}

/// `lifecycle` of a container.
pub(super) fn lifecycle_errors(lifecycle: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for name in ["postStart", "preStop"] {
        let handler = &lifecycle[name];
        if !handler.is_object() {
            continue;
        }
        let at = format!("{path}.{name}");
        if ["exec", "httpGet", "tcpSocket", "sleep"].iter().all(|kind| handler[*kind].is_null()) {
            errors.push(FieldError::required(&*at, "must specify a handler type"));
        }
        if handler["exec"].is_object() && list(&handler["exec"], "command").next().is_none() {
            errors.push(FieldError::required(format!("{at}.exec.command"), ""));
        }
    }
    errors
}

/// `os` and `dnsConfig` of a pod.
pub(super) fn system_errors(spec: &Value, path: &str) -> (Vec<FieldError>, Vec<FieldError>) {
    let (mut os, mut dns) = (Vec::new(), Vec::new());
    if spec["os"].is_object() {
        match text(&spec["os"], "name") {
            "" => os.push(FieldError::required(format!("{path}.os.name"), "cannot be empty")),
            "linux" | "windows" => {}
            word => os.push(FieldError::not_supported(format!("{path}.os"), &json!(word), &["linux", "windows"])),
        }
    }
    if spec["dnsPolicy"] == "None" {
        let at = format!("{path}.dnsConfig");
        if spec["dnsConfig"].is_null() {
            dns.push(FieldError::required(at, "must provide `dnsConfig` when `dnsPolicy` is None"));
        } else if list(&spec["dnsConfig"], "nameservers").next().is_none() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            dns.push(FieldError::required(format!("{at}.nameservers"), detail));
        }
    }
    (os, dns)
}

/// The field of the pod that a variable shows.
pub(super) fn field_path_error(reference: &Value, path: &str) -> Option<FieldError> {
    let shown = text(reference, "fieldPath");
    let at = format!("{path}.fieldPath");
    if shown.is_empty() {
        return Some(FieldError::required(at, ""));
    }
    let subscript = ["metadata.labels['", "metadata.annotations['"].iter().any(|begin| shown.starts_with(begin));
    let detail = format!("error converting fieldPath: field label not supported: {shown}");
    (!subscript && !FIELD_PATHS.contains(&shown)).then(|| FieldError::invalid(at, &json!(shown), &detail))
}
