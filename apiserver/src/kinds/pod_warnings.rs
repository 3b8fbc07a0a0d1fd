//! What of a pod is allowed and hardly meant, or going out of use.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pods::{list, text};
use super::{names, pod_rules, warnings};

/// Labels of nodes that have others in their place.
const DEPRECATED_LABELS: [(&str, &str); 4] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
];
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const SYSCTLS: &str = "non-functional in v1.11+; use the \"sysctls\" field instead";
/// Annotations that had a meaning; a slash at the end stands for all that begin so.
const ANNOTATIONS: [(&str, &str); 5] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("seccomp.security.alpha.kubernetes.io/pod", SECCOMP),
    ("container.seccomp.security.alpha.kubernetes.io/", SECCOMP),
    ("security.alpha.kubernetes.io/sysctls", SYSCTLS),
    ("security.alpha.kubernetes.io/unsafe-sysctls", SYSCTLS),
];
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
/// Sources of volumes that are gone or going, and how they are called.
const VOLUMES: [(&str, &str, &str); 9] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// What is said of a label of nodes that has another in its place.
pub(super) fn deprecated_label(label: &str) -> Option<&'static str> {
    DEPRECATED_LABELS.iter().find(|(old, _)| *old == label).map(|(_, why)| *why)
}

/// What is said of a source of a pod's volumes that is gone or going.
pub(super) fn deprecated_source<'a>(holder: &'a Value, path: &'a str) -> impl Iterator<Item = String> + use<'a> {
    let given = VOLUMES.iter().filter(|(source, ..)| holder[*source].is_object());
    given.map(move |(_, name, why)| format!("{path}.{name}: {why}"))
}

/// Warnings about a pod, or about a template of pods below `path`, which is empty or ends with a point.
pub(super) fn all(pod: &Value, path: &str) -> Vec<String> {
    let (spec, at) = (&pod["spec"], format!("{path}spec"));
    let mut warnings = placement(spec, &at);
    warnings.extend(annotations(pod, path));
    for (index, volume) in list(spec, "volumes") {
        let at = format!("{at}.volumes[{index}]");
        warnings.extend(deprecated_source(volume, &at));
        let claim = &volume["ephemeral"]["volumeClaimTemplate"]["spec"];
        warnings.extend(warnings::fractions_of_claim(claim, &format!("{at}.ephemeral.volumeClaimTemplate.spec")));
        warnings.extend(overlaps(volume));
    }
    warnings.extend(twice(spec, "hostAliases", "ip", "duplicate ip", &at));
    warnings.extend(twice(spec, "imagePullSecrets", "name", "duplicate name", &at));
    for (index, secret) in list(spec, "imagePullSecrets") {
        if text(secret, "name").is_empty() {
            warnings.push(format!("{at}.imagePullSecrets[{index}].name: invalid empty name \"\""));
        }
    }
    for (at, container) in containers(spec, &at) {
        warnings.extend(amounts(&container["resources"], &format!("{at}.resources")));
        warnings.extend(hidden_variables(container, &at));
    }
    warnings.extend(ports(spec, &at));
    warnings.extend(warnings::fraction(&spec["overhead"], "memory", &format!("{at}.overhead")));
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        let detail = "must be >= 0; negative values are invalid and will be treated as 1";
        warnings.push(format!("{at}.terminationGracePeriodSeconds: {detail}"));
    }
    warnings.extend(pod_rules::affinity_warnings(&spec["affinity"], &format!("{at}.affinity")));
    let servers = list(&spec["dnsConfig"], "nameservers");
    warnings.extend(
        servers.filter_map(|(index, server)| warnings::ip(server, &format!("{at}.dnsConfig.nameservers[{index}]"))),
    );
    let aliases = list(spec, "hostAliases");
    warnings.extend(
        aliases.filter_map(|(index, alias)| warnings::ip(&alias["ip"], &format!("{at}.hostAliases[{index}].ip"))),
    );
    warnings
}

