//! Pods and what makes them.

use serde_json::{Map, Value, json};

use super::{gates, names, volumes};

/// Defaults of a pod that its template does not have.
pub(super) fn default_pod(object: &mut Value) {
    settle_addresses(&mut object["status"]);
    default_pod_spec(&mut object["spec"]);
    host_ports(&mut object["spec"]);
    let Some(spec) = object["spec"].as_object_mut() else { return };
    spec.entry("enableServiceLinks").or_insert(json!(true));
    for container in object["spec"]["containers"].as_array_mut().into_iter().flatten() {
        // What is limited and not requested is requested.
        let limits = container["resources"]["limits"].clone();
        for (name, value) in limits.as_object().into_iter().flatten() {
            if container["resources"]["requests"].get(name).is_none() {
                container["resources"]["requests"][name] = value.clone();
            }
        }
    }
}

/// The single address is the old name of the first one, and decides.
fn settle_addresses(status: &mut Value) {
    let Some(fields) = status.as_object_mut() else { return };
    let single = fields.get("podIP").and_then(Value::as_str).filter(|address| !address.is_empty()).map(str::to_owned);
    let first = fields.get("podIPs").and_then(|list| list[0]["ip"].as_str()).map(str::to_owned);
    match (single, first) {
        (Some(single), first) if first.as_ref() != Some(&single) => {
            fields.insert("podIPs".into(), json!([{"ip": single}]));
        }
        (None, Some(first)) => {
            fields.insert("podIP".into(), json!(first));
        }
        _ => {}
    }
}

/// What of a pod does not go with its status: who owns it, and how good its service is if that is not said.
pub(super) fn keep_of_pod(pod: &mut Value, current: &Value) {
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        match current["metadata"].get("ownerReferences") {
            Some(owners) => metadata.insert("ownerReferences".into(), owners.clone()),
            None => metadata.remove("ownerReferences"),
        };
    }
    if pod["status"]["qosClass"].as_str().unwrap_or_default().is_empty() && current["status"]["qosClass"].is_string() {
        pod["status"]["qosClass"] = current["status"]["qosClass"].clone();
    }
}

/// A pod in the network of its node has the ports that its containers open; templates do not say so.
fn host_ports(spec: &mut Value) {
    if spec["hostNetwork"] != true {
        return;
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if port["hostPort"].is_null() {
                    port["hostPort"] = port["containerPort"].clone();
                }
            }
        }
    }
}

fn default_pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(reference) = variable.pointer_mut("/valueFrom/resourceFieldRef").filter(|r| r.is_object()) {
                    reference.as_object_mut().map(|reference| reference.entry("divisor").or_insert(json!("0")));
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            default_container(container);
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        default_files(volume);
        if let Some(volume) = volume.as_object_mut()
            && volume.len() == 1
            && volume.contains_key("name")
        {
            volume.insert("emptyDir".into(), json!({}));
        }
    }
    let account = spec["serviceAccountName"].as_str().or(spec["serviceAccount"].as_str()).map(str::to_owned);
    if let Some(account) = account {
        spec["serviceAccountName"] = json!(account);
        spec["serviceAccount"] = json!(account);
    }
}

/// What a container may use is shown as it is, if not in another unit.
fn default_files(volume: &mut Value) {
    let fill = |source: &mut Value| {
        for file in source.pointer_mut("/downwardAPI/items").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(amount) = file.get_mut("resourceFieldRef").and_then(Value::as_object_mut) {
                amount.entry("divisor").or_insert(json!("0"));
            }
        }
    };
    fill(volume);
    for source in volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut).into_iter().flatten() {
        fill(source);
    }
}

fn default_container(container: &mut Value) {
    if container["imagePullPolicy"].is_null() {
        let image = container["image"].as_str().unwrap_or_default();
        let name = image.rsplit('/').next().unwrap_or_default();
        let latest = !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest");
        // What is no name of an image has no tag.
        let latest = latest && names::is_image(image);
        container["imagePullPolicy"] = json!(if latest { "Always" } else { "IfNotPresent" });
    }
}

/// Defaults of a PodTemplate.
pub(super) fn default_template(object: &mut Value) {
    if let Some(spec) = object["template"].get_mut("spec") {
        default_pod_spec(spec);
    }
}

