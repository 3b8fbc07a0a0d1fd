//! What is wrong with nodes, leases, events, endpoint slices, secrets, configuration and roles.

use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::names;
use super::pods::{not_negative, taint_errors, toleration_errors};
use crate::failure::FieldError;

const IMMUTABLE: &str = "field is immutable when `immutable` is set";
const RBAC: &str = "rbac.authorization.k8s.io";
/// Values of one Secret or ConfigMap together.
const DATA_MAX: usize = 1 << 20;
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
/// Zones, or nodes, of one endpoint.
const HINTS_MAX: usize = 8;
const PORTS_MAX: usize = 20_000;
const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// What is wrong with an address.
pub(super) fn address_error(address: &Value, field: &str) -> Option<FieldError> {
    let text = address.as_str().unwrap_or_default();
    match text.parse::<IpAddr>() {
        Ok(_) => None,
        // Numbers with leading zeros were once read as decimal.
        Err(_) if text.split('.').count() == 4 && text.split('.').all(|part| part.parse::<u8>().is_ok()) => None,
        Err(_) => Some(FieldError::invalid(field, address, ADDRESS)),
    }
}

/// What is wrong with a range of addresses.
pub(super) fn range_error(range: &Value, field: &str) -> Option<FieldError> {
    let parsed = range.as_str().unwrap_or_default().trim().parse::<ipnet::IpNet>();
    parsed.is_err().then(|| FieldError::invalid(field, range, RANGE))
}

/// Addresses that name nobody else.
pub(super) fn special_address_error(address: &Value, field: &str) -> Option<FieldError> {
    let text = address.as_str().unwrap_or_default();
    let ip: IpAddr = text.parse().ok()?;
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    let multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] == 0xff02,
    };
    let detail = if ip.is_unspecified() {
        format!("may not be unspecified ({text})")
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()
    } else if local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()
    } else if multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()
    } else {
        return None;
    };
    Some(FieldError::invalid(field, address, &detail))
}

pub(super) fn node(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = node_form(object);
    let Some(old) = old else { return errors };
    errors.extend(taint_errors(&object["spec"]["taints"], "metadata.taints"));
    let mut seen: Vec<&Value> = Vec::new();
    for (index, address) in object["status"]["addresses"].as_array().into_iter().flatten().enumerate() {
        if seen.contains(&address) {
            let shown = format!("{{\"Type\":{},\"Address\":{}}}", address["type"], address["address"]);
            let message = format!("Duplicate value: {shown}");
            let field = format!("status.addresses[{index}]");
            errors.push(FieldError { reason: "FieldValueDuplicate", message, field });
        }
        seen.push(address);
    }
    for (name, amount) in object["status"]["capacity"].as_object().into_iter().flatten() {
        let (field, amount) = (format!("status.capacity.{name}"), amount.as_str().unwrap_or_default());
        let whole = matches!(
            name.as_str(),
            "pods" | "services" | "replicationcontrollers" | "resourcequotas" | "secrets" | "configmaps"
        );
        if amount.starts_with('-') {
            errors.push(FieldError::invalid(field, &json!(amount), "must be greater than or equal to 0"));
        } else if whole && amount.ends_with('m') {
            errors.push(FieldError::invalid(field, &json!(amount), "must be an integer"));
        }
    }
    let (new, old) = (&object["spec"], &old["spec"]);
    if new["externalID"] != old["externalID"] {
        errors.push(FieldError::forbidden("spec.externalID", "may not be updated"));
    }
    if old["podCIDRs"].as_array().is_some_and(|list| !list.is_empty()) && old["podCIDRs"] != new["podCIDRs"] {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.podCIDRs", detail));
    }
    if !text(old, "providerID").is_empty() && old["providerID"] != new["providerID"] {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.providerID", detail));
    }
    errors
}

fn node_form(object: &Value) -> Vec<FieldError> {
    let mut errors = taint_errors(&object["spec"]["taints"], "metadata.taints");
    let ranges: Vec<&Value> = object["spec"]["podCIDRs"].as_array().into_iter().flatten().collect();
    for (index, range) in ranges.iter().enumerate() {
        errors.extend(range_error(range, &format!("spec.podCIDRs[{index}]")));
    }
    let bad = ranges.iter().position(|range| range_error(range, "").is_some());
    if let Some(index) = bad.filter(|_| ranges.len() > 1) {
        let range = ranges[index].as_str().unwrap_or_default();
        let why = format!("invalid CIDR[{index}]: <nil> (invalid CIDR address: {range})");
        let message = format!("Internal error: invalid PodCIDRs. failed to check with dual stack with error:{why}");
        errors.push(FieldError { reason: "InternalError", message, field: "spec.podCIDRs".into() });
    }
    let six = ranges.iter().filter(|range| range.as_str().is_some_and(|text| text.contains(':'))).count();
    if ranges.len() > 2 || (ranges.len() == 2 && six != 1) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid("spec.podCIDRs", &object["spec"]["podCIDRs"], detail));
    }
    errors
}