/// A pod's name is that of its host too, and hosts have labels for names.
pub(super) fn name(pod: &Value) -> Option<String> {
    let complaints = names::label(text(&pod["metadata"], "name"));
    (!complaints.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            complaints.join(" ")
        )
    })
}

fn placement(spec: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (old, new) in DEPRECATED_LABELS {
        if spec["nodeSelector"].get(old).is_some() {
            warnings.push(format!("{path}.nodeSelector[{old}]: {new}"));
        }
    }
    let affinity = &spec["affinity"]["nodeAffinity"];
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    let at = format!("{path}.affinity.nodeAffinity");
    warnings.extend(node_selector(&affinity[required], &format!("{at}.{required}")));
    for (index, term) in list(affinity, preferred) {
        warnings.extend(node_term(&term["preference"], &format!("{at}.{preferred}[{index}].preference")));
    }
    for (index, constraint) in list(spec, "topologySpreadConstraints") {
        let (at, key) = (format!("{path}.topologySpreadConstraints[{index}]"), text(constraint, "topologyKey"));
        warnings.extend(deprecated_label(key).map(|why| format!("{at}.topologyKey: {key} is {why}")));
        if constraint["labelSelector"].is_null() {
            warnings.push(format!("{at}.labelSelector: {NULL_SELECTOR}"));
        }
    }
    warnings
}

/// Deprecated labels in a selector of nodes.
pub(super) fn node_selector(selector: &Value, path: &str) -> Vec<String> {
    let terms = list(selector, "nodeSelectorTerms");
    terms.flat_map(|(index, term)| node_term(term, &format!("{path}.nodeSelectorTerms[{index}]"))).collect()
}

fn node_term(term: &Value, path: &str) -> Vec<String> {
    let expressions = list(term, "matchExpressions").map(|(index, expression)| (index, text(expression, "key")));
    let old = expressions.filter_map(|(index, key)| Some((index, key, deprecated_label(key)?)));
    old.map(|(index, key, why)| format!("{path}.matchExpressions[{index}].key: {key} is {why}")).collect()
}

fn annotations(pod: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let given = || pod["metadata"]["annotations"].as_object().into_iter().flatten().map(|(name, _)| name);
    let at = |name: &str| format!("{path}metadata.annotations[{name}]");
    for (old, why) in ANNOTATIONS {
        let found = given().filter(|name| *name == old || (old.ends_with('/') && name.starts_with(old)));
        warnings.extend(found.map(|name| format!("{}: {why}", at(name))));
    }
    // What a container says itself counts, and the annotation only tells it to older kubelets.
    let says = |holder: &Value| holder["securityContext"]["appArmorProfile"].is_object();
    let silent = |name: &str| {
        let own = ["initContainers", "containers"].iter().flat_map(|kind| list(&pod["spec"], kind));
        !says(&pod["spec"]) && !own.into_iter().any(|(_, own)| text(own, "name") == name && says(own))
    };
    let armed = given().filter(|name| name.strip_prefix(APP_ARMOR).is_some_and(silent));
    let instead = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
    warnings.extend(armed.map(|name| format!("{}: {instead}", at(name))));
    warnings
}

/// Files of a volume that lie in each other's way.
fn overlaps(volume: &Value) -> Vec<String> {
    let name = text(volume, "name");
    let mut warnings = Vec::new();
    let files = |holder: &Value, from: &str| -> Vec<(String, String)> {
        list(holder, "items").map(|(_, item)| (text(item, "path").to_owned(), from.to_owned())).collect()
    };
    let plain =
        [("configMap", "name", "ConfigMap"), ("secret", "secretName", "Secret"), ("downwardAPI", "", "DownwardAPI")];
    for (source, key, kind) in plain {
        let named = match text(&volume[source], key) {
            "" => kind.to_owned(),
            of => format!("{kind} {of:?}"),
        };
        let found = overlapping(&files(&volume[source], ""));
        warnings.extend(found.iter().map(|why| format!("volume {name:?} ({named}): overlapping paths: {why}")));
    }
    let mut all = Vec::new();
    for (_, source) in list(&volume["projected"], "sources") {
        for (kind, word) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
            all.extend(files(&source[kind], &format!(" ({word} {:?})", text(&source[kind], "name"))));
        }
        all.extend(files(&source["downwardAPI"], " (DownwardAPI)"));
    }
    let nothing = |source: &Value| source.as_object().is_none_or(|source| source.values().all(Value::is_null));
    for _ in list(&volume["projected"], "sources").filter(|(_, source)| nothing(source)) {
        warnings.push(format!("volume {name:?} (Projected) has no sources provided"));
    }
    let found = overlapping(&all);
    warnings.extend(found.iter().map(|why| format!("volume {name:?} (Projected): overlapping paths: {why}")));
    warnings
}

