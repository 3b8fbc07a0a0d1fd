//! What is wrong with where a pod may go, and with what it knows of its surroundings.

use serde_json::{Value, json};

use super::core_rules::address_error;
use super::names;
use super::pod_security::word_error;
use super::pods::{list, text};
use crate::failure::FieldError;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// `affinity` of a pod.
pub(super) fn affinity_errors(affinity: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (node, at) = (&affinity["nodeAffinity"], format!("{path}.nodeAffinity"));
    if node[REQUIRED].is_object() {
        errors.extend(node_selector_errors(&node[REQUIRED], &format!("{at}.{REQUIRED}"), true));
    }
    for (index, preferred) in list(node, PREFERRED) {
        let at = format!("{at}.{PREFERRED}[{index}]");
        errors.extend(weight_error(preferred, &at));
        errors.extend(node_term_errors(&preferred["preference"], &format!("{at}.preference"), true));
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let at = format!("{path}.{name}");
        for (index, term) in list(&affinity[name], REQUIRED) {
            errors.extend(term_errors(term, &format!("{at}.{REQUIRED}[{index}]")));
        }
        for (index, preferred) in list(&affinity[name], PREFERRED) {
            let at = format!("{at}.{PREFERRED}[{index}]");
            errors.extend(weight_error(preferred, &at));
            errors.extend(term_errors(&preferred["podAffinityTerm"], &format!("{at}.podAffinityTerm")));
        }
    }
    errors
}

fn weight_error(preferred: &Value, path: &str) -> Option<FieldError> {
    let weight = preferred["weight"].as_i64().unwrap_or(0);
    let detail = "must be in the range 1-100";
    (!(1..=100).contains(&weight)).then(|| FieldError::invalid(format!("{path}.weight"), &json!(weight), detail))
}

/// Nodes by their labels and fields; `lenient` takes any value.
pub(super) fn node_selector_errors(selector: &Value, path: &str, lenient: bool) -> Vec<FieldError> {
    let field = format!("{path}.nodeSelectorTerms");
    if list(selector, "nodeSelectorTerms").next().is_none() {
        return vec![FieldError::required(field, "must have at least one node selector term")];
    }
    let terms = list(selector, "nodeSelectorTerms");
    terms.flat_map(|(index, term)| node_term_errors(term, &format!("{field}[{index}]"), lenient)).collect()
}

fn node_term_errors(term: &Value, path: &str, lenient: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, requirement) in list(term, "matchExpressions") {
        errors.extend(node_label_errors(requirement, &format!("{path}.matchExpressions[{index}]"), lenient));
    }
    for (index, requirement) in list(term, "matchFields") {
        errors.extend(node_field_errors(requirement, &format!("{path}.matchFields[{index}]")));
    }
    errors
}

fn node_label_errors(requirement: &Value, path: &str, lenient: bool) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let count = list(requirement, "values").count();
    let mut errors = Vec::new();
    match text(requirement, "operator") {
        "In" | "NotIn" if count == 0 => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(at("values"), detail));
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(at("values"), detail));
        }
        "Gt" | "Lt" if count != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(at("values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        word => errors.push(FieldError::invalid(at("operator"), &json!(word), "not a valid selector operator")),
    }
    let key = text(requirement, "key");
    errors.extend(FieldError::each(&at("key"), &json!(key), names::qualified(key)));
    if !lenient {
        for (number, value) in list(requirement, "values") {
            let complaints = names::label_value(value.as_str().unwrap_or_default());
            errors.extend(FieldError::each(&format!("{}[{number}]", at("values")), value, complaints));
        }
    }
    errors
}

fn node_field_errors(requirement: &Value, path: &str) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let mut errors = Vec::new();
    match text(requirement, "operator") {
        "In" | "NotIn" => {
            if list(requirement, "values").count() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(FieldError::required(at("values"), detail));
            }
        }
        word => errors.push(FieldError::invalid(at("operator"), &json!(word), "not a valid selector operator")),
    }
    match text(requirement, "key") {
        "metadata.name" => {
            for (number, value) in list(requirement, "values") {
                let complaints = names::subdomain(value.as_str().unwrap_or_default());
                errors.extend(FieldError::each(&format!("{}[{number}]", at("values")), value, complaints));
            }
        }
        key => errors.push(FieldError::invalid(at("key"), &json!(key), "not a valid field selector key")),
    }
    errors
}

fn term_errors(term: &Value, path: &str) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let mut errors = names::selector_errors(&term["labelSelector"], &at("labelSelector"));
    errors.extend(names::selector_errors(&term["namespaceSelector"], &at("namespaceSelector")));
    for (_, namespace) in list(term, "namespaces") {
        let complaints = names::label(namespace.as_str().unwrap_or_default());
        errors.extend(FieldError::each(&at("namespace"), namespace, complaints));
    }
    for name in ["matchLabelKeys", "mismatchLabelKeys"] {
        errors.extend(key_list_errors(term, name, path));
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(at("topologyKey"), "can not be empty"));
    }
    errors.extend(FieldError::each(&at("topologyKey"), &json!(key), names::qualified(key)));
    errors
}

