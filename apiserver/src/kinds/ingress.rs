//! Ingresses and their classes.

use serde_json::{Value, json};

use super::{core_rules, names};
use crate::failure::FieldError;

/// The old way to say the class.
pub(crate) const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
/// What a path that is compared may not hold, and may not end with.
const ODD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const ODD_ENDS: [&str; 2] = ["/..", "/."];
const CONTROLLER_LONGEST: usize = 250;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// An error about a field whose value is not told.
fn untold(field: &str, detail: &str) -> FieldError {
    FieldError::invalid(field, &json!(""), detail)
}

/// Errors of an Ingress, and of the change of one.
pub(super) fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    if spec["rules"].as_array().is_none_or(Vec::is_empty) && spec["defaultBackend"].is_null() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", &spec["rules"], detail));
    }
    if spec["defaultBackend"].is_object() {
        errors.extend(backend_errors(&spec["defaultBackend"], "spec.defaultBackend"));
    }
    for (index, rule) in list(&spec["rules"]) {
        let path = format!("spec.rules[{index}]");
        if !text(rule, "host").is_empty() {
            errors.extend(host_errors(&rule["host"], &format!("{path}.host"), true));
        }
        if rule["http"].is_object() {
            errors.extend(rule_errors(&rule["http"], &format!("{path}.http.paths")));
        }
    }
    for (index, entry) in list(&spec["tls"]) {
        let path = format!("spec.tls[{index}]");
        for (number, host) in list(&entry["hosts"]) {
            errors.extend(host_errors(host, &format!("{path}.hosts[{number}]"), false));
        }
        let secret = text(entry, "secretName");
        if !secret.is_empty() {
            errors.extend(FieldError::each(&format!("{path}.secretName"), &json!(secret), names::subdomain(secret)));
        }
    }
    let class = &spec["ingressClassName"];
    if let Some(name) = class.as_str() {
        errors.extend(FieldError::each("spec.ingressClassName", class, names::subdomain(name)));
    }
    let annotation = &object["metadata"]["annotations"][CLASS_ANNOTATION];
    if old.is_none() && annotation.is_string() && class.is_string() && annotation != class {
        let detail = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(format!("annotations.{CLASS_ANNOTATION}"), annotation, detail));
    }
    errors
}

fn host_errors(host: &Value, field: &str, rule: bool) -> Vec<FieldError> {
    let name = host.as_str().unwrap_or_default();
    if rule && name.parse::<std::net::IpAddr>().is_ok() {
        return vec![FieldError::invalid(field, host, "must be a DNS name, not an IP address")];
    }
    let complaints = if name.contains('*') { names::wildcard(name) } else { names::subdomain(name) };
    FieldError::each(field, host, complaints)
}

fn rule_errors(http: &Value, field: &str) -> Vec<FieldError> {
    if http["paths"].as_array().is_none_or(Vec::is_empty) {
        return vec![FieldError::required(field, "")];
    }
    let mut errors = Vec::new();
    for (index, path) in list(&http["paths"]) {
        let at = format!("{field}[{index}]");
        errors.extend(path_errors(path, &at));
        // Without a type nothing else of a path is looked at.
        if path["pathType"].is_string() {
            errors.extend(backend_errors(&path["backend"], &format!("{at}.backend")));
        }
    }
    errors
}

fn path_errors(path: &Value, at: &str) -> Vec<FieldError> {
    let (value, field) = (json!(text(path, "path")), format!("{at}.path"));
    let route = text(path, "path");
    let absolute = || FieldError::invalid(&*field, &value, "must be an absolute path");
    match path["pathType"].as_str() {
        None => vec![FieldError::required(format!("{at}.pathType"), "pathType must be specified")],
        Some("Exact" | "Prefix") if !route.starts_with('/') => vec![absolute()],
        Some("Exact" | "Prefix") => {
            let parts = ODD_PARTS.iter().filter(|part| route.contains(**part));
            let mut errors: Vec<FieldError> =
                parts.map(|part| FieldError::invalid(&*field, &value, &format!("must not contain '{part}'"))).collect();
            let ends = ODD_ENDS.iter().filter(|end| route.ends_with(**end));
            errors.extend(ends.map(|end| FieldError::invalid(&*field, &value, &format!("cannot end with '{end}'"))));
            errors
        }
        Some("ImplementationSpecific") if !route.is_empty() && !route.starts_with('/') => vec![absolute()],
        Some("ImplementationSpecific") => Vec::new(),
        Some(other) => vec![FieldError::not_supported(format!("{at}.pathType"), &json!(other), &PATH_TYPES)],
    }
}

