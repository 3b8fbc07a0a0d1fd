//! Cells of kinds that are seldom looked at.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, joined, labels, list, number, or, text};

const NONE: &str = "<none>";

pub(super) fn cell(kind: &str, o: &Value, column: &str, now: Timestamp) -> Value {
    let (spec, status) = (&o["spec"], &o["status"]);
    let pods = &spec["template"]["spec"];
    match (kind, column) {
        ("Endpoints", _) => json!(endpoints(o)),
        ("ReplicationController" | "Job", "Containers") => {
            json!(joined(list(&pods["containers"]).map(|c| text(&c["name"]))))
        }
        ("ReplicationController" | "Job", "Images") => {
            json!(joined(list(&pods["containers"]).map(|c| text(&c["image"]))))
        }
        ("ReplicationController", "Selector") => json!(labels(&spec["selector"])),
        ("ReplicationController", "Desired") => json!(number(&spec["replicas"])),
        ("ReplicationController", "Current") => json!(number(&status["replicas"])),
        ("ReplicationController", "Ready") => json!(number(&status["readyReplicas"])),
        ("Job", _) => json!(job(o, column, now)),
        ("ControllerRevision", "Revision") => json!(number(&o["revision"])),
        ("ControllerRevision", _) => {
            let mut owners = list(&o["metadata"]["ownerReferences"]);
            let owner = owners.find(|owner| owner["controller"] == true);
            json!(owner.map_or_else(|| NONE.into(), controller))
        }
        ("PodTemplate", _) => json!(pod_template(&o["template"], column)),
        ("Ingress", _) => json!(ingress(spec, status, column)),
        ("IngressClass", "Controller") => json!(text(&spec["controller"])),
        ("IngressClass", _) => json!(parameters(&spec["parameters"])),
        ("Scale", "Desired") => json!(number(&spec["replicas"])),
        ("Scale", _) => json!(number(&status["replicas"])),
        ("NetworkPolicy", _) => json!(selector(&spec["podSelector"])),
        ("PodDisruptionBudget", "Min Available") => json!(or(text(&spec["minAvailable"]), "N/A")),
        ("PodDisruptionBudget", "Max Unavailable") => json!(or(text(&spec["maxUnavailable"]), "N/A")),
        ("PodDisruptionBudget", _) => json!(number(&status["disruptionsAllowed"])),
        ("PriorityClass", "Value") => json!(number(&o["value"])),
        ("PriorityClass", "Global-Default") => json!(o["globalDefault"] == true),
        ("PriorityClass", _) => json!(text(&o["preemptionPolicy"])),
        ("RuntimeClass", _) => json!(text(&o["handler"])),
        ("StorageClass", "Provisioner") => json!(text(&o["provisioner"])),
        ("StorageClass", "ReclaimPolicy") => json!(or(text(&o["reclaimPolicy"]), "Delete")),
        ("StorageClass", "VolumeBindingMode") => json!(or(text(&o["volumeBindingMode"]), "Immediate")),
        ("StorageClass", _) => json!(o["allowVolumeExpansion"] == true),
        ("CSINode", _) => json!(list(&spec["drivers"]).count()),
        ("CSIDriver", _) => csi_driver(spec, column),
        ("PersistentVolumeClaim" | "PersistentVolume", _) => json!(volume(kind, o, column)),
        _ => Value::Null,
    }
}

/// The class that claims get which name none says so.
pub(super) fn class_name(class: &Value) -> String {
    let (name, annotations) = (text(&class["metadata"]["name"]), &class["metadata"]["annotations"]);
    let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    if marks.iter().any(|mark| annotations[mark] == "true") { format!("{name} (default)") } else { name }
}

fn pod_template(template: &Value, column: &str) -> String {
    let containers = list(&template["spec"]["containers"]);
    match column {
        "Containers" => joined(containers.map(|c| text(&c["name"]))),
        "Images" => joined(containers.map(|c| text(&c["image"]))),
        _ => labels(&template["metadata"]["labels"]),
    }
}

fn ingress(spec: &Value, status: &Value, column: &str) -> String {
    match column {
        "Class" => or(text(&spec["ingressClassName"]), NONE),
        "Hosts" => {
            let hosts: Vec<String> =
                list(&spec["rules"]).map(|rule| text(&rule["host"])).filter(|host| !host.is_empty()).collect();
            match hosts.len() {
                0 => "*".into(),
                1..=3 => hosts.join(","),
                more => format!("{} + {} more...", hosts[..3].join(","), more - 3),
            }
        }
        "Address" => {
            joined(list(&status["loadBalancer"]["ingress"]).map(|i| or(text(&i["ip"]), &text(&i["hostname"]))))
        }
        _ if list(&spec["tls"]).next().is_some() => "80, 443".into(),
        _ => "80".into(),
    }
}

fn parameters(parameters: &Value) -> String {
    if !parameters.is_object() {
        return NONE.into();
    }
    let (kind, group) = (text(&parameters["kind"]), text(&parameters["apiGroup"]));
    let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
    format!("{kind}/{}", text(&parameters["name"]))
}