pub(super) fn lease(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid("spec.leaseDurationSeconds", &json!(seconds), "must be greater than 0"));
    }
    errors.extend(not_negative(&spec["leaseTransitions"], "spec.leaseTransitions"));
    errors
}

pub(super) fn endpoint_slice(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let family = text(object, "addressType");
    let mut errors = Vec::new();
    if family.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    } else if !["FQDN", "IPv4", "IPv6"].contains(&family) {
        errors.push(FieldError::not_supported("addressType", &json!(family), &["FQDN", "IPv4", "IPv6"]));
    }
    errors.extend(slice_port_errors(object));
    let changed = old.is_none_or(|old| old["endpoints"] != object["endpoints"]);
    let endpoints: Vec<&Value> = object["endpoints"].as_array().filter(|_| changed).into_iter().flatten().collect();
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many("endpoints", endpoints.len(), ENDPOINTS_MAX));
    } else {
        for (index, endpoint) in endpoints.iter().enumerate() {
            errors.extend(endpoint_errors(endpoint, family, &format!("endpoints[{index}]")));
        }
    }
    if let Some(old) = old
        && old["addressType"] != object["addressType"]
    {
        errors.push(FieldError::invalid("addressType", &object["addressType"], "field is immutable"));
    }
    errors
}

pub(super) fn endpoints(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, subset) in object["subsets"].as_array().into_iter().flatten().enumerate() {
        let path = format!("subsets[{index}]");
        let list = |name: &str| subset[name].as_array().cloned().unwrap_or_default();
        if list("addresses").is_empty() && list("notReadyAddresses").is_empty() {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(&*path, detail));
        }
        for name in ["addresses", "notReadyAddresses"] {
            for (number, address) in list(name).iter().enumerate() {
                errors.extend(subset_address_errors(address, &format!("{path}.{name}[{number}]")));
            }
        }
        let ports = list("ports");
        for (number, port) in ports.iter().enumerate() {
            errors.extend(subset_port_errors(port, ports.len() > 1, &format!("{path}.ports[{number}]")));
        }
    }
    errors
}

fn subset_address_errors(address: &Value, path: &str) -> Vec<FieldError> {
    let at = format!("{path}.ip");
    let mut errors = Vec::new();
    match address_error(&address["ip"], &at) {
        Some(error) => errors.extend([error, FieldError::invalid(at, &address["ip"], "must be a valid IP address")]),
        None => errors.extend(special_address_error(&address["ip"], &at)),
    }
    if !text(address, "hostname").is_empty() {
        let complaints = names::label(text(address, "hostname"));
        errors.extend(FieldError::each(&format!("{path}.hostname"), &address["hostname"], complaints));
    }
    if address["nodeName"].is_string() {
        let complaints = names::subdomain(text(address, "nodeName"));
        errors.extend(FieldError::each(&format!("{path}.nodeName"), &address["nodeName"], complaints));
    }
    errors
}

fn subset_port_errors(port: &Value, several: bool, path: &str) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let mut errors = Vec::new();
    match text(port, "name") {
        "" if several => errors.push(FieldError::required(at("name"), "")),
        "" => {}
        name => errors.extend(FieldError::each(&at("name"), &port["name"], names::label(name))),
    }
    let number = port["port"].as_i64().unwrap_or(0);
    errors.extend(names::port_number(number).map(|detail| FieldError::invalid(at("port"), &json!(number), detail)));
    match text(port, "protocol") {
        "" => errors.push(FieldError::required(at("protocol"), "")),
        word if ["SCTP", "TCP", "UDP"].contains(&word) => {}
        word => errors.push(FieldError::not_supported(at("protocol"), &json!(word), &["SCTP", "TCP", "UDP"])),
    }
    if port["appProtocol"].is_string() {
        let complaints = names::qualified(text(port, "appProtocol"));
        errors.extend(FieldError::each(&at("appProtocol"), &port["appProtocol"], complaints));
    }
    errors
}

