//! What is wrong with the containers of a pod.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::pod_volumes::{SHOWN, Volumes, amount_errors, descending_path_errors, field_errors};
use super::pods::{list, text};
use super::{names, pod_security, probes, quantity};
use crate::failure::FieldError;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// What containers take from the pod that they are in.
pub(super) struct Room<'a> {
    /// The volumes that can be mounted.
    pub(super) volumes: Volumes<'a>,
    /// Seconds that the pod has to end.
    pub(super) grace: i64,
    /// What becomes of a container that has ended.
    pub(super) restart: &'a str,
    /// Whether users are those of the host.
    pub(super) host_users: bool,
}

/// `containers` of a pod.
pub(super) fn main_errors(spec: &Value, path: &str, room: &Room<'_>) -> Vec<FieldError> {
    let field = format!("{path}.containers");
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        return vec![FieldError::required(field, "")];
    }
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, container) in list(spec, "containers") {
        let at = format!("{field}[{index}]");
        errors.extend(common_errors(container, &at, room));
        if !seen.insert(text(container, "name")) {
            errors.push(FieldError::duplicate(format!("{at}.name"), &json!(text(container, "name"))));
        }
        errors.extend(probes::lasting_errors(container, &at, room.grace));
        if !container["restartPolicy"].is_null() {
            let detail = "may not be set for non-init containers";
            errors.push(FieldError::forbidden(format!("{at}.restartPolicy"), detail));
        }
    }
    errors.extend(taken_port_errors(&list(spec, "containers").map(|(_, one)| one).collect::<Vec<_>>(), &field));
    errors
}

