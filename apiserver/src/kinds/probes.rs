//! What is wrong with probes, with hooks, and with what both do.

use serde_json::{Value, json};

use super::names;
use super::pods::{list, not_negative, text};
use crate::failure::FieldError;

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// Hooks and probes of a container that runs beside others; `grace` is how long its pod may take to end.
pub(super) fn lasting_errors(container: &Value, path: &str, grace: i64) -> Vec<FieldError> {
    let mut errors = lifecycle_errors(&container["lifecycle"], &format!("{path}.lifecycle"), grace);
    for name in PROBES {
        errors.extend(probe_errors(&container[name], name, &format!("{path}.{name}"), grace));
    }
    errors
}

/// Hooks and probes of a container that ends before others begin: it has none.
pub(super) fn passing_errors(container: &Value, path: &str) -> Vec<FieldError> {
    let detail = "may not be set for init containers without restartPolicy=Always";
    let given = ["lifecycle"].into_iter().chain(PROBES).filter(|name| container[*name].is_object());
    given.map(|name| FieldError::forbidden(format!("{path}.{name}"), detail)).collect()
}

fn lifecycle_errors(lifecycle: &Value, path: &str, grace: i64) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for name in ["postStart", "preStop"] {
        if lifecycle[name].is_object() {
            errors.extend(handlers_errors(&lifecycle[name], &format!("{path}.{name}"), grace));
        }
    }
    errors
}

fn probe_errors(probe: &Value, kind: &str, path: &str, grace: i64) -> Vec<FieldError> {
    if !probe.is_object() {
        return Vec::new();
    }
    let mut errors = handlers_errors(probe, path, grace);
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.extend(not_negative(&probe[name], &format!("{path}.{name}")));
    }
    let (seconds, field) = (&probe["terminationGracePeriodSeconds"], format!("{path}.terminationGracePeriodSeconds"));
    if seconds.as_i64().is_some_and(|seconds| seconds <= 0) {
        errors.push(FieldError::invalid(&*field, seconds, "must be greater than 0"));
    }
    if kind == "readinessProbe" {
        if seconds.is_i64() {
            errors.push(FieldError::invalid(field, seconds, "must not be set for readinessProbes"));
        }
    } else if probe["successThreshold"].as_i64().is_some_and(|times| times != 1) {
        errors.push(FieldError::invalid(format!("{path}.successThreshold"), &probe["successThreshold"], "must be 1"));
    }
    errors
}

/// Exactly one thing is done.
fn handlers_errors(holder: &Value, path: &str, grace: i64) -> Vec<FieldError> {
    let given: Vec<&str> = HANDLERS.into_iter().filter(|kind| holder[*kind].is_object()).collect();
    let Some((first, others)) = given.split_first() else {
        return vec![FieldError::required(path, "must specify a handler type")];
    };
    let mut errors = handler_errors(&holder[*first], first, &format!("{path}.{first}"), grace);
    let detail = "may not specify more than 1 handler type";
    errors.extend(others.iter().map(|kind| FieldError::forbidden(format!("{path}.{kind}"), detail)));
    errors
}

fn handler_errors(handler: &Value, kind: &str, path: &str, grace: i64) -> Vec<FieldError> {
    let port = || port_or_name_errors(&handler["port"], &format!("{path}.port"));
    match kind {
        "exec" if list(handler, "command").next().is_none() => {
            vec![FieldError::required(format!("{path}.command"), "")]
        }
        "httpGet" => [http_begin_errors(handler, path), port(), http_end_errors(handler, path)].concat(),
        "tcpSocket" | "grpc" => port(),
        "sleep" => {
            let seconds = handler["seconds"].as_i64().unwrap_or(0);
            let detail = format!(
                "must be non-negative and less than terminationGracePeriodSeconds ({grace}). Additionally, a sleep action with a duration of zero seconds is only allowed when it is the only action"
            );
            let fits = (0..=grace).contains(&seconds);
            if fits { Vec::new() } else { vec![FieldError::invalid(path, &json!(seconds), &detail)] }
        }
        _ => Vec::new(),
    }
}

fn http_begin_errors(handler: &Value, path: &str) -> Vec<FieldError> {
    let none = text(handler, "path").is_empty();
    none.then(|| FieldError::required(format!("{path}.path"), "")).into_iter().collect()
}

fn http_end_errors(handler: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (scheme, schemes) = (text(handler, "scheme"), ["HTTP", "HTTPS"]);
    if !schemes.contains(&scheme) {
        errors.push(FieldError::not_supported(format!("{path}.scheme"), &json!(scheme), &schemes));
    }
    for (_, header) in list(handler, "httpHeaders") {
        let complaints = names::header_name(text(header, "name"));
        errors.extend(FieldError::each(&format!("{path}.httpHeaders"), &json!(text(header, "name")), complaints));
    }
    errors
}

/// A port by number or by name.
pub(super) fn port_or_name_errors(port: &Value, field: &str) -> Vec<FieldError> {
    match port {
        Value::String(name) => FieldError::each(field, port, names::port_name(name)),
        number => {
            let number = number.as_i64().unwrap_or(0);
            let error = names::port_number(number).map(|detail| FieldError::invalid(field, &json!(number), detail));
            error.into_iter().collect()
        }
    }
}