fn backend_errors(backend: &Value, path: &str) -> Vec<FieldError> {
    match (backend["resource"].is_object(), backend["service"].is_object()) {
        (true, true) => vec![untold(path, "cannot set both resource and service backends")],
        (false, false) => vec![untold(path, "resource or service backend is required")],
        (true, false) => reference_errors(&backend["resource"], &format!("{path}.resource")),
        (false, true) => service_errors(&backend["service"], path),
    }
}

fn service_errors(service: &Value, path: &str) -> Vec<FieldError> {
    let field = format!("{path}.service.name");
    let mut errors = match text(service, "name") {
        "" => vec![FieldError::required(field, "")],
        name => FieldError::each(&field, &json!(name), names::label_1035(name)),
    };
    let (name, number) = (text(&service["port"], "name"), service["port"]["number"].as_i64().unwrap_or(0));
    match (name.is_empty(), number) {
        (false, 0) => {
            let field = format!("{path}.service.port.name");
            errors.extend(FieldError::each(&field, &json!(name), names::port_name(name)));
        }
        (false, _) => errors.push(untold(path, "cannot set both port name & port number")),
        (true, 0) => errors.push(FieldError::required(path, "port name or number is required")),
        (true, number) => {
            let field = format!("{path}.service.port.number");
            let wrong = names::port_number(number);
            errors.extend(wrong.map(|detail| FieldError::invalid(field, &json!(number), detail)));
        }
    }
    errors
}

/// A reference to an object of any kind: in the namespace, or of the cluster.
fn reference_errors(reference: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(group) = reference["apiGroup"].as_str() {
        errors.extend(FieldError::each(&format!("{path}.apiGroup"), &json!(group), names::subdomain(group)));
    }
    for name in ["kind", "name"] {
        let field = format!("{path}.{name}");
        match text(reference, name) {
            "" => errors.push(FieldError::required(field, "")),
            word => errors.extend(FieldError::each(&field, &json!(word), names::path_segment(word))),
        }
    }
    errors
}

/// Errors of `/status`.
pub(super) fn validate_status(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, point) in list(&object["status"]["loadBalancer"]["ingress"]) {
        let path = format!("status.loadBalancer.ingress[{index}]");
        if !text(point, "ip").is_empty() {
            errors.extend(core_rules::address_error(&point["ip"], &format!("{path}.ip")));
        }
        let host = text(point, "hostname");
        let field = format!("{path}.hostname");
        if host.is_empty() {
            continue;
        }
        errors.extend(FieldError::each(&field, &point["hostname"], names::subdomain(host)));
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.push(FieldError::invalid(field, &point["hostname"], "must be a DNS name, not an IP address"));
        }
    }
    errors
}

/// Parameters of a class are those of the cluster, if nothing else is said.
pub(super) fn default_class(object: &mut Value) {
    let parameters = &mut object["spec"]["parameters"];
    if parameters.is_object() && parameters["scope"].is_null() {
        parameters["scope"] = json!("Cluster");
    } else if parameters.is_null()
        && let Some(spec) = object["spec"].as_object_mut()
    {
        spec.remove("parameters");
    }
}

/// Errors of a class, and of the change of one.
pub(super) fn validate_class(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    match text(spec, "controller") {
        "" => errors.push(FieldError::required("spec.controller", "")),
        name => {
            if name.len() > CONTROLLER_LONGEST {
                errors.push(FieldError::too_long("spec.controller", CONTROLLER_LONGEST));
            }
            errors.extend(names::domain_path_error("spec.controller", name));
        }
    }
    errors.extend(parameter_errors(&spec["parameters"]));
    if old.is_some_and(|old| old["spec"]["controller"] != spec["controller"]) {
        errors.push(FieldError::invalid("spec.controller", &spec["controller"], "field is immutable"));
    }
    errors
}

fn parameter_errors(parameters: &Value) -> Vec<FieldError> {
    if !parameters.is_object() {
        return Vec::new();
    }
    let mut errors = reference_errors(parameters, "spec.parameters");
    let (namespace, field) = (text(parameters, "namespace"), "spec.parameters.namespace");
    match parameters["scope"].as_str() {
        Some("Namespace") if namespace.is_empty() => {
            errors.push(FieldError::required(field, "`parameters.scope` is set to 'Namespace'"));
        }
        Some("Namespace") => errors.extend(FieldError::each(field, &json!(namespace), names::label(namespace))),
        Some("Cluster") if parameters["namespace"].is_string() => {
            errors.push(FieldError::forbidden(field, "`parameters.scope` is set to 'Cluster'"));
        }
        Some("Cluster") => {}
        scope => {
            let known = ["Cluster", "Namespace"];
            errors.push(FieldError::not_supported("spec.parameters.scope", &json!(scope), &known));
        }
    }
    errors
}