/// A port of the host is for one container.
fn taken_port_errors(containers: &[&Value], field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
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

/// `initContainers` of a pod.
pub(super) fn init_errors(spec: &Value, path: &str, room: &Room<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let field = format!("{path}.initContainers");
    let mut seen: BTreeSet<&str> = list(spec, "containers").map(|(_, container)| text(container, "name")).collect();
    for (index, container) in list(spec, "initContainers") {
        let at = format!("{field}[{index}]");
        errors.extend(common_errors(container, &at, room));
        if !text(container, "name").is_empty() && !seen.insert(text(container, "name")) {
            errors.push(FieldError::duplicate(format!("{at}.name"), &container["name"]));
        }
        errors.extend(taken_port_errors(&[container], &field));
        match container["restartPolicy"] == "Always" {
            true => errors.extend(probes::lasting_errors(container, &at, room.grace)),
            false => errors.extend(probes::passing_errors(container, &at)),
        }
    }
    errors
}

/// Name and image, which every container has.
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

/// What holds for containers of all sorts.
pub(super) fn common_errors(container: &Value, path: &str, room: &Room<'_>) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let mut errors = image_and_name_errors(container, path);
    errors.extend(one_of(container, "terminationMessagePolicy", path, &["File", "FallbackToLogsOnError"]));
    errors.extend(port_errors(container, path));
    errors.extend(variable_errors(container, path));
    errors.extend(variable_source_errors(container, path));
    errors.extend(mount_errors(container, path, room));
    errors.extend(device_errors(container, path, room));
    errors.extend(one_of(container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"]));
    errors.extend(resource_errors(&container["resources"], &at("resources")));
    errors.extend(resize_errors(container, &at("resizePolicy"), room.restart));
    let security = &container["securityContext"];
    errors.extend(pod_security::container_errors(security, &at("securityContext"), room.host_users));
    errors
}

/// A word that must be there, and be one of those known.
pub(super) fn one_of(holder: &Value, name: &str, path: &str, words: &[&str]) -> Option<FieldError> {
    let field = format!("{path}.{name}");
    match text(holder, name) {
        "" => Some(FieldError::required(field, "")),
        word if words.contains(&word) => None,
        word => Some(FieldError::not_supported(field, &json!(word), words)),
    }
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
        let source = &variable["valueFrom"];
        if !source.is_object() {
            continue;
        }
        let kinds = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"];
        let given: Vec<&str> = kinds.into_iter().filter(|kind| source[*kind].is_object()).collect();
        for kind in &given {
            let at = at(&format!("valueFrom.{kind}"));
            errors.extend(match *kind {
                "fieldRef" => field_errors(&source[*kind], &at, &SHOWN[2..]),
                "resourceFieldRef" => amount_errors(&source[*kind], &at, false),
                _ => key_errors(&source[*kind], &at),
            });
        }
        let mut refuse = |detail: &str| errors.push(FieldError::invalid(at("valueFrom"), &json!(""), detail));
        if given.is_empty() {
            refuse("must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`");
        } else if !text(variable, "value").is_empty() {
            refuse("may not be specified when `value` is not empty");
        } else if given.len() > 1 {
            refuse("may not have more than one field specified at a time");
        }
    }
    errors
}

/// A key of a ConfigMap or a Secret.
fn key_errors(reference: &Value, path: &str) -> Vec<FieldError> {
    let name = text(reference, "name");
    let mut errors = FieldError::each(&format!("{path}.name"), &json!(name), names::subdomain(name));
    match text(reference, "key") {
        "" => errors.push(FieldError::required(format!("{path}.key"), "")),
        key => errors.extend(FieldError::each(&format!("{path}.key"), &reference["key"], names::config_key(key))),
    }
    errors
}

/// `envFrom`.
fn variable_source_errors(container: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, source) in list(container, "envFrom") {
        let at = |name: &str| format!("{path}.envFrom[{index}].{name}");
        if !text(source, "prefix").is_empty() {
            let complaints = names::variable_name(text(source, "prefix"));
            errors.extend(FieldError::each(&at("prefix"), &source["prefix"], complaints));
        }
        let given: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|kind| source[*kind].is_object()).collect();
        for kind in &given {
            let (field, name) = (at(&format!("{kind}.name")), text(&source[*kind], "name"));
            match name {
                "" => errors.push(FieldError::required(field, "")),
                name => errors.extend(FieldError::each(&field, &json!(name), names::subdomain(name))),
            }
        }
        let mut refuse = |detail: &str| errors.push(FieldError::invalid(format!("{path}.envFrom"), &json!(""), detail));
        match given.len() {
            0 => refuse("must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => refuse("may not have more than one field specified at a time"),
        }
    }
    errors
}

fn mount_errors(container: &Value, path: &str, room: &Room<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    let mounts = format!("{path}.volumeMounts");
    for (index, mount) in list(container, "volumeMounts") {
        let at = |name: &str| format!("{mounts}[{index}].{name}");
        let (name, place) = (text(mount, "name"), text(mount, "mountPath"));
        errors.extend(name.is_empty().then(|| FieldError::required(at("name"), "")));
        if !room.volumes.contains_key(name) {
            errors.push(FieldError::not_found(at("name"), &json!(name)));
        }
        errors.extend(place.is_empty().then(|| FieldError::required(at("mountPath"), "")));
        if !seen.insert(place) {
            errors.push(FieldError::invalid(at("mountPath"), &json!(place), "must be unique"));
        }
        for (own, name, detail) in [
            ("name", "name", "must not already exist in volumeDevices"),
            ("mountPath", "devicePath", "must not already exist as a path in volumeDevices"),
        ] {
            if list(container, "volumeDevices").any(|(_, device)| text(device, name) == text(mount, own)) {
                errors.push(FieldError::invalid(at(own), &json!(text(mount, own)), detail));
            }
        }
        // Where in the list it is is not said.
        let at = |name: &str| format!("{mounts}.{name}");
        errors.extend(descending_path_errors(&mount["subPath"], &at("subPath")));
        if !text(mount, "subPathExpr").is_empty() {
            if !text(mount, "subPath").is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                let field = format!("{mounts}[{index}].subPathExpr");
                errors.push(FieldError::invalid(field, &mount["subPathExpr"], detail));
            }
            errors.extend(descending_path_errors(&mount["subPathExpr"], &at("subPathExpr")));
        }
        errors.extend(propagation_errors(mount, container, &mounts));
    }
    errors
}

fn propagation_errors(mount: &Value, container: &Value, path: &str) -> Vec<FieldError> {
    let known = ["Bidirectional", "HostToContainer", "None"];
    let mut errors: Vec<FieldError> =
        pod_security::word_error(mount, "mountPropagation", path, &known).into_iter().collect();
    if mount["mountPropagation"] == "Bidirectional" && container["securityContext"]["privileged"] != true {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(format!("{path}.mountPropagation"), detail));
    }
    errors
}

