//! What is taken, and warned of: old words, addresses and amounts in odd forms, and what will not do what it seems to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::Value;

use super::pod_warnings::{self, deprecated_label, deprecated_source};
use super::pods::{list, text};
use super::{core, definition_rules, id, names, quantity, service_rules, tls_pair};
use crate::registry::Resource;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
/// A Job with more of both may lose count.
const INDEXES: (i64, i64) = (100_000, 10_000);

/// Warnings that come with a built-in object that is otherwise fine, when it is made or changed.
pub(super) fn builtin(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    let spec = &object["spec"];
    match id(resource) {
        ("", "services") => service_rules::warnings(object),
        // Pods change too often to be looked at each time.
        ("", "pods") if old.is_none() => {
            pod_warnings::name(object).into_iter().chain(pod_warnings::all(object, "")).collect()
        }
        ("", "secrets") => tls_pair::warnings(object),
        ("", "serviceaccounts") => core::account_warnings(object, old),
        ("", "endpoints") => endpoints(object),
        ("", "nodes") => node(spec),
        ("", "persistentvolumes") => volume(object),
        ("", "persistentvolumeclaims") => {
            let class = text(&object["metadata"]["annotations"], CLASS_ANNOTATION);
            let class = (!class.is_empty()).then(class_annotation);
            class.into_iter().chain(fractions_of_claim(spec, "spec")).collect()
        }
        ("apiextensions.k8s.io", _) if old.is_none() => definition_rules::warnings(object),
        ("storage.k8s.io", "storageclasses") => class(object),
        ("node.k8s.io", "runtimeclasses") => {
            let labels = object["scheduling"]["nodeSelector"].as_object().into_iter().flatten();
            let old = labels.filter_map(|(label, _)| deprecated_label(label));
            old.map(|why| format!("scheduling.nodeSelector: {why}")).collect()
        }
        ("networking.k8s.io", "ingresses") => {
            let marked = |object: &Value| object["metadata"]["annotations"].get(INGRESS_CLASS).is_some();
            let new = marked(object) && !old.is_some_and(marked);
            let why = format!("annotation {INGRESS_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead");
            new.then_some(why).into_iter().collect()
        }
        ("networking.k8s.io", "networkpolicies") => policy(spec),
        ("discovery.k8s.io", _) => slice(object, old.is_none()),
        ("", "podtemplates") if is_changed(object, old) => pod_warnings::all(&object["template"], "template."),
        ("apps" | "batch", _) | ("", "replicationcontrollers") => workload(&resource.plural, object, old),
        _ => Vec::new(),
    }
}

/// What an update leaves as it was has been warned of.
fn is_changed(object: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| old["metadata"]["generation"] != object["metadata"]["generation"])
}

fn workload(plural: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    let (spec, new) = (&object["spec"], old.is_none());
    if !is_changed(object, old) {
        return set(plural, spec, new);
    }
    let mut warnings = Vec::new();
    let complaints = names::label(text(&object["metadata"], "name"));
    let names_pods = matches!(plural, "deployments" | "replicasets" | "replicationcontrollers" | "jobs");
    if new && names_pods && !complaints.is_empty() {
        let why = "this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended";
        warnings.push(format!("metadata.name: {why}: [{}]", complaints.join(" ")));
    }
    let number = |name: &str| spec[name].as_i64().unwrap_or(0);
    if spec["completionMode"] == "Indexed" && number("completions") > INDEXES.0 && number("parallelism") > INDEXES.1 {
        warnings.push("spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail".into());
    }
    warnings.extend(pod_warnings::all(&spec["template"], "spec.template."));
    warnings.extend(set(plural, spec, new));
    warnings
}

/// What a StatefulSet is warned of each time.
fn set(plural: &str, spec: &Value, new: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, claim) in list(spec, "volumeClaimTemplates") {
        // The field has another name when it is told again.
        let below = if new { "" } else { ".Spec" };
        warnings.extend(fractions_of_claim(&claim["spec"], &format!("spec.volumeClaimTemplates[{index}]{below}")));
    }
    if plural == "statefulsets" && spec["revisionHistoryLimit"].as_i64().is_some_and(|limit| limit < 0) {
        let detail = "a negative value retains all historical revisions; a value >= 0 is recommended";
        warnings.push(format!("spec.revisionHistoryLimit: {detail}"));
    }
    warnings
}

