//! What is wrong with a pod, or with the template of one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{gates, names, pod_rules, quantity};
use crate::failure::FieldError;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];
/// The real server adds the difference of its own form of both specs.
const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

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
    let mut errors = volume_errors(spec, path);
    let volumes: BTreeSet<&str> = list(spec, "volumes").map(|(_, volume)| text(volume, "name")).collect();
    errors.extend(containers_errors(spec, path, &volumes));
    errors.extend(init_container_errors(spec, path, &volumes));
    errors.extend(one_of(spec, "restartPolicy", path, &["Always", "OnFailure", "Never"]));
    errors.extend(one_of(spec, "dnsPolicy", path, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]));
    errors.extend(names::label_errors(&spec["nodeSelector"], &at("nodeSelector")));
    errors.extend(pod_rules::security_errors(&spec["securityContext"], &at("securityContext")));
    errors.extend(host_port_errors(spec, path));
    errors.extend(pod_rules::affinity_errors(&spec["affinity"], &at("affinity")));
    let (os, dns) = pod_rules::system_errors(spec, path);
    errors.extend(dns);
    errors.extend(gates::name_errors(spec, path));
    for (name, check) in
        [("serviceAccountName", names::subdomain as fn(&str) -> Vec<String>), ("nodeName", names::subdomain)]
    {
        if !text(spec, name).is_empty() {
            errors.extend(FieldError::each(&at(name), &spec[name], check(text(spec, name))));
        }
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64().filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let detail = format!("must be between 1 and {}, inclusive", i32::MAX);
        errors.push(FieldError::invalid(at("activeDeadlineSeconds"), &json!(seconds), &detail));
    }
    for name in ["hostname", "subdomain"] {
        if !text(spec, name).is_empty() {
            errors.extend(FieldError::each(&at(name), &spec[name], names::label(text(spec, name))));
        }
    }
    errors.extend(toleration_errors(spec, path));
    errors.extend(pod_rules::spread_errors(spec, path));
    errors.extend(os);
    errors
}

fn one_of(holder: &Value, name: &str, path: &str, words: &[&str]) -> Option<FieldError> {
    let field = format!("{path}.{name}");
    match text(holder, name) {
        "" => Some(FieldError::required(field, "")),
        word if words.contains(&word) => None,
        word => Some(FieldError::not_supported(field, &json!(word), words)),
    }
}

fn volume_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (index, volume) in list(spec, "volumes") {
        let at = format!("{path}.volumes[{index}]");
        let name = text(volume, "name");
        let complaints = names::label(name);
        let sources: Vec<&str> = SOURCES.iter().copied().filter(|source| volume[*source].is_object()).collect();
        let mut own = Vec::new();
        match sources[..] {
            [] => own.push(FieldError::required(&*at, "must specify a volume type")),
            [source] => own.extend(source_errors(&volume[source], source, &format!("{at}.{source}"))),
            // The real server does not judge what stands beside an image.
            [.., "image"] => {}
            [_, ref others @ ..] => own.extend(others.iter().map(|source| {
                // Two fields go by other names there.
                let source = match *source {
                    "cephfs" => "cephFS",
                    "downwardAPI" => "downwarAPI",
                    source => source,
                };
                FieldError::forbidden(format!("{at}.{source}"), "may not specify more than 1 volume type")
            })),
        }
        if name.is_empty() {
            own.push(FieldError::required(format!("{at}.name"), ""));
        } else if !complaints.is_empty() {
            own.extend(FieldError::each(&format!("{at}.name"), &volume["name"], complaints));
        } else if !seen.insert(name) {
            own.push(FieldError::duplicate(format!("{at}.name"), &volume["name"]));
        }
        errors.extend(own);
    }
    errors
}

pub(super) fn source_errors(source: &Value, kind: &str, path: &str) -> Vec<FieldError> {
    let required = |name: &str| {
        text(source, name).is_empty().then(|| FieldError::required(format!("{path}.{name}"), "")).into_iter().collect()
    };
    match kind {
        "hostPath" => {
            let mut errors: Vec<FieldError> = required("path");
            if text(source, "path").split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(format!("{path}.path"), &source["path"], "must not contain '..'"));
            }
            let kind = text(source, "type");
            if !HOST_PATH_TYPES.contains(&kind) {
                errors.push(FieldError::not_supported(format!("{path}.type"), &json!(kind), &HOST_PATH_TYPES));
            }
            errors
        }
        "projected" => projected_errors(source, path),
        "configMap" => required("name"),
        "secret" => required("secretName"),
        "persistentVolumeClaim" => required("claimName"),
        _ => Vec::new(),
    }
}