/// `volumeDevices`.
fn device_errors(container: &Value, path: &str, room: &Room<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (mut taken, mut places) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in list(container, "volumeDevices") {
        let at = |name: &str| format!("{path}.volumeDevices[{index}].{name}");
        let (name, place) = (text(device, "name"), text(device, "devicePath"));
        errors.extend(name.is_empty().then(|| FieldError::required(at("name"), "")));
        if !taken.insert(name) {
            errors.push(FieldError::invalid(at("name"), &json!(name), "must be unique"));
        }
        match room.volumes.get(name) {
            None => errors.push(FieldError::not_found(at("name"), &json!(name))),
            Some(volume) if volume["persistentVolumeClaim"].is_object() || volume["ephemeral"].is_object() => {}
            Some(_) => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(at("name"), &json!(name), detail));
            }
        }
        errors.extend(place.is_empty().then(|| FieldError::required(at("devicePath"), "")));
        if place.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(at("devicePath"), &json!(place), "can not contain backsteps ('..')"));
        } else if !places.insert(place) {
            errors.push(FieldError::invalid(at("devicePath"), &json!(place), "must be unique"));
        }
        for (own, name, detail) in [
            ("name", "name", "must not already exist in volumeMounts"),
            ("devicePath", "mountPath", "must not already exist as a path in volumeMounts"),
        ] {
            if list(container, "volumeMounts").any(|(_, mount)| text(mount, name) == text(device, own)) {
                errors.push(FieldError::invalid(at(own), &json!(text(device, own)), detail));
            }
        }
    }
    errors
}

/// Whether a resource is one of the system's, and not of a device's maker.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// The name of what a container may use.
pub(super) fn resource_name_errors(name: &str, field: &str, for_containers: bool) -> Vec<FieldError> {
    let complaints = names::qualified(name);
    if !complaints.is_empty() {
        return FieldError::each(field, &json!(name), complaints);
    }
    let of_containers = ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
    if name.contains('/') || of_containers {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if !STANDARD.contains(&name) {
        let detail = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(field, &json!(name), detail));
    }
    if for_containers {
        errors.push(FieldError::invalid(field, &json!(name), "must be a standard resource for containers"));
    }
    errors
}

/// Resources that are known, but not for containers.
const STANDARD: [&str; 16] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "limits.cpu",
    "limits.memory",
    "services.nodeports",
    "services.loadbalancers",
    "requests.ephemeral-storage",
];

/// Amounts that a container asks for, and those that it may have.
pub(super) fn resource_errors(resources: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut resources = resources.clone();
    // Who limits and does not ask asks for the limit.
    for (name, limit) in resources["limits"].as_object().cloned().into_iter().flatten() {
        if resources["requests"][&name].is_null() {
            resources["requests"][&name] = limit;
        }
    }
    let amounts = |kind: &str| resources[kind].as_object().cloned().unwrap_or_default();
    let (limits, requests) = (amounts("limits"), amounts("requests"));
    for (kind, amounts) in [("limits", &limits), ("requests", &requests)] {
        for (name, amount) in amounts {
            let field = format!("{path}.{kind}[{name}]");
            errors.extend(resource_name_errors(name, &field, true));
            if quantity::compare(amount, &json!("0")).is_lt() {
                errors.push(FieldError::invalid(&*field, amount, "must be greater than or equal to 0"));
            }
            if !is_native(name) && quantity::number(amount).fract() != 0.0 {
                errors.push(FieldError::invalid(&*field, amount, "must be an integer"));
            }
            if kind == "requests" {
                errors.extend(balance_error(name, amount, &limits, path));
            }
        }
    }
    let any = |test: &dyn Fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|name| test(name));
    if any(&|name| name.starts_with("hugepages-")) && !any(&|name| matches!(name, "cpu" | "memory")) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    errors
}

/// No more may be asked for than there may be; of what cannot be shared, as much.
fn balance_error(name: &str, amount: &Value, limits: &Map<String, Value>, path: &str) -> Option<FieldError> {
    let shared = is_native(name) && !name.starts_with("hugepages-");
    let Some(limit) = limits.get(name) else {
        let detail = "Limit must be set for non overcommitable resources";
        return (!shared).then(|| FieldError::required(format!("{path}.limits"), detail));
    };
    let order = quantity::compare(amount, limit);
    let word = match shared {
        false if order.is_ne() => "equal to",
        true if order.is_gt() => "less than or equal to",
        _ => return None,
    };
    let detail = format!("must be {word} {name} limit of {}", limit.as_str().unwrap_or_default());
    Some(FieldError::invalid(format!("{path}.requests"), amount, &detail))
}

/// `resizePolicy`.
fn resize_errors(container: &Value, path: &str, restart: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    let word_error = |word: &str, known: &[&str]| match word {
        "" => Some(FieldError::required(path, "")),
        word if known.contains(&word) => None,
        word => Some(FieldError::not_supported(path, &json!(word), known)),
    };
    for (index, policy) in list(container, "resizePolicy") {
        let (resource, action) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if !seen.insert(resource) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), &json!(resource)));
        }
        errors.extend(word_error(resource, &["cpu", "memory"]));
        errors.extend(word_error(action, &["NotRequired", "RestartContainer"]));
        if restart == "Never" && action != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, &json!(action), detail));
        }
    }
    errors
}