fn endpoint_errors(endpoint: &Value, family: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = format!("{path}.addresses");
    let addresses: Vec<&Value> = endpoint["addresses"].as_array().into_iter().flatten().collect();
    if addresses.is_empty() {
        errors.push(FieldError::required(&*at, "must contain at least 1 address"));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(FieldError::too_many(&*at, addresses.len(), ADDRESSES_MAX));
    }
    for (index, address) in addresses.into_iter().enumerate() {
        let one = format!("{at}[{index}]");
        let parsed = address.as_str().unwrap_or_default().parse::<IpAddr>();
        match (family, parsed) {
            ("IPv4" | "IPv6", Err(_)) => errors.extend(address_error(address, &one)),
            ("IPv4" | "IPv6", Ok(ip)) => {
                if ip.is_ipv4() != (family == "IPv4") {
                    let detail = format!("must be an {family} address");
                    errors.push(FieldError::invalid(&*at, address, &detail));
                }
                if ip.is_ipv6() && address != ip.to_string().as_str() {
                    let detail = format!("must be in canonical form (\"{ip}\")");
                    errors.push(FieldError::invalid(&*one, address, &detail));
                }
                errors.extend(special_address_error(address, &one));
            }
            ("FQDN", _) => {
                let name = address.as_str().unwrap_or_default();
                let complaints = names::subdomain(name.strip_suffix('.').unwrap_or(name));
                if !complaints.is_empty() {
                    errors.push(FieldError::invalid(one, address, &complaints.join(",")));
                } else if !name.trim_end_matches('.').contains('.') {
                    let detail = "should be a domain with at least two segments separated by dots";
                    errors.push(FieldError::invalid(one, address, detail));
                }
            }
            _ => {}
        }
    }
    if endpoint["nodeName"].is_string() {
        let complaints = names::subdomain(text(endpoint, "nodeName"));
        errors.extend(FieldError::each(&format!("{path}.nodeName"), &endpoint["nodeName"], complaints));
    }
    errors.extend(names::label_errors(&endpoint["deprecatedTopology"], &format!("{path}.deprecatedTopology")));
    errors.extend(hint_errors(&endpoint["hints"], &format!("{path}.hints")));
    if endpoint["hostname"].is_string() {
        let complaints = names::label(text(endpoint, "hostname"));
        errors.extend(FieldError::each(&format!("{path}.hostname"), &endpoint["hostname"], complaints));
    }
    errors
}

/// Zones and nodes that an endpoint is meant for.
fn hint_errors(hints: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (list, check) in [("forZones", names::label_value as fn(&str) -> Vec<String>), ("forNodes", names::subdomain)] {
        let (all, field) = (hints[list].as_array().map_or(&[][..], Vec::as_slice), format!("{path}.{list}"));
        if all.len() > HINTS_MAX {
            errors.push(FieldError::too_many(field, all.len(), HINTS_MAX));
            continue;
        }
        let mut seen = BTreeSet::new();
        for (index, hint) in all.iter().enumerate() {
            let (at, name) = (format!("{field}[{index}].name"), text(hint, "name"));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&*at, &json!(name)));
            }
            errors.extend(FieldError::each(&at, &json!(name), check(name)));
        }
    }
    errors
}

fn slice_port_errors(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ports: Vec<&Value> = object["ports"].as_array().into_iter().flatten().collect();
    if ports.len() > PORTS_MAX {
        return vec![FieldError::too_many("ports", ports.len(), PORTS_MAX)];
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let at = |name: &str| format!("ports[{index}].{name}");
        let name = text(port, "name");
        if !name.is_empty() {
            errors.extend(FieldError::each(&at("name"), &port["name"], names::label(name)));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(at("name"), &json!(name)));
        }
        match port["protocol"].as_str() {
            None => errors.push(FieldError::required(at("protocol"), "")),
            Some(word) if ["SCTP", "TCP", "UDP"].contains(&word) => {}
            Some(word) => {
                errors.push(FieldError::not_supported(at("protocol"), &json!(word), &["SCTP", "TCP", "UDP"]));
            }
        }
        if port["appProtocol"].is_string() {
            let complaints = names::qualified(text(port, "appProtocol"));
            errors.extend(FieldError::each(&at("appProtocol"), &port["appProtocol"], complaints));
        }
    }
    errors
}

