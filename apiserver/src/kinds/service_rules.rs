//! What is wrong with a Service, with its status, and with the change of one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::core_rules::{address_error, range_error, special_address_error};
use super::names;
use super::probes::port_or_name_errors;
use super::service::{externally_accessible, needs_health_port};
use super::warnings::{ip as ip_warning, range as range_warning};
use crate::failure::FieldError;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const AFFINITY_MAX: i64 = 86400;
const ONLY_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    value[name].as_array().into_iter().flatten().collect()
}

/// Errors of a Service, and of the change of one.
pub(super) fn validate(service: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &service["spec"];
    let mut errors = old.map(|old| change_errors(service, old)).unwrap_or_default();
    let ports = list(spec, "ports");
    let headless = spec["clusterIPs"][0] == "None" || spec["clusterIP"] == "None";
    let kind = text(spec, "type");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    errors.extend(type_errors(spec, kind, headless));
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        errors.extend(port_errors(port, index, ports.len() > 1, &mut seen));
    }
    errors.extend(names::label_errors(&spec["selector"], "spec.selector"));
    errors.extend(affinity_errors(spec));
    if kind != "ExternalName" {
        errors.extend(cluster_ip_errors(spec, headless));
    }
    for (index, address) in list(spec, "externalIPs").into_iter().enumerate() {
        let field = format!("spec.externalIPs[{index}]");
        errors.extend(address_error(address, &field).or_else(|| special_address_error(address, &field)));
    }
    if kind.is_empty() {
        errors.push(FieldError::required("spec.type", ""));
    } else if !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported("spec.type", &spec["type"], &TYPES));
    }
    errors.extend(number_errors(&ports, kind));
    errors.extend(balancer_errors(spec, kind));
    errors.extend(policy_errors(service));
    errors
}

fn type_errors(spec: &Value, kind: &str, headless: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if matches!(kind, "LoadBalancer" | "NodePort") && headless {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!("None"), &detail));
    }
    if kind == "ExternalName" {
        for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if !spec[name].is_null() {
                let field = format!("spec.{name}");
                errors.push(FieldError::forbidden(field, "may not be set for ExternalName services"));
            }
        }
        match text(spec, "externalName").strip_suffix('.').unwrap_or(text(spec, "externalName")) {
            "" => errors.push(FieldError::required("spec.externalName", "")),
            name => errors.extend(FieldError::each("spec.externalName", &json!(name), names::subdomain(name))),
        }
    }
    errors
}

fn port_errors<'a>(port: &'a Value, index: usize, named: bool, seen: &mut BTreeSet<&'a str>) -> Vec<FieldError> {
    let at = |name: &str| format!("spec.ports[{index}].{name}");
    let mut errors = Vec::new();
    match text(port, "name") {
        "" if named => errors.push(FieldError::required(at("name"), "")),
        "" => {}
        name => {
            errors.extend(FieldError::each(&at("name"), &port["name"], names::label(name)));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(at("name"), &port["name"]));
            }
        }
    }
    let number = port["port"].as_i64().unwrap_or(0);
    errors.extend(names::port_number(number).map(|detail| FieldError::invalid(at("port"), &json!(number), detail)));
    match text(port, "protocol") {
        "" => errors.push(FieldError::required(at("protocol"), "")),
        word if PROTOCOLS.contains(&word) => {}
        word => errors.push(FieldError::not_supported(at("protocol"), &json!(word), &PROTOCOLS)),
    }
    errors.extend(port_or_name_errors(&port["targetPort"], &at("targetPort")));
    if port["appProtocol"].is_string() {
        let complaints = names::qualified(text(port, "appProtocol"));
        errors.extend(FieldError::each(&at("appProtocol"), &port["appProtocol"], complaints));
    }
    errors
}

fn affinity_errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(spec, "sessionAffinity") {
        "" => errors.push(FieldError::required("spec.sessionAffinity", "")),
        "ClientIP" => {
            let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
            if !seconds.as_i64().is_some_and(|seconds| (1..=AFFINITY_MAX).contains(&seconds)) {
                let detail = format!("must be greater than 0 and less than {AFFINITY_MAX}");
                let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
                errors.push(FieldError::invalid(field, seconds, &detail));
            }
        }
        "None" if spec["sessionAffinityConfig"].is_object() => {
            let detail = "must not be set when session affinity is None";
            errors.push(FieldError::forbidden("spec.sessionAffinityConfig", detail));
        }
        "None" => {}
        other => {
            let known = ["ClientIP", "None"];
            errors.push(FieldError::not_supported("spec.sessionAffinity", &json!(other), &known));
        }
    }
    errors
}