/// Files of several sources may not have one name.
fn projected_errors(volume: &Value, path: &str) -> Vec<FieldError> {
    let mut seen = BTreeSet::new();
    let mut errors = Vec::new();
    for (_, source) in list(volume, "sources") {
        for (kind, named) in [("secret", true), ("configMap", true), ("downwardAPI", false)] {
            for (_, item) in list(&source[kind], "items") {
                if !seen.insert(text(item, "path")) {
                    let shown = if named { &source[kind]["name"] } else { &item["path"] };
                    errors.push(FieldError::invalid(path, shown, "conflicting duplicate paths"));
                }
            }
        }
    }
    errors
}

fn containers_errors(spec: &Value, path: &str, volumes: &BTreeSet<&str>) -> Vec<FieldError> {
    let field = format!("{path}.containers");
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        return vec![FieldError::required(field, "")];
    }
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, container) in list(spec, "containers") {
        let at = format!("{field}[{index}]");
        errors.extend(container_errors(container, &at, volumes));
        if !seen.insert(text(container, "name")) {
            errors.push(FieldError::duplicate(format!("{at}.name"), &container["name"]));
        }
        errors.extend(pod_rules::lifecycle_errors(&container["lifecycle"], &format!("{at}.lifecycle")));
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            errors.extend(probe_errors(&container[probe], probe, &format!("{at}.{probe}")));
        }
    }
    errors.extend(taken_port_errors(spec, &field));
    errors
}

/// A port of the host is for one container.
fn taken_port_errors(spec: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, container) in list(spec, "containers") {
        for (number, port) in list(container, "ports") {
            let taken = port["hostPort"].as_i64().unwrap_or(0);
            let shown = format!("{}/{}/{taken}", text(port, "protocol"), text(port, "hostIP"));
            if taken != 0 && !seen.insert(shown.clone()) {
                let at = format!("{field}[{index}].ports[{number}].hostPort");
                errors.push(FieldError::duplicate(at, &json!(shown)));
            }
        }
    }
    errors
}

fn init_container_errors(spec: &Value, path: &str, volumes: &BTreeSet<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen: BTreeSet<&str> = list(spec, "containers").map(|(_, container)| text(container, "name")).collect();
    for (index, container) in list(spec, "initContainers") {
        let at = format!("{path}.initContainers[{index}]");
        errors.extend(container_errors(container, &at, volumes));
        if !text(container, "name").is_empty() && !seen.insert(text(container, "name")) {
            errors.push(FieldError::duplicate(format!("{at}.name"), &container["name"]));
        }
        let restarts = container["restartPolicy"] == "Always";
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            if !restarts && container[probe].is_object() {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(format!("{at}.{probe}"), detail));
            }
        }
    }
    errors
}

/// What every container has.
pub(super) fn image_and_name_errors(container: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = match text(container, "name") {
        "" => vec![FieldError::required(format!("{path}.name"), "")],
        name => FieldError::each(&format!("{path}.name"), &container["name"], names::label(name)),
    };
    if text(container, "image").is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    }
    errors
}

fn container_errors(container: &Value, path: &str, volumes: &BTreeSet<&str>) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let mut errors = image_and_name_errors(container, path);
    errors.extend(one_of(container, "terminationMessagePolicy", path, &["File", "FallbackToLogsOnError"]));
    errors.extend(port_errors(container, path));
    errors.extend(variable_errors(container, path));
    errors.extend(mount_errors(container, path, volumes));
    errors.extend(one_of(container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"]));
    errors.extend(resource_errors(&container["resources"], &at("resources")));
    errors
}

fn port_errors(container: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, port) in list(container, "ports") {
        let at = |name: &str| format!("{path}.ports[{index}].{name}");
        let name = text(port, "name");
        if !name.is_empty() {
            let complaints = names::port_name(name);
            let fine = complaints.is_empty();
            errors.extend(FieldError::each(&at("name"), &port["name"], complaints));
            if fine && !seen.insert(name) {
                errors.push(FieldError::duplicate(at("name"), &port["name"]));
            }
        }
        match port["containerPort"].as_i64().unwrap_or(0) {
            0 => errors.push(FieldError::required(at("containerPort"), "")),
            number => errors.extend(
                names::port_number(number)
                    .map(|detail| FieldError::invalid(at("containerPort"), &json!(number), detail)),
            ),
        }
        if let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) {
            errors.extend(
                names::port_number(number).map(|detail| FieldError::invalid(at("hostPort"), &json!(number), detail)),
            );
        }
        errors.extend(one_of(port, "protocol", &format!("{path}.ports[{index}]"), &PROTOCOLS));
    }
    errors
}

fn variable_errors(container: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, variable) in list(container, "env") {
        let at = |name: &str| format!("{path}.env[{index}].{name}");
        match text(variable, "name") {
            "" => errors.push(FieldError::required(at("name"), "")),
            name => errors.extend(FieldError::each(&at("name"), &variable["name"], names::variable_name(name))),
        }
        let Some(source) = variable["valueFrom"].as_object() else { continue };
        if source.get("fieldRef").is_some_and(Value::is_object) {
            errors.extend(pod_rules::field_path_error(&source["fieldRef"], &at("valueFrom.fieldRef")));
        }
        let count = source.values().filter(|value| value.is_object()).count();
        let mut refuse = |detail: &str| errors.push(FieldError::invalid(at("valueFrom"), &json!(""), detail));
        if count == 0 {
            refuse("must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`");
        }
        if !text(variable, "value").is_empty() && count != 0 {
            refuse("may not be specified when `value` is not empty");
        } else if count > 1 {
            refuse("may not have more than one field specified at a time");
        }
    }
    errors
}