fn size(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

pub(super) fn config_map(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = immutable_errors(object, old, &["data", "binaryData"]);
    let mut total = 0;
    for name in ["data", "binaryData"] {
        for (key, value) in object[name].as_object().into_iter().flatten() {
            let field = format!("{name}[{key}]");
            errors.extend(FieldError::each(&field, &json!(key), names::config_key(key)));
            if name == "data" && object["binaryData"].get(key).is_some() {
                errors.push(FieldError::invalid(field, &json!(key), "duplicate of key present in binaryData"));
            }
            total += size(value);
        }
    }
    if total > DATA_MAX {
        errors.push(FieldError::too_long("[]", DATA_MAX));
    }
    errors
}

pub(super) fn secret(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(old) = old
        && old["type"] != object["type"]
    {
        errors.push(FieldError::invalid("type", &object["type"], "field is immutable"));
    }
    errors.extend(immutable_errors(object, old, &["data"]));
    let mut total = 0;
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        errors.extend(FieldError::each(&format!("data[{key}]"), &json!(key), names::config_key(key)));
        total += size(value) / 4 * 3;
    }
    if total > DATA_MAX {
        errors.push(FieldError::too_long("data", DATA_MAX));
    }
    errors.extend(secret_type_errors(object));
    errors
}

/// What a type of secret must hold.
fn secret_type_errors(object: &Value) -> Vec<FieldError> {
    let has = |key: &str| object["data"].get(key).is_some();
    let required = |key: &str| FieldError::required(format!("data[{key}]"), "");
    let missing = |keys: &[&str]| keys.iter().filter(|key| !has(key)).map(|key| required(key)).collect();
    match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            let name = "kubernetes.io/service-account.name";
            let given = text(&object["metadata"]["annotations"], name);
            let field = format!("metadata.annotations[{name}]");
            if given.is_empty() { vec![FieldError::required(field, "")] } else { Vec::new() }
        }
        "kubernetes.io/dockercfg" => docker_errors(object, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => docker_errors(object, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => missing(&["username", "password"]),
        "kubernetes.io/ssh-auth" if text(&object["data"], "ssh-privatekey").is_empty() => {
            vec![required("ssh-privatekey")]
        }
        "kubernetes.io/tls" => missing(&["tls.crt", "tls.key"]),
        _ => Vec::new(),
    }
}

fn docker_errors(object: &Value, key: &str) -> Vec<FieldError> {
    let field = format!("data[{key}]");
    let Some(encoded) = object["data"].get(key).and_then(Value::as_str) else {
        return vec![FieldError::required(field, "")];
    };
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    match crate::body::parse_json(&bytes) {
        Ok(_) => Vec::new(),
        Err(error) => vec![FieldError::invalid(field, &json!("<secret contents redacted>"), &error)],
    }
}

fn immutable_errors(object: &Value, old: Option<&Value>, fields: &[&str]) -> Vec<FieldError> {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return Vec::new() };
    let mut errors = Vec::new();
    if object["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", IMMUTABLE));
    }
    for field in fields {
        if old[*field] != object[*field] {
            errors.push(FieldError::forbidden(*field, IMMUTABLE));
        }
    }
    errors
}

pub(super) fn role(object: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, rule) in object["rules"].as_array().into_iter().flatten().enumerate() {
        let at = |name: &str| format!("rules[{index}].{name}");
        let empty = |name: &str| rule[name].as_array().is_none_or(Vec::is_empty);
        if empty("verbs") {
            errors.push(FieldError::required(at("verbs"), "verbs must contain at least one value"));
        }
        if !empty("nonResourceURLs") {
            let urls = &rule["nonResourceURLs"];
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(at("nonResourceURLs"), urls, detail));
            }
            if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(at("nonResourceURLs"), urls, detail));
            }
            continue;
        }
        if empty("apiGroups") {
            errors.push(FieldError::required(at("apiGroups"), "resource rules must supply at least one api group"));
        }
        if empty("resources") {
            errors.push(FieldError::required(at("resources"), "resource rules must supply at least one resource"));
        }
    }
    let labels = object["aggregationRule"]["clusterRoleSelectors"].as_array();
    for (index, selector) in labels.into_iter().flatten().enumerate() {
        errors.extend(names::selector_errors(selector, &format!("aggregationRule.clusterRoleSelectors[{index}]")));
    }
    if object["aggregationRule"].is_object() && labels.is_none_or(Vec::is_empty) {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required("aggregationRule.clusterRoleSelectors", detail));
    }
    errors
}