/// Paths of which one is the other or lies below it, each with where it comes from.
fn overlapping(files: &[(String, String)]) -> Vec<String> {
    let below =
        |path: &str, of: &str| path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut found = Vec::new();
    for (index, (path, from)) in files.iter().enumerate() {
        let before = files[..index].iter().filter(|(other, _)| below(path, other) || below(other, path));
        found.extend(before.map(|(other, there)| format!("{path:?}{from} with {other:?}{there}")));
    }
    found
}

/// Elements of a list that name the same.
fn twice(spec: &Value, name: &str, key: &str, words: &str, path: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let again = list(spec, name).filter(|(_, item)| !seen.insert(text(item, key)));
    again.map(|(index, item)| format!("{path}.{name}[{index}].{key}: {words} {:?}", text(item, key))).collect()
}

fn containers<'a>(spec: &'a Value, path: &str) -> Vec<(String, &'a Value)> {
    let kinds = ["initContainers", "containers"].into_iter();
    kinds
        .flat_map(|kind| list(spec, kind).map(move |(index, container)| (kind, index, container)))
        .map(|(kind, index, container)| (format!("{path}.{kind}[{index}]"), container))
        .collect()
}

fn amounts(resources: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for name in ["memory", "ephemeral-storage"] {
        for kind in ["limits", "requests"] {
            warnings.extend(warnings::fraction(&resources[kind], name, &format!("{path}.{kind}")));
        }
    }
    warnings
}

/// Variables that take the place of others, unless they are made of them.
fn hidden_variables(container: &Value, path: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut warnings = Vec::new();
    for (index, variable) in list(container, "env") {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        let before = format!("$({name})");
        let made_of_it = variable["valueFrom"].is_null() && value != before && value.contains(&before);
        if !seen.insert(name) && !made_of_it {
            let hides = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            warnings.push(format!("{path}.env[{index}]: {hides}"));
        }
    }
    warnings
}

/// Ports of all containers that are the same, or might be.
fn ports(spec: &Value, path: &str) -> Vec<String> {
    let mut seen: Vec<(String, &Value)> = Vec::new();
    let mut warnings = Vec::new();
    for (at, container) in containers(spec, path) {
        for (number, port) in list(container, "ports") {
            let at = format!("{at}.ports[{number}]");
            for (other_at, other) in seen.iter().filter(|(_, other)| of_one_number(port, other)) {
                if let Some(words) = clash(port, other) {
                    warnings.push(format!("{at}: {words} port definition with {other_at}"));
                }
            }
            seen.push((at, port));
        }
    }
    warnings
}

fn of_one_number(port: &Value, other: &Value) -> bool {
    port["containerPort"] == other["containerPort"] && text(port, "protocol") == text(other, "protocol")
}

/// How two ports of one number stand to each other, if that is odd.
fn clash(port: &Value, other: &Value) -> Option<&'static str> {
    let (own, others) = (port["hostPort"].as_i64().unwrap_or(0), other["hostPort"].as_i64().unwrap_or(0));
    let (ip, other_ip) = (text(port, "hostIP"), text(other, "hostIP"));
    if own == others && ip == other_ip {
        Some("duplicate")
    } else if own == 0 || others == 0 {
        Some("overlapping")
    } else {
        (own == others && ip.is_empty() != other_ip.is_empty()).then_some("dangerously ambiguous")
    }
}