/// Addresses and families, which are looked at before any is given.
pub(super) fn cluster_ip_errors(spec: &Value, headless: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (addresses, families) = (list(spec, "clusterIPs"), list(spec, "ipFamilies"));
    if !addresses.is_empty() && text(spec, "clusterIP").is_empty() {
        let detail = "must be empty when `clusterIP` is not specified";
        errors.push(FieldError::invalid("spec.clusterIPs", &spec["clusterIPs"], detail));
    } else if let Some(first) = addresses.first()
        && **first != spec["clusterIP"]
    {
        let detail = "first value must match `clusterIP`";
        errors.push(FieldError::invalid("spec.clusterIPs", &spec["clusterIPs"], detail));
    }
    for (index, family) in families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        if !FAMILIES.contains(&family.as_str().unwrap_or_default()) {
            errors.push(FieldError::not_supported(&*field, family, &FAMILIES));
        }
        if families[..index].contains(family) {
            errors.push(FieldError::duplicate(field, family));
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if let Some(policy) = spec["ipFamilyPolicy"].as_str().filter(|policy| !policies.contains(policy)) {
        errors.push(FieldError::not_supported("spec.ipFamilyPolicy", &json!(policy), &policies));
    }
    let mut broken = false;
    for (index, address) in addresses.iter().enumerate() {
        let field = format!("spec.clusterIPs[{index}]");
        if index == 0 && **address == "None" {
            if addresses.len() > 1 {
                let detail = "'None' must be the first and only value";
                errors.push(FieldError::invalid("spec.clusterIPs", &spec["clusterIPs"], detail));
                broken = true;
            }
            continue;
        }
        let error = address_error(address, &field);
        broken |= error.is_some();
        errors.extend(error);
    }
    if addresses.len() > 2 {
        let detail = "may only hold up to 2 values";
        errors.push(FieldError::invalid("spec.clusterIPs", &spec["clusterIPs"], detail));
    }
    if broken || headless || !errors.is_empty() {
        return errors;
    }
    for (index, (address, family)) in addresses.iter().zip(&families).enumerate() {
        let parsed = address.as_str().unwrap_or_default().parse::<IpAddr>();
        let fits = match parsed {
            Ok(IpAddr::V4(_)) => **family == "IPv4",
            Ok(IpAddr::V6(_)) => **family == "IPv6",
            Err(_) => true,
        };
        if !fits {
            let family = family.as_str().unwrap_or_default();
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(format!("spec.clusterIPs[{index}]"), address, &detail));
        }
    }
    errors
}

fn number_errors(ports: &[&Value], kind: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let node_port = |port: &Value| port["nodePort"].as_i64().filter(|number| *number != 0);
    if kind == "ClusterIP" {
        for (index, _) in ports.iter().enumerate().filter(|(_, port)| node_port(port).is_some()) {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(format!("spec.ports[{index}].nodePort"), detail));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        if let Some(number) = node_port(port)
            && !seen.insert((text(port, "protocol"), number))
        {
            errors.push(FieldError::duplicate(format!("spec.ports[{index}].nodePort"), &json!(number)));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let key = (text(port, "protocol"), port["port"].as_i64().unwrap_or(0));
        if !seen.insert(key) {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                json!(key.0),
                key.1,
            );
            let message = format!("Duplicate value: {shown}");
            errors.push(FieldError { reason: "FieldValueDuplicate", message, field: format!("spec.ports[{index}]") });
        }
    }
    errors
}

fn balancer_errors(spec: &Value, kind: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ranges = list(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() {
        if kind != "LoadBalancer" {
            errors.push(FieldError::forbidden("spec.LoadBalancerSourceRanges", ONLY_BALANCER));
        }
        for (index, range) in ranges.into_iter().enumerate() {
            errors.extend(range_error(range, &format!("spec.LoadBalancerSourceRanges[{index}]")));
        }
    }
    if !spec["allocateLoadBalancerNodePorts"].is_null() && kind != "LoadBalancer" {
        errors.push(FieldError::forbidden("spec.allocateLoadBalancerNodePorts", ONLY_BALANCER));
    }
    if !spec["loadBalancerClass"].is_null() {
        if kind != "LoadBalancer" {
            errors.push(FieldError::forbidden("spec.loadBalancerClass", ONLY_BALANCER));
        } else {
            let complaints = names::qualified(text(spec, "loadBalancerClass"));
            errors.extend(FieldError::each("spec.loadBalancerClass", &spec["loadBalancerClass"], complaints));
        }
    }
    errors
}

fn policy_errors(service: &Value) -> Vec<FieldError> {
    let spec = &service["spec"];
    let mut errors = Vec::new();
    let words = ["Cluster", "Local"];
    let (policy, field) = (text(spec, "externalTrafficPolicy"), "spec.externalTrafficPolicy");
    if !externally_accessible(spec) {
        if !policy.is_empty() {
            let detail = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid(field, &json!(policy), detail));
        }
    } else if policy.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if !words.contains(&policy) {
        errors.push(FieldError::not_supported(field, &json!(policy), &words));
    }
    let (number, field) = (spec["healthCheckNodePort"].as_i64().unwrap_or(0), "spec.healthCheckNodePort");
    if !needs_health_port(service) {
        if number != 0 {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(field, &json!(number), detail));
        }
    } else if number == 0 {
        errors.push(FieldError::required(field, ""));
    } else {
        errors.extend(names::port_number(number).map(|detail| FieldError::invalid(field, &json!(number), detail)));
    }
    let (policy, field) = (text(spec, "internalTrafficPolicy"), "spec.internalTrafficPolicy");
    if policy.is_empty() {
        if spec["type"] != "ExternalName" {
            errors.push(FieldError::required(field, ""));
        }
    } else if !words.contains(&policy) {
        errors.push(FieldError::not_supported(field, &json!(policy), &words));
    }
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if let Some(word) = spec["trafficDistribution"].as_str().filter(|word| !known.contains(word)) {
        errors.push(FieldError::not_supported("spec.trafficDistribution", &json!(word), &known));
    }
    errors
}