fn class_annotation() -> String {
    let instead = "deprecated since v1.8; use \"storageClassName\" attribute instead";
    format!("metadata.annotations[{CLASS_ANNOTATION}]: {instead}")
}

fn volume(object: &Value) -> Vec<String> {
    let (spec, annotations) = (&object["spec"], &object["metadata"]["annotations"]);
    let mut warnings = Vec::new();
    if annotations.get(CLASS_ANNOTATION).is_some() {
        warnings.push(class_annotation());
    }
    let options = "volume.beta.kubernetes.io/mount-options";
    if annotations.get(options).is_some() {
        let instead = "deprecated since v1.31; use \"mountOptions\" attribute instead";
        warnings.push(format!("metadata.annotations[{options}]: {instead}"));
    }
    if spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        let why = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        warnings.push(format!("spec.persistentVolumeReclaimPolicy: {why}"));
    }
    warnings.extend(pod_warnings::node_selector(&spec["nodeAffinity"]["required"], "spec.nodeAffinity.required"));
    // Of volumes, some sources are gone without a word.
    let silent = ["spec.flocker", "spec.quobyte"];
    warnings.extend(deprecated_source(spec, "spec").filter(|why| !silent.iter().any(|gone| why.starts_with(gone))));
    warnings
}

fn class(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, term) in list(object, "allowedTopologies") {
        for (number, expression) in list(term, "matchLabelExpressions") {
            let at = format!("allowedTopologies[{index}].matchLabelExpressions[{number}].key");
            warnings.extend(deprecated_label(text(expression, "key")).map(|why| format!("{at}: {why}")));
        }
    }
    warnings
}

fn policy(spec: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (rule, peer, block) in list(spec, direction)
            .flat_map(|(rule, of)| list(of, peers).map(move |(peer, of)| (rule, peer, &of["ipBlock"])))
        {
            let at = format!("spec.{direction}[{rule}].{peers}[{peer}].ipBlock");
            warnings.extend(range(&block["cidr"], &format!("{at}.cidr")));
            for (index, except) in list(block, "except") {
                warnings.extend(range(except, &format!("{at}.except[{index}]")));
            }
        }
    }
    warnings
}

fn node(spec: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if !text(spec, "externalID").is_empty() {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
    }
    for (index, cidr) in list(spec, "podCIDRs") {
        warnings.extend(range(cidr, &format!("spec.podCIDRs[{index}]")));
    }
    warnings
}

fn endpoints(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, subset) in list(object, "subsets") {
        for kind in ["addresses", "notReadyAddresses"] {
            for (number, address) in list(subset, kind) {
                warnings.extend(ip(&address["ip"], &format!("subsets[{index}].{kind}[{number}].ip")));
            }
        }
    }
    warnings
}

fn slice(object: &Value, new: bool) -> Vec<String> {
    if object["addressType"] == "FQDN" {
        return new.then(|| "spec.addressType: FQDN endpoints are deprecated".to_owned()).into_iter().collect();
    }
    let mut warnings = Vec::new();
    for (index, endpoint) in list(object, "endpoints") {
        for (number, address) in list(endpoint, "addresses") {
            warnings.extend(ip(address, &format!("endpoints[{index}].addresses[{number}]")));
        }
    }
    warnings
}

/// Amounts of storage that are no whole number of bytes.
pub(super) fn fractions_of_claim(spec: &Value, path: &str) -> Vec<String> {
    let kinds = ["requests", "limits"].into_iter();
    kinds
        .filter_map(|kind| fraction(&spec["resources"][kind], "storage", &format!("{path}.resources.{kind}")))
        .collect()
}

