//! The cells of a row.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Columns;
use super::json_path::first;
use crate::clock::human;
use crate::registry::Resource;
use crate::verbs::meta;

const NONE: &str = "<none>";

/// The cells of an object, one for each column.
pub fn cells(object: &Value, resource: &Resource, columns: &Columns, now: Timestamp) -> Vec<Value> {
    if let Some(custom) = &resource.custom {
        let own = custom.columns.as_ref().and_then(Value::as_array);
        let mut cells = vec![json!(meta(object, "name"))];
        match own {
            Some(list) => cells.extend(list.iter().map(|column| custom_cell(object, column, now))),
            None => cells.push(json!(age(&object["metadata"]["creationTimestamp"], now))),
        }
        return cells;
    }
    if resource.group == "events.k8s.io" {
        let object = crate::kinds::events::to_core(object.clone());
        return columns.names.iter().map(|column| cell("Event", &object, column, now)).collect();
    }
    let kind = resource.kind.as_str();
    columns.names.iter().map(|column| cell(kind, object, column, now)).collect()
}

pub(super) fn age(time: &Value, now: Timestamp) -> String {
    match time.as_str().map(str::parse::<Timestamp>) {
        None => "<unknown>".into(),
        Some(Err(_)) => "<invalid>".into(),
        // A clock may be a little ahead.
        Some(Ok(then)) if now.duration_since(then).as_secs() < -1 => "<invalid>".into(),
        Some(Ok(then)) => human(now.duration_since(then).try_into().unwrap_or_default()),
    }
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

pub(super) fn or(value: String, fallback: &str) -> String {
    if value.is_empty() { fallback.to_owned() } else { value }
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

pub(super) fn labels(map: &Value) -> String {
    or(joined(map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", text(v)))), NONE)
}

pub(super) fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn count(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn cell(kind: &str, o: &Value, column: &str, now: Timestamp) -> Value {
    let (spec, status) = (&o["spec"], &o["status"]);
    match (kind, column) {
        ("StorageClass", "Name") => json!(super::other_cells::class_name(o)),
        (_, "Name") => json!(meta(o, "name")),
        (_, "Age") => json!(age(&o["metadata"]["creationTimestamp"], now)),
        (_, "Created At") => o["metadata"]["creationTimestamp"].clone(),
        ("ConfigMap", "Data") => json!(count(&o["data"]) + count(&o["binaryData"])),
        ("Secret", "Data") => json!(count(&o["data"])),
        ("Secret", "Type") => o["type"].clone(),
        ("ServiceAccount", "Secrets") => json!(list(&o["secrets"]).count()),
        ("Namespace", "Status") => status["phase"].clone(),
        ("Lease", "Holder") => json!(text(&spec["holderIdentity"])),
        ("Service", _) => json!(service(spec, status, column)),
        ("EndpointSlice", _) => json!(endpoint_slice(o, column)),
        ("Event", _) => event(o, column, now),
        ("Node", _) => json!(node(o, column)),
        ("Pod", _) => json!(super::cells::pod(o, column, now)),
        ("Deployment" | "DaemonSet" | "ReplicaSet" | "StatefulSet", _) => workload(kind, o, column),
        ("RoleBinding" | "ClusterRoleBinding", _) => json!(binding(o, column)),
        _ => super::other_cells::cell(kind, o, column, now),
    }
}

fn service(spec: &Value, status: &Value, column: &str) -> String {
    match column {
        "Type" => text(&spec["type"]),
        "Cluster-IP" => or(text(&spec["clusterIP"]), NONE),
        "External-IP" => external_ip(spec, status),
        "Port(s)" => {
            let ports = list(&spec["ports"]).map(|port| match number(&port["nodePort"]) {
                0 => format!("{}/{}", text(&port["port"]), text(&port["protocol"])),
                node => format!("{}:{node}/{}", text(&port["port"]), text(&port["protocol"])),
            });
            or(joined(ports), NONE)
        }
        _ => labels(&spec["selector"]),
    }
}

fn external_ip(spec: &Value, status: &Value) -> String {
    let external = joined(list(&spec["externalIPs"]).map(text));
    match spec["type"].as_str() {
        Some("LoadBalancer") => {
            let ingress = list(&status["loadBalancer"]["ingress"]).map(|i| or(text(&i["ip"]), &text(&i["hostname"])));
            let ingress = joined(ingress);
            match (ingress.is_empty(), external.is_empty()) {
                (true, true) => "<pending>".into(),
                (false, false) => format!("{ingress},{external}"),
                (false, true) => ingress,
                (true, false) => external,
            }
        }
        Some("ExternalName") => text(&spec["externalName"]),
        _ => or(external, NONE),
    }
}

/// The first few of a list, and how many more there are.
fn some(values: Vec<String>) -> String {
    match values.len() {
        0 => "<unset>".into(),
        1..=3 => values.join(","),
        more => format!("{} + {} more...", values[..3].join(","), more - 3),
    }
}

fn endpoint_slice(o: &Value, column: &str) -> String {
    match column {
        "AddressType" => text(&o["addressType"]),
        // A port that is every port goes by its name.
        "Ports" => some(list(&o["ports"]).map(|port| or(text(&port["port"]), &text(&port["name"]))).collect()),
        _ => some(list(&o["endpoints"]).flat_map(|e| list(&e["addresses"]).map(text)).collect()),
    }
}

fn event(o: &Value, column: &str, now: Timestamp) -> Value {
    let event_time = &o["eventTime"];
    let first = if o["firstTimestamp"].is_null() { event_time } else { &o["firstTimestamp"] };
    let last = match (&o["series"]["lastObservedTime"], &o["lastTimestamp"]) {
        (Value::Null, Value::Null) => first,
        (Value::Null, last) => last,
        (series, _) => series,
    };
    let count = o["series"]["count"].as_i64().or(o["count"].as_i64());
    json!(match column {
        "Last Seen" => age(last, now),
        "First Seen" => age(first, now),
        "Count" => return json!(count.filter(|count| *count > 0).unwrap_or(1)),
        "Object" => {
            let object = &o["involvedObject"];
            format!("{}/{}", text(&object["kind"]).to_lowercase(), text(&object["name"]))
        }
        "Subobject" => text(&o["involvedObject"]["fieldPath"]),
        "Source" => {
            let (component, host) = (text(&o["source"]["component"]), text(&o["source"]["host"]));
            let component = or(component, &text(&o["reportingComponent"]));
            let host = or(host, &text(&o["reportingInstance"]));
            if host.is_empty() { component } else { format!("{component}, {host}") }
        }
        "Type" => text(&o["type"]),
        "Reason" => text(&o["reason"]),
        _ => text(&o["message"]).trim().to_owned(),
    })
}

fn node(o: &Value, column: &str) -> String {
    let info = &o["status"]["nodeInfo"];
    let address = |kind: &str| {
        let found = list(&o["status"]["addresses"]).find(|address| address["type"] == kind);
        or(found.map(|address| text(&address["address"])).unwrap_or_default(), NONE)
    };
    match column {
        "Status" => {
            let ready = list(&o["status"]["conditions"]).find(|c| c["type"] == "Ready").map(|c| text(&c["status"]));
            let mut words = vec![match ready.as_deref() {
                Some("True") => "Ready".to_owned(),
                Some("False") => "NotReady".to_owned(),
                _ => "Unknown".to_owned(),
            }];
            if ready.as_deref() == Some("Unknown") {
                words = vec!["NotReady".into()];
            }
            if o["spec"]["unschedulable"] == true {
                words.push("SchedulingDisabled".into());
            }
            words.join(",")
        }
        "Roles" => {
            let labels = o["metadata"]["labels"].as_object().into_iter().flatten();
            let roles = labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/").map(str::to_owned));
            or(joined(roles), NONE)
        }
        "Version" => text(&info["kubeletVersion"]),
        "Internal-IP" => address("InternalIP"),
        "External-IP" => address("ExternalIP"),
        "OS-Image" => or(text(&info["osImage"]), "<unknown>"),
        "Kernel-Version" => or(text(&info["kernelVersion"]), "<unknown>"),
        _ => or(text(&info["containerRuntimeVersion"]), "<unknown>"),
    }
}

pub(super) fn pod(o: &Value, column: &str, now: Timestamp) -> String {
    let (spec, status) = (&o["spec"], &o["status"]);
    let statuses: Vec<&Value> = list(&status["containerStatuses"]).collect();
    match column {
        "Ready" => {
            let ready = statuses.iter().filter(|s| s["ready"] == true && !s["state"]["running"].is_null()).count();
            // Containers that begin before the others and go on count with them.
            let stays = |container: &&Value| container["restartPolicy"] == "Always";
            let early: Vec<&Value> = list(&spec["initContainers"]).filter(stays).collect();
            let begun = list(&status["initContainerStatuses"]).filter(|s| s["ready"] == true && s["started"] == true);
            let begun = begun.filter(|s| early.iter().any(|container| container["name"] == s["name"])).count();
            format!("{}/{}", ready + begun, list(&spec["containers"]).count() + early.len())
        }
        "Status" => pod_reason(o, &statuses),
        "Restarts" => {
            let restarts: i64 = statuses.iter().map(|s| number(&s["restartCount"])).sum();
            let last =
                statuses.iter().map(|s| text(&s["lastState"]["terminated"]["finishedAt"])).max().unwrap_or_default();
            if restarts > 0 && !last.is_empty() {
                format!("{restarts} ({} ago)", age(&json!(last), now))
            } else {
                restarts.to_string()
            }
        }
        "IP" => or(text(&status["podIPs"][0]["ip"]), &or(text(&status["podIP"]), NONE)),
        "Node" => or(text(&spec["nodeName"]), NONE),
        "Nominated Node" => or(text(&status["nominatedNodeName"]), NONE),
        _ => match list(&spec["readinessGates"]).count() {
            0 => NONE.into(),
            gates => {
                let fulfilled = list(&spec["readinessGates"]).filter(|gate| {
                    list(&status["conditions"]).any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
                });
                format!("{}/{gates}", fulfilled.count())
            }
        },
    }
}

fn pod_reason(o: &Value, statuses: &[&Value]) -> String {
    let status = &o["status"];
    let mut reason = or(text(&status["reason"]), &text(&status["phase"]));
    if list(&status["conditions"]).any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    for container in statuses.iter().rev() {
        let (waiting, ended) = (text(&container["state"]["waiting"]["reason"]), &container["state"]["terminated"]);
        if !waiting.is_empty() {
            reason = waiting;
        } else if !ended.is_null() {
            reason = match (text(&ended["reason"]), number(&ended["signal"])) {
                (given, _) if !given.is_empty() => given,
                (_, 0) => format!("ExitCode:{}", number(&ended["exitCode"])),
                (_, signal) => format!("Signal:{signal}"),
            };
        }
    }
    if o["metadata"]["deletionTimestamp"].is_string() {
        return if status["reason"] == "NodeLost" { "Unknown".into() } else { "Terminating".into() };
    }
    reason
}

fn workload(kind: &str, o: &Value, column: &str) -> Value {
    let (spec, status) = (&o["spec"], &o["status"]);
    let template = &spec["template"]["spec"];
    match (kind, column) {
        (_, "Containers") => json!(joined(list(&template["containers"]).map(|c| text(&c["name"])))),
        (_, "Images") => json!(joined(list(&template["containers"]).map(|c| text(&c["image"])))),
        (_, "Selector") => json!(labels(&spec["selector"]["matchLabels"])),
        (_, "Node Selector") => json!(labels(&template["nodeSelector"])),
        ("Deployment" | "StatefulSet", "Ready") => {
            json!(format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"])))
        }
        ("Deployment", "Up-to-date") => json!(number(&status["updatedReplicas"])),
        ("Deployment", "Available") => json!(number(&status["availableReplicas"])),
        ("ReplicaSet", "Desired") => json!(number(&spec["replicas"])),
        ("ReplicaSet", "Current") => json!(number(&status["replicas"])),
        ("ReplicaSet", "Ready") => json!(number(&status["readyReplicas"])),
        (_, "Desired") => json!(number(&status["desiredNumberScheduled"])),
        (_, "Current") => json!(number(&status["currentNumberScheduled"])),
        (_, "Ready") => json!(number(&status["numberReady"])),
        (_, "Up-to-date") => json!(number(&status["updatedNumberScheduled"])),
        (_, "Available") => json!(number(&status["numberAvailable"])),
        _ => Value::Null,
    }
}

fn binding(o: &Value, column: &str) -> String {
    let subjects = |kind: &'static str| list(&o["subjects"]).filter(move |subject| subject["kind"] == kind);
    match column {
        "Role" => format!("{}/{}", text(&o["roleRef"]["kind"]), text(&o["roleRef"]["name"])),
        "Users" => subjects("User").map(|s| text(&s["name"])).collect::<Vec<_>>().join(", "),
        "Groups" => subjects("Group").map(|s| text(&s["name"])).collect::<Vec<_>>().join(", "),
        _ => {
            let accounts =
                subjects("ServiceAccount").map(|s| format!("{}/{}", text(&s["namespace"]), text(&s["name"])));
            accounts.collect::<Vec<_>>().join(", ")
        }
    }
}

/// A cell by the column's JSON path; what is absent or of another type is blank.
fn custom_cell(object: &Value, column: &Value, now: Timestamp) -> Value {
    let path = column["jsonPath"].as_str().unwrap_or_default();
    let Some(found) = first(object, path) else { return Value::Null };
    match (column["type"].as_str().unwrap_or_default(), found) {
        ("string", value) => json!(text(value)),
        ("date", Value::String(_)) => json!(age(found, now)),
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(number) => json!(number),
            None => number.as_f64().map_or(Value::Null, |number| json!(number as i64)),
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
        _ => Value::Null,
    }
}