fn change_errors(service: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old) = (&service["spec"], &old["spec"]);
    let mut errors = Vec::new();
    if old["type"] != "ExternalName"
        && new["type"] != "ExternalName"
        && !text(old, "clusterIP").is_empty()
        && new["clusterIP"] != old["clusterIP"]
    {
        let detail = "may not change once set";
        let shown = if new["clusterIPs"].is_array() { new["clusterIPs"].clone() } else { json!([new["clusterIP"]]) };
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &shown, detail));
    }
    let balancers = new["type"] == "LoadBalancer" && old["type"] == "LoadBalancer";
    if balancers && new["loadBalancerClass"] != old["loadBalancerClass"] {
        let detail = "may not change once set";
        errors.push(FieldError::invalid("spec.loadBalancerClass", &new["loadBalancerClass"], detail));
    }
    errors
}

/// Errors of `status.loadBalancer`.
pub(super) fn validate_status(service: &Value) -> Vec<FieldError> {
    let ingress = list(&service["status"]["loadBalancer"], "ingress");
    let path = "status.loadBalancer.ingress";
    if service["spec"]["type"] != "LoadBalancer" && !ingress.is_empty() {
        return vec![FieldError::forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")];
    }
    let mut errors = Vec::new();
    for (index, entry) in ingress.into_iter().enumerate() {
        let at = |name: &str| format!("{path}[{index}].{name}");
        let (ip, mode, host) = (text(entry, "ip"), text(entry, "ipMode"), text(entry, "hostname"));
        if !ip.is_empty() {
            errors.extend(address_error(&entry["ip"], &at("ip")));
        }
        if !ip.is_empty() && entry["ipMode"].is_null() {
            errors.push(FieldError::required(at("ipMode"), "must be specified when `ip` is set"));
        } else if ip.is_empty() && !entry["ipMode"].is_null() {
            errors.push(FieldError::forbidden(at("ipMode"), "may not be specified when `ip` is not set"));
        } else if !mode.is_empty() && !["Proxy", "VIP"].contains(&mode) {
            errors.push(FieldError::not_supported(at("ipMode"), &entry["ipMode"], &["Proxy", "VIP"]));
        }
        if !host.is_empty() {
            errors.extend(FieldError::each(&at("hostname"), &entry["hostname"], names::subdomain(host)));
            if host.parse::<IpAddr>().is_ok() {
                let detail = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(at("hostname"), &entry["hostname"], detail));
            }
        }
    }
    errors
}

/// What a Service says in vain, or in old words.
pub(super) fn warnings(service: &Value) -> Vec<String> {
    let spec = &service["spec"];
    let mut warnings = Vec::new();
    let (named, headless) = (spec["type"] == "ExternalName", spec["clusterIP"] == "None");
    let hints = "service.kubernetes.io/topology-aware-hints";
    if service["metadata"]["annotations"].get(hints).is_some() {
        let instead = "service.kubernetes.io/topology-mode";
        warnings.push(format!("annotation {hints} is deprecated, please use {instead} instead"));
    }
    if named && !list(spec, "externalIPs").is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !named && !text(spec, "externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if headless && !list(spec, "externalIPs").is_empty() {
        warnings.push("spec.externalIPs is ignored for headless services".to_owned());
    }
    if headless && text(spec, "sessionAffinity") == "ClientIP" {
        warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
    }
    for name in ["clusterIPs", "externalIPs"] {
        for (index, ip) in list(spec, name).iter().enumerate() {
            warnings.extend(ip_warning(ip, &format!("spec.{name}[{index}]")));
        }
    }
    warnings.extend(ip_warning(&spec["loadBalancerIP"], "spec.loadBalancerIP"));
    for (index, range) in list(spec, "loadBalancerSourceRanges").iter().enumerate() {
        warnings.extend(range_warning(range, &format!("spec.loadBalancerSourceRanges[{index}]")));
    }
    warnings
}