fn mount_errors(container: &Value, path: &str, volumes: &BTreeSet<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, mount) in list(container, "volumeMounts") {
        let at = |name: &str| format!("{path}.volumeMounts[{index}].{name}");
        match text(mount, "name") {
            name if volumes.contains(name) => {}
            name => {
                errors.extend(name.is_empty().then(|| FieldError::required(at("name"), "")));
                errors.push(FieldError::not_found(at("name"), &json!(name)));
            }
        }
        match text(mount, "mountPath") {
            "" => errors.push(FieldError::required(at("mountPath"), "")),
            place if seen.insert(place) => {}
            _ => errors.push(FieldError::invalid(at("mountPath"), &mount["mountPath"], "must be unique")),
        }
        let part = text(mount, "subPath");
        let wrong = match part.starts_with('/') {
            true => Some("must be a relative path"),
            false => part.split('/').any(|part| part == "..").then_some("must not contain '..'"),
        };
        let field = format!("{path}.volumeMounts.subPath");
        errors.extend(wrong.map(|why| FieldError::invalid(field, &mount["subPath"], why)));
    }
    errors
}

fn resource_errors(resources: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut resources = resources.clone();
    // Who limits and does not ask asks for the limit.
    for (name, limit) in resources["limits"].as_object().cloned().into_iter().flatten() {
        if resources["requests"][&name].is_null() {
            resources["requests"][&name] = limit;
        }
    }
    for kind in ["limits", "requests"] {
        for (name, amount) in resources[kind].as_object().into_iter().flatten() {
            let standard = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str())
                || name.starts_with("hugepages-")
                || name.contains('/');
            let field = format!("{path}.{kind}[{name}]");
            if !standard {
                let detail = "must be a standard resource type or fully qualified";
                errors.push(FieldError::invalid(&*field, &json!(name), detail));
                errors.push(FieldError::invalid(&*field, &json!(name), "must be a standard resource for containers"));
            }
            if quantity::compare(amount, &json!("0")).is_lt() {
                errors.push(FieldError::invalid(field, amount, "must be greater than or equal to 0"));
            }
            if let Some(limit) = resources["limits"].get(name).filter(|_| kind == "requests")
                && quantity::compare(amount, limit).is_gt()
            {
                let limit = limit.as_str().unwrap_or_default();
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(format!("{path}.requests"), amount, &detail));
            }
        }
    }
    errors
}

fn probe_errors(probe: &Value, kind: &str, path: &str) -> Vec<FieldError> {
    if !probe.is_object() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"];
    let given: Vec<&str> = handlers.into_iter().filter(|handler| probe[*handler].is_object()).collect();
    match given[..] {
        [] => errors.push(FieldError::required(path, "must specify a handler type")),
        [handler] => errors.extend(handler_errors(&probe[handler], handler, &format!("{path}.{handler}"))),
        [first, ref others @ ..] => {
            errors.extend(handler_errors(&probe[first], first, &format!("{path}.{first}")));
            errors.extend(others.iter().map(|handler| {
                FieldError::forbidden(format!("{path}.{handler}"), "may not specify more than 1 handler type")
            }));
        }
    }
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.extend(not_negative(&probe[name], &format!("{path}.{name}")));
    }
    if kind != "readinessProbe" && probe["successThreshold"].as_i64().is_some_and(|times| times != 1) {
        errors.push(FieldError::invalid(format!("{path}.successThreshold"), &probe["successThreshold"], "must be 1"));
    }
    errors
}

fn handler_errors(handler: &Value, kind: &str, path: &str) -> Vec<FieldError> {
    match kind {
        "exec" if handler["command"].as_array().is_none_or(Vec::is_empty) => {
            vec![FieldError::required(format!("{path}.command"), "")]
        }
        "httpGet" | "tcpSocket" => port_or_name_errors(&handler["port"], &format!("{path}.port")),
        _ => Vec::new(),
    }
}

/// A port by number or by name.
pub(super) fn port_or_name_errors(port: &Value, field: &str) -> Vec<FieldError> {
    match port {
        Value::String(name) => FieldError::each(field, port, names::port_name(name)),
        number => {
            let number = number.as_i64().unwrap_or(0);
            names::port_number(number)
                .map(|detail| FieldError::invalid(field, &json!(number), detail))
                .into_iter()
                .collect()
        }
    }
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

fn toleration_errors(spec: &Value, path: &str) -> Vec<FieldError> {
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