pub(super) fn role_binding(object: &Value, old: Option<&Value>, namespaced: bool) -> Vec<FieldError> {
    let role = &object["roleRef"];
    let mut errors = Vec::new();
    if text(role, "apiGroup") != RBAC {
        errors.push(FieldError::not_supported("roleRef.apiGroup", &json!(text(role, "apiGroup")), &[RBAC]));
    }
    let kinds: &[&str] = if namespaced { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
    let kind = text(role, "kind");
    if !kinds.contains(&kind) {
        let shown: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { kinds };
        errors.push(FieldError::not_supported("roleRef.kind", &json!(kind), shown));
    }
    if text(role, "name").is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    for (index, subject) in object["subjects"].as_array().into_iter().flatten().enumerate() {
        errors.extend(subject_errors(subject, &format!("subjects[{index}]"), namespaced));
    }
    if old.is_some() {
        // A binding that is changed is looked at twice.
        errors.extend(errors.clone());
    }
    if let Some(old) = old
        && old["roleRef"] != *role
    {
        let shown = format!(
            "{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}",
            json!(text(role, "apiGroup")),
            json!(kind),
            json!(text(role, "name")),
        );
        let message = format!("Invalid value: {shown}: cannot change roleRef");
        errors.push(FieldError { reason: "FieldValueInvalid", message, field: "roleRef".into() });
    }
    errors
}

fn subject_errors(subject: &Value, path: &str, namespaced: bool) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let mut errors = Vec::new();
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.push(FieldError::required(at("name"), ""));
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.extend(FieldError::each(&at("name"), &json!(name), names::subdomain(name)));
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(at("apiGroup"), &json!(group), &[""]));
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.push(FieldError::required(at("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != RBAC {
                errors.push(FieldError::not_supported(at("apiGroup"), &json!(group), &[RBAC]));
            }
        }
        other => {
            let known = ["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(at("kind"), &json!(other), &known));
        }
    }
    errors
}

/// Priorities of classes that people make end here.
const USER_PRIORITY_MOST: i64 = 1_000_000_000;

/// The value of a class that every cluster has.
pub(super) fn system_priority(name: &str) -> Option<i64> {
    match name {
        "system-node-critical" => Some(2_000_001_000),
        "system-cluster-critical" => Some(2_000_000_000),
        _ => None,
    }
}

/// Errors of a PriorityClass, and of the change of one.
pub(super) fn priority_class(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let (name, value) = (text(&object["metadata"], "name"), object["value"].as_i64().unwrap_or(0));
    let mut errors = Vec::new();
    if name.starts_with("system-") {
        let why = match system_priority(name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some(own) if own != value => Some(format!("value of {name} PriorityClass must be {own}")),
            Some(_) => None,
        };
        errors.extend(why.map(|why| {
            let reserved = "priority class names with 'system-' prefix are reserved for system use only. error:";
            FieldError::forbidden("metadata.name", &format!("{reserved} {why}"))
        }));
    } else if value > USER_PRIORITY_MOST {
        let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MOST}");
        errors.push(FieldError::forbidden("value", &detail));
    }
    let (policy, policies) = (text(object, "preemptionPolicy"), ["PreemptLowerPriority", "Never"]);
    if old.is_none() && !policies.contains(&policy) {
        errors.push(FieldError::not_supported("preemptionPolicy", &json!(policy), &policies));
    }
    let Some(old) = old else { return errors };
    errors.clear();
    if old["value"] != object["value"] {
        errors.push(FieldError::forbidden("value", "may not be changed in an update."));
    }
    if old["preemptionPolicy"] != object["preemptionPolicy"] {
        errors.push(FieldError::invalid("preemptionPolicy", &object["preemptionPolicy"], "field is immutable"));
    }
    errors
}

/// Errors of a RuntimeClass, and of the change of one.
pub(super) fn runtime_class(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let handler = &object["handler"];
    let mut errors = match old {
        None => FieldError::each("handler", handler, names::label(handler.as_str().unwrap_or_default())),
        Some(old) if old["handler"] != *handler => {
            vec![FieldError::invalid("handler", handler, "field is immutable")]
        }
        Some(_) => Vec::new(),
    };
    if old.is_none() {
        errors.extend(names::label_errors(&object["scheduling"]["nodeSelector"], "scheduling.nodeSelector"));
        errors.extend(toleration_errors(&object["scheduling"], "scheduling.tolerations"));
    }
    errors
}
