//! What is wrong with disruption budgets, classes of priority, storage and runtimes, network policies and namespaces.

use serde_json::{Value, json};

use super::{names, workload_rules};
use crate::failure::FieldError;

/// Beyond it are the classes of the system.
const DIRECTIONS: [&str; 2] = ["Ingress", "Egress"];

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// An error if a word is given that is none of those known.
fn unknown(value: &Value, field: &str, known: &[&str]) -> Option<FieldError> {
    let word = value.as_str().filter(|word| !known.contains(word))?;
    Some(FieldError::not_supported(field, &json!(word), known))
}

/// A PodDisruptionBudget.
pub(super) fn budget(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            spec["minAvailable"], spec["selector"], spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]
        );
        errors.push(FieldError {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {shown}: minAvailable and maxUnavailable cannot be both set"),
            field: "spec".into(),
        });
    }
    for name in ["minAvailable", "maxUnavailable"] {
        let field = format!("spec.{name}");
        errors.extend(workload_rules::share_errors(&spec[name], &field));
        errors.extend(workload_rules::too_much(&spec[name], &field));
    }
    errors.extend(names::selector_errors(&spec["selector"], "spec.selector"));
    let known = ["AlwaysAllow", "IfHealthyBudget"];
    errors.extend(unknown(&spec["unhealthyPodEvictionPolicy"], "spec.unhealthyPodEvictionPolicy", &known));
    errors
}

/// The status of a PodDisruptionBudget.
pub(super) fn budget_status(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for name in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        let value = &object["status"][name];
        if value.as_i64().is_some_and(|number| number < 0) {
            errors.push(FieldError::invalid(format!("status.{name}"), value, "must be greater than or equal to 0"));
        }
    }
    errors
}

/// Finalizers of a namespace's spec.
pub(super) fn namespace(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (_, finalizer) in items(&object["spec"]["finalizers"]) {
        let word = finalizer.as_str().unwrap_or_default();
        let complaints = names::qualified(word);
        if !complaints.is_empty() {
            errors.extend(FieldError::each("spec.finalizers", finalizer, complaints));
        } else if !word.contains('/') && word != "kubernetes" {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid("spec.finalizers", finalizer, detail));
        }
    }
    errors
}

/// A namespace ends when it is deleted, and not before.
pub(super) fn namespace_status(object: &Value) -> Vec<FieldError> {
    let phase = &object["status"]["phase"];
    let (deleted, shown) = (object["metadata"]["deletionTimestamp"].is_string(), phase.as_str().unwrap_or_default());
    let (wanted, state) = if deleted { ("Terminating", "not empty") } else { ("Active", "empty") };
    if shown == wanted {
        return Vec::new();
    }
    let detail = format!("may only be '{wanted}' if `deletionTimestamp` is {state}");
    vec![FieldError::invalid("status.Phase", &Value::from(shown), &detail)]
}

/// A NetworkPolicy.
pub(super) fn network_policy(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = names::selector_errors(&spec["podSelector"], "spec.podSelector");
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(&spec[direction]) {
            let at = format!("spec.{direction}[{index}]");
            for (number, port) in items(&rule["ports"]) {
                errors.extend(policy_port_errors(port, &format!("{at}.ports[{number}]")));
            }
            for (number, peer) in items(&rule[peers]) {
                errors.extend(peer_errors(peer, &format!("{at}.{peers}[{number}]")));
            }
        }
    }
    let types = &spec["policyTypes"];
    if types.as_array().is_some_and(|list| list.len() > 2) {
        let detail = "may not specify more than two policyTypes";
        return [errors, vec![FieldError::invalid("spec.policyTypes", types, detail)]].concat();
    }
    for (index, kind) in items(types) {
        errors.extend(unknown(kind, &format!("spec.policyTypes[{index}]"), &DIRECTIONS));
    }
    errors
}

fn policy_port_errors(port: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    errors.extend(unknown(&port["protocol"], &format!("{path}.protocol"), &["TCP", "UDP", "SCTP"]));
    let (field, end) = (format!("{path}.port"), &port["endPort"]);
    let end_field = format!("{path}.endPort");
    match &port["port"] {
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or_default();
            errors.extend(names::port_number(number).map(|why| FieldError::invalid(&*field, &json!(number), why)));
            match end.as_i64() {
                Some(end) if end < number => {
                    let detail = "must be greater than or equal to `port`";
                    // It is the first port that is shown.
                    errors.push(FieldError::invalid(end_field, &json!(number), detail));
                }
                Some(end) => {
                    errors.extend(names::port_number(end).map(|why| FieldError::invalid(end_field, &json!(end), why)))
                }
                None => {}
            }
        }
        Value::String(name) => {
            if !end.is_null() {
                let detail = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(end_field, end, detail));
            }
            errors.extend(FieldError::each(&field, &port["port"], names::port_name(name)));
        }
        _ if !end.is_null() => {
            let detail = "may not be specified when `port` is not specified";
            errors.push(FieldError::invalid(end_field, end, detail));
        }
        _ => {}
    }
    errors
}

fn peer_errors(peer: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut selectors = 0;
    for name in ["podSelector", "namespaceSelector"] {
        if peer[name].is_object() {
            selectors += 1;
            errors.extend(names::selector_errors(&peer[name], &format!("{path}.{name}")));
        }
    }
    let block = &peer["ipBlock"];
    if block.is_object() {
        errors.extend(block_errors(block, &format!("{path}.ipBlock")));
    }
    match (selectors, block.is_object()) {
        (0, false) => errors.push(FieldError::required(path, "must specify a peer")),
        (1.., true) => errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer")),
        _ => {}
    }
    errors
}

fn block_errors(block: &Value, path: &str) -> Vec<FieldError> {
    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let field = format!("{path}.cidr");
    let range = match text(block, "cidr") {
        "" => return vec![FieldError::required(field, "")],
        text => text.parse::<ipnet::IpNet>(),
    };
    let Ok(range) = range else { return vec![FieldError::invalid(field, &block["cidr"], detail)] };
    let mut errors = Vec::new();
    for (index, except) in items(&block["except"]) {
        let field = format!("{path}.except[{index}]");
        match except.as_str().unwrap_or_default().parse::<ipnet::IpNet>() {
            Err(_) => errors.push(FieldError::invalid(field, except, detail)),
            Ok(inner) if !range.contains(&inner) || range.prefix_len() >= inner.prefix_len() => {
                errors.push(FieldError::invalid(field, except, "must be a strict subset of `cidr`"));
            }
            Ok(_) => {}
        }
    }
    errors
}