/// Defaults of Deployments and their like.
pub(super) fn default_workload(plural: &str, object: &mut Value) {
    if object["spec"]["template"].is_object() {
        default_pod_spec(&mut object["spec"]["template"]["spec"]);
    }
    if !object["spec"].is_object() {
        return;
    }
    match plural {
        "deployments" => {
            let strategy = &mut object["spec"]["strategy"];
            if strategy["type"].is_null() {
                strategy["type"] = json!("RollingUpdate");
            }
            if strategy["type"] == "RollingUpdate" {
                fill(&mut strategy["rollingUpdate"], &[("maxSurge", json!("25%")), ("maxUnavailable", json!("25%"))]);
            }
        }
        "daemonsets" => {
            if object["metadata"]["annotations"][TEMPLATE].is_null() {
                object["metadata"]["annotations"][TEMPLATE] = json!("1");
            }
            let strategy = &mut object["spec"]["updateStrategy"];
            if strategy["type"].is_null() {
                strategy["type"] = json!("RollingUpdate");
            }
            if strategy["type"] == "RollingUpdate" {
                fill(&mut strategy["rollingUpdate"], &[("maxSurge", json!(0)), ("maxUnavailable", json!(1))]);
            }
        }
        "jobs" => super::jobs::default(object),
        "replicationcontrollers" => default_controller(object),
        "statefulsets" => {
            let retain = json!("Retain");
            let kept = &mut object["spec"]["persistentVolumeClaimRetentionPolicy"];
            fill(kept, &[("whenDeleted", retain.clone()), ("whenScaled", retain)]);
            let claims = object["spec"].get_mut("volumeClaimTemplates").and_then(Value::as_array_mut);
            for claim in claims.into_iter().flatten() {
                fill(claim, &[("apiVersion", json!("v1")), ("kind", json!("PersistentVolumeClaim"))]);
                volumes::default_claim(claim);
            }
            let strategy = &mut object["spec"]["updateStrategy"];
            if strategy["type"].is_null() {
                strategy["type"] = json!("RollingUpdate");
            }
            if strategy["type"] == "RollingUpdate" {
                fill(&mut strategy["rollingUpdate"], &[("partition", json!(0))]);
            }
        }
        _ => {}
    }
}

/// A ReplicationController is about the pods that it makes, and is labelled as they are, if it does not say otherwise.
fn default_controller(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    let empty = |value: &Value| value.as_object().is_none_or(Map::is_empty);
    if empty(&labels) {
        return;
    }
    if empty(&object["spec"]["selector"]) {
        object["spec"]["selector"] = labels.clone();
    }
    if empty(&object["metadata"]["labels"]) {
        object["metadata"]["labels"] = labels;
    }
}

const TEMPLATE: &str = "deprecated.daemonset.template.generation";

/// The server counts the templates of a DaemonSet, in an annotation that clients do not set.
pub(super) fn count_template(object: &mut Value, current: &Value) {
    let count = current["metadata"]["annotations"][TEMPLATE].as_str().and_then(|text| text.parse::<i64>().ok());
    let changed = object["spec"]["template"] != current["spec"]["template"];
    let count = count.unwrap_or(1) + i64::from(changed);
    object["metadata"]["annotations"][TEMPLATE] = json!(count.to_string());
}

fn fill(value: &mut Value, fields: &[(&str, Value)]) {
    for (name, default) in fields {
        if value[*name].is_null() {
            value[*name] = default.clone();
        }
    }
}

/// A new pod is pending; its status is the server's.
pub(super) fn prepare_pod(object: &mut Value) {
    object["status"] = json!({"phase": "Pending", "qosClass": quality(object)});
    if gates::is_gated(&object["spec"]) {
        object["status"]["conditions"] = json!([gates::condition(&object["metadata"]["creationTimestamp"])]);
    }
    if object["spec"]["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        object["spec"]["terminationGracePeriodSeconds"] = json!(1);
    }
    tolerate(object);
}

/// What admission gave a pod when it was made, an update need not repeat.
pub(super) fn readmit(pod: &mut Value, current: &Value) {
    tolerate(pod);
    for name in ["priority", "preemptionPolicy"] {
        if pod["spec"][name].is_null() && !current["spec"][name].is_null() {
            pod["spec"][name] = current["spec"][name].clone();
        }
    }
}

pub(super) fn quality(pod: &Value) -> &'static str {
    let containers: Vec<&Value> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten())
        .collect();
    let resource = |container: &Value, kind: &str, name: &str| container["resources"][kind].get(name).cloned();
    let any = containers.iter().any(|container| {
        ["requests", "limits"]
            .iter()
            .any(|kind| ["cpu", "memory"].iter().any(|name| resource(container, kind, name).is_some()))
    });
    let all = containers.iter().all(|container| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = resource(container, "limits", name);
            limit.is_some() && resource(container, "requests", name).is_none_or(|request| Some(request) == limit)
        })
    });
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// A pod outlives five minutes of a node that is not ready or not reachable, unless it says otherwise.
fn tolerate(pod: &mut Value) {
    let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = tolerations.iter().any(|toleration| {
            let whole = toleration["key"].as_str().unwrap_or_default().is_empty() && toleration["operator"] == "Exists";
            let effect = toleration["effect"].as_str().unwrap_or_default();
            (toleration["key"] == key || whole) && (effect.is_empty() || effect == "NoExecute")
        });
        if !covered {
            tolerations
                .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    pod["spec"]["tolerations"] = Value::Array(tolerations);
}