/// The first few addresses with their ports.
fn endpoints(o: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(&o["subsets"]) {
        let addresses: Vec<String> = list(&subset["addresses"]).map(|address| text(&address["ip"])).collect();
        let ports: Vec<String> = list(&subset["ports"]).map(|port| text(&port["port"])).collect();
        match ports[..] {
            [] => all.extend(addresses),
            _ => all.extend(ports.iter().flat_map(|port| addresses.iter().map(move |ip| format!("{ip}:{port}")))),
        }
    }
    match all.len() {
        0 => NONE.into(),
        1..=3 => all.join(","),
        more => format!("{} + {} more...", all[..3].join(","), more - 3),
    }
}

fn job(o: &Value, column: &str, now: Timestamp) -> String {
    let (spec, status) = (&o["spec"], &o["status"]);
    let has = |kind: &str| list(&status["conditions"]).any(|c| c["type"] == kind && c["status"] == "True");
    match column {
        "Completions" => match (spec["completions"].as_i64(), spec["parallelism"].as_i64().unwrap_or(0)) {
            (Some(wanted), _) => format!("{}/{wanted}", number(&status["succeeded"])),
            (None, parallel) if parallel > 1 => format!("{}/1 of {parallel}", number(&status["succeeded"])),
            (None, _) => format!("{}/1", number(&status["succeeded"])),
        },
        "Duration" => match (&status["startTime"], &status["completionTime"]) {
            (Value::Null, _) => String::new(),
            (start, Value::Null) => age(start, now),
            (start, end) => age(start, text(end).parse().unwrap_or(now)),
        },
        "Status" if has("Complete") => "Complete".into(),
        "Status" if has("Failed") => "Failed".into(),
        "Status" if o["metadata"]["deletionTimestamp"].is_string() => "Terminating".into(),
        "Status" if has("Suspended") => "Suspended".into(),
        "Status" if has("FailureTarget") => "FailureTarget".into(),
        "Status" if has("SuccessCriteriaMet") => "SuccessCriteriaMet".into(),
        "Status" => "Running".into(),
        _ => selector(&spec["selector"]),
    }
}

fn controller(owner: &Value) -> String {
    let kind = text(&owner["kind"]).to_lowercase();
    let group = text(&owner["apiVersion"]).split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
    format!("{kind}{group}/{}", text(&owner["name"]))
}

/// A selector as it is written on a command line.
fn selector(selector: &Value) -> String {
    if !selector.is_object() {
        return NONE.into();
    }
    let mut parts: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    for requirement in list(&selector["matchExpressions"]) {
        let key = text(&requirement["key"]);
        let mut values: Vec<String> = list(&requirement["values"]).map(text).collect();
        values.sort();
        parts.push(match requirement["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key,
            _ => format!("!{key}"),
        });
    }
    parts.sort();
    or(parts.join(","), NONE)
}

fn csi_driver(spec: &Value, column: &str) -> Value {
    match column {
        "AttachRequired" => json!(spec["attachRequired"] != false),
        "PodInfoOnMount" => json!(spec["podInfoOnMount"] == true),
        "StorageCapacity" => json!(spec["storageCapacity"] == true),
        "RequiresRepublish" => json!(spec["requiresRepublish"] == true),
        "TokenRequests" => {
            json!(or(joined(list(&spec["tokenRequests"]).map(|request| text(&request["audience"]))), "<unset>"))
        }
        _ => json!(or(joined(list(&spec["volumeLifecycleModes"]).map(text)), NONE)),
    }
}

fn volume(kind: &str, o: &Value, column: &str) -> String {
    let (spec, status) = (&o["spec"], &o["status"]);
    // Always in this order.
    let modes = |value: &Value| {
        let known =
            [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
        let given = known.iter().filter(|(long, _)| list(value).any(|mode| mode == long));
        given.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
    };
    let claim = kind == "PersistentVolumeClaim";
    match column {
        "Status" if o["metadata"]["deletionTimestamp"].is_string() => "Terminating".into(),
        "Status" => text(&status["phase"]),
        "Volume" => text(&spec["volumeName"]),
        "Capacity" if claim && text(&spec["volumeName"]).is_empty() => String::new(),
        "Capacity" if claim => or(text(&status["capacity"]["storage"]), "0"),
        "Capacity" => text(&spec["capacity"]["storage"]),
        "Access Modes" if claim && text(&spec["volumeName"]).is_empty() => String::new(),
        "Access Modes" if claim => modes(&status["accessModes"]),
        "Access Modes" => modes(&spec["accessModes"]),
        "Reclaim Policy" => text(&spec["persistentVolumeReclaimPolicy"]),
        "Claim" if spec["claimRef"].is_object() => {
            format!("{}/{}", text(&spec["claimRef"]["namespace"]), text(&spec["claimRef"]["name"]))
        }
        "StorageClass" => text(&spec["storageClassName"]),
        "VolumeAttributesClass" => or(text(&spec["volumeAttributesClassName"]), "<unset>"),
        "VolumeMode" => or(text(&spec["volumeMode"]), "<unset>"),
        "Reason" => text(&status["reason"]),
        _ => String::new(),
    }
}