/// A number of bytes that is none.
pub(super) fn fraction(amounts: &Value, name: &str, path: &str) -> Option<String> {
    const MILLI: f64 = 1000.0;
    let amount = amounts.get(name)?;
    let whole = (quantity::number(amount) * MILLI).ceil() % MILLI == 0.0;
    let shown = amount.as_str().unwrap_or_default();
    (!whole).then(|| format!("{path}[{name}]: fractional byte value {shown:?} is invalid, must be an integer"))
}

/// An address in a form that is not the usual one.
pub(super) fn ip(value: &Value, path: &str) -> Option<String> {
    let text = value.as_str()?;
    let meant = lenient(text)?;
    let usual = meant.to_string();
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(strict)) if strict.to_ipv4_mapped().is_none() => (usual != text)
            .then(|| format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format ({usual:?})")),
        Ok(IpAddr::V4(_)) => None,
        _ => Some(format!(
            "{path}: non-standard IP address {text:?} will be considered invalid in a future Kubernetes release: use {usual:?}"
        )),
    }
}

/// A range of addresses in a form that is not the usual one, or that says more than a range.
pub(super) fn range(value: &Value, path: &str) -> Vec<String> {
    let text = value.as_str().unwrap_or_default().trim();
    let mut warnings = Vec::new();
    let parts = text.split_once('/').and_then(|(ip, length)| Some((ip, lenient(ip)?, length.parse().ok()?)));
    let Some((written, ip, length)) = parts else { return warnings };
    let Ok(net) = IpNet::new(ip, length) else { return warnings };
    let meant = net.trunc();
    if meant.addr() != ip {
        let whole = net.max_prefix_len();
        let should = format!("should be \"{meant}\" or \"{ip}/{whole}\"?");
        warnings.push(format!("{path}: CIDR value {text:?} is ambiguous in this context ({should})"));
    }
    match written.parse::<IpAddr>() {
        Ok(IpAddr::V6(strict)) if strict.to_ipv4_mapped().is_none() => {
            if warnings.is_empty() && meant.to_string() != text {
                let usual = meant.to_string();
                warnings.push(format!(
                    "{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({usual:?})"
                ));
            }
        }
        Ok(IpAddr::V4(_)) => {}
        _ => {
            let usual = meant.to_string();
            warnings.push(format!(
                "{path}: non-standard CIDR value {text:?} will be considered invalid in a future Kubernetes release: use {usual:?}"
            ));
        }
    }
    warnings
}

/// Reads an address as old programs do: with leading zeros, and an IPv4 address in the clothes of an IPv6 one.
fn lenient(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let ip: Ipv6Addr = text.parse().ok()?;
        return Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4));
    }
    let parts: Vec<u8> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let octets: [u8; 4] = parts.try_into().ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(octets)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_in_odd_forms() {
        let ask = |text: &str| ip(&json!(text), "f").unwrap_or_default();
        assert_eq!(ask("1.2.3.4"), "");
        assert_eq!(ask("nothing"), "");
        assert!(ask("010.1.1.1").ends_with("use \"10.1.1.1\""));
        assert!(ask("::ffff:1.2.3.4").ends_with("use \"1.2.3.4\""));
        assert_eq!(ask("FD00::1"), "f: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")");
    }

    #[test]
    fn ranges_that_say_more_than_a_range() {
        let ask = |text: &str| range(&json!(text), "f");
        assert!(ask("10.0.0.0/8").is_empty() && ask("fd00::/64").is_empty());
        let both =
            "f: CIDR value \"1.2.3.4/24\" is ambiguous in this context (should be \"1.2.3.0/24\" or \"1.2.3.4/32\"?)";
        assert_eq!(ask("1.2.3.4/24"), [both]);
        assert!(ask("010.1.0.0/16")[0].ends_with("use \"10.1.0.0/16\""));
        assert!(ask("FD00::/64")[0].contains("canonical"));
    }

    #[test]
    fn bytes_are_whole() {
        let amounts = json!({"storage": "100m", "memory": "1Gi"});
        assert!(
            fraction(&amounts, "storage", "f")
                .is_some_and(|why| why.starts_with("f[storage]: fractional byte value \"100m\""))
        );
        assert_eq!(fraction(&amounts, "memory", "f"), None);
        assert_eq!(fraction(&amounts, "cpu", "f"), None);
    }
}