/// Keys of labels whose values a new pod brings along.
fn key_list_errors(holder: &Value, name: &str, path: &str) -> Vec<FieldError> {
    let field = format!("{path}.{name}");
    let mut errors = Vec::new();
    for (index, key) in list(holder, name) {
        let complaints = names::qualified(key.as_str().unwrap_or_default());
        errors.extend(FieldError::each(&format!("{field}[{index}]"), key, complaints));
    }
    if list(holder, name).next().is_some() && holder["labelSelector"].is_null() {
        errors.push(FieldError::forbidden(field, "must not be specified when labelSelector is not set"));
    }
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
    let constraints: Vec<&Value> = list(spec, "topologySpreadConstraints").map(|(_, one)| one).collect();
    for (index, constraint) in constraints.iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{index}]");
        let at = |name: &str| format!("{path}.{name}");
        let skew = constraint["maxSkew"].as_i64().unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(at("maxSkew"), &json!(skew), "must be greater than zero"));
        }
        if text(constraint, "topologyKey").is_empty() {
            errors.push(FieldError::required(at("topologyKey"), "can not be empty"));
        }
        let known = ["DoNotSchedule", "ScheduleAnyway"];
        let word = text(constraint, "whenUnsatisfiable");
        if !known.contains(&word) {
            errors.push(FieldError::not_supported(at("whenUnsatisfiable"), &json!(word), &known));
        }
        let same = |other: &&Value| {
            ["topologyKey", "whenUnsatisfiable"].iter().all(|name| text(other, name) == text(constraint, name))
        };
        if constraints[index + 1..].iter().any(same) {
            let shown = json!(format!("{{{}, {word}}}", text(constraint, "topologyKey")));
            errors.push(FieldError::duplicate(at("{topologyKey, whenUnsatisfiable}"), &shown));
        }
        if let Some(least) = constraint["minDomains"].as_i64() {
            if least <= 0 {
                errors.push(FieldError::invalid(at("minDomains"), &json!(least), "must be greater than zero"));
            }
            if word != "DoNotSchedule" {
                let detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
                let detail = detail.replace("not ScheduleAnyway", &format!("not {word}"));
                errors.push(FieldError::invalid(at("minDomains"), &json!(least), &detail));
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.extend(word_error(constraint, name, &path, &["Honor", "Ignore"]));
        }
        errors.extend(key_list_errors(constraint, "matchLabelKeys", &path));
        errors.extend(names::selector_errors(&constraint["labelSelector"], &at("labelSelector")));
    }
    errors
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LENGTH_MAX: usize = 2048;

/// `dnsConfig` of a pod.
pub(super) fn dns_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let (config, at) = (&spec["dnsConfig"], format!("{path}.dnsConfig"));
    let words = |name: &str| -> Vec<&Value> { list(config, name).map(|(_, word)| word).collect() };
    let (servers, searches) = (words("nameservers"), words("searches"));
    if spec["dnsPolicy"] == "None" {
        if config.is_null() {
            return vec![FieldError::required(at, "must provide `dnsConfig` when `dnsPolicy` is None")];
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return vec![FieldError::required(format!("{at}.nameservers"), detail)];
        }
    }
    let mut errors = Vec::new();
    let mut refuse = |name: &str, detail: String| {
        errors.push(FieldError::invalid(format!("{at}.{name}"), &config[name], &detail));
    };
    if servers.len() > NAMESERVERS_MAX {
        refuse("nameservers", format!("must not have more than {NAMESERVERS_MAX} nameservers"));
    }
    for (index, server) in servers.into_iter().enumerate() {
        errors.extend(address_error(server, &format!("{at}.nameservers[{index}]")));
    }
    let mut refuse = |name: &str, detail: String| {
        errors.push(FieldError::invalid(format!("{at}.{name}"), &config[name], &detail));
    };
    if searches.len() > SEARCHES_MAX {
        refuse("searches", format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    let joined: Vec<&str> = searches.iter().filter_map(|word| word.as_str()).collect();
    if joined.join(" ").len() > SEARCH_LENGTH_MAX {
        let most = format!("must not have more than {SEARCH_LENGTH_MAX} characters");
        refuse("searches", format!("{most} (including spaces) in the search list"));
    }
    for (index, search) in searches.into_iter().enumerate().filter(|(_, search)| **search != ".") {
        let word = search.as_str().unwrap_or_default();
        let word = word.strip_suffix('.').unwrap_or(word);
        let complaints = names::subdomain_with_underscores(word);
        errors.extend(FieldError::each(&format!("{at}.searches[{index}]"), &json!(word), complaints));
    }
    for (index, _) in list(config, "options").filter(|(_, option)| text(option, "name").is_empty()) {
        errors.push(FieldError::required(format!("{at}.options[{index}]"), "must not be empty"));
    }
    errors
}

/// `readinessGates` of a pod.
pub(super) fn readiness_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let gates = list(spec, "readinessGates");
    gates
        .flat_map(|(index, gate)| {
            let kind = text(gate, "conditionType");
            let field = format!("{path}.readinessGates[{index}].conditionType");
            FieldError::each(&field, &json!(kind), names::qualified(kind))
        })
        .collect()
}

/// `hostAliases` of a pod.
pub(super) fn alias_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, alias) in list(spec, "hostAliases") {
        let at = |name: &str| format!("{path}.hostAliases[{index}].{name}");
        errors.extend(address_error(&json!(text(alias, "ip")), &at("ip")));
        for (number, host) in list(alias, "hostnames") {
            let complaints = names::subdomain(host.as_str().unwrap_or_default());
            errors.extend(FieldError::each(&format!("{}[{number}]", at("hostnames")), host, complaints));
        }
    }
    errors
}

/// `os` of a pod.
pub(super) fn system_error(spec: &Value, path: &str) -> Option<FieldError> {
    if !spec["os"].is_object() {
        return None;
    }
    match text(&spec["os"], "name") {
        "" => Some(FieldError::required(format!("{path}.os.name"), "cannot be empty")),
        "linux" | "windows" => None,
        word => Some(FieldError::not_supported(format!("{path}.os"), &json!(word), &["linux", "windows"])),
    }
}
