//! Stories: what controllers make of objects. A story is a script in which pods are run by kubelets that are played here;
//! what it shows at its end is compared, and of its watches the order in which states were seen.

#![allow(clippy::unwrap_used, reason = "test code: a broken story or recording ends the test")]
#![allow(dead_code, reason = "not every test plays stories")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use apiserver::controllers::{ControllerOptions, start};
use apiserver::{ApiServer, Options};
use serde_json::{Map, Value, json};

use super::compare::Comparison;
use super::player::{described, play};
use super::server::Server;

/// What a story says of the cluster that it is played in.
pub(crate) struct Setting {
    /// After how many seconds a node that is not heard of is unknown.
    pub(crate) node_grace: u64,
}

impl Setting {
    pub(crate) fn of(story: &str) -> Self {
        let story: Value = serde_yaml::from_str(story).unwrap();
        Self { node_grace: story["nodeGrace"].as_u64().unwrap_or(50) }
    }
}

/// Plays a story against our server with our controllers.
pub(crate) async fn play_ours(story: &str) -> BTreeMap<String, Value> {
    let server = ApiServer::start(Options::default().seed(7)).unwrap();
    let grace = Duration::from_secs(Setting::of(story).node_grace);
    let options = ControllerOptions::default()
        .cluster_cidr("10.244.0.0/16".parse().unwrap())
        .root_ca("CA")
        .node_monitor_grace_period(grace)
        .node_startup_grace_period(grace);
    let controllers = start(server.clone(), options);
    let records = play(story, Server::Ours(server)).await;
    controllers.stop().await;
    records
}

/// Labels of the steps, with what differs.
pub(crate) fn compare(
    name: &str,
    story: &str,
    theirs: &[Value],
    ours: &BTreeMap<String, Value>,
) -> Vec<(String, Vec<String>)> {
    let mut comparison = Comparison::new(story);
    let unsettled = unsettled(ours).into_iter();
    let mut report: Vec<_> =
        unsettled.map(|step| (format!("{name}: {step}"), vec!["what is waited for did not come".into()])).collect();
    for record in theirs {
        let step = record["step"].as_str().unwrap();
        let differences = match ours.get(step) {
            Some(seen) => comparison.exchange(record, &reduced(seen)),
            None => vec!["was not played".into()],
        };
        report.push((format!("{name}: {step}"), differences));
    }
    report
}

/// What of a story's records is compared, and kept.
pub(crate) fn kept(records: &BTreeMap<String, Value>) -> Vec<Value> {
    let shown = records.iter().filter(|(_, record)| record["show"] == true || !record["order"].is_null());
    let with_step = |(step, record): (&String, &Value)| {
        let mut record = reduced(record);
        record["step"] = json!(step);
        record
    };
    shown.map(with_step).collect()
}

/// Steps that were refused or have waited for something in vain, with what was answered last: what is shown after them is
/// of another moment.
pub(crate) fn unsettled(records: &BTreeMap<String, Value>) -> Vec<String> {
    let vain = records.iter().filter(|(_, record)| record["settled"] == false);
    vain.map(|(step, record)| format!("{step} (last answer: {})", record["response"]["body"])).collect()
}

pub(crate) fn recorded(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A record without what two runs of the same controllers differ in: revisions, who wrote what when, and the order of what
/// has a generated name.
fn reduced(record: &Value) -> Value {
    let mut response = record["response"].clone();
    if let Some(paths) = record["order"].as_array() {
        let events = response["events"].as_array().cloned().unwrap_or_default();
        let mut seen: Vec<Value> = Vec::new();
        let mut last = BTreeMap::new();
        for event in events.iter().filter(|event| event["type"] != "BOOKMARK") {
            let state: Vec<&Value> =
                paths.iter().map(|path| event.pointer(path.as_str().unwrap()).unwrap_or(&Value::Null)).collect();
            // What one object goes on to be without a change that is asked about is as often as it happens to be written.
            let state = json!([event["type"] == "DELETED", state]);
            if last.insert(event["object"]["metadata"]["uid"].to_string(), state.clone()).as_ref() != Some(&state) {
                seen.push(state);
            }
        }
        return json!({"response": {"body": seen}});
    }
    let mut body = response["body"].take();
    if body["kind"] == "EventList" {
        body = said(&body);
    }
    strip(&mut body);
    if let Some(items) = body["items"].as_array_mut() {
        sort_masked(items);
    }
    json!({"response": {"code": response["code"], "body": body}})
}

/// What events say of whom, each once: how often and in which order it is said is as it happens.
fn said(list: &Value) -> Value {
    let mask = regex::Regex::new(MASKED).unwrap();
    let line = |event: &Value| {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let about = [text("/involvedObject/kind"), text("/involvedObject/name")].join(" ");
        let line =
            [about, text("/type"), text("/reason"), text("/reportingComponent"), text("/action"), text("/message")];
        mask.replace_all(&line.join(" | "), "*").into_owned()
    };
    let lines: BTreeSet<String> = list["items"].as_array().into_iter().flatten().map(line).collect();
    json!({"said": lines})
}

fn sort_masked(list: &mut [Value]) {
    let mask = regex::Regex::new(MASKED).unwrap();
    list.sort_by_cached_key(|item| mask.replace_all(&item.to_string(), "*").into_owned());
}

/// Uids, times, generated endings and addresses.
const MASKED: &str = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.]+Z|\b[bcdfghjklmnpqrstvwxz2456789]{8,10}\b|-[bcdfghjklmnpqrstvwxz2456789]{5}\b|10\.96\.\d+\.\d+";

fn strip(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Object(fields) => {
            let slice = fields.contains_key("endpoints");
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut).filter(|_| slice) {
                // Of slices it counts how many pods' changes came together in one write.
                metadata.remove("generation");
            }
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                forget(metadata);
            }
            if let Some(authority) = fields.get_mut("ca.crt") {
                *authority = json!("<authority>");
            }
            if let Some(claims) = fields.get("token").and_then(Value::as_str).and_then(claims) {
                fields.insert("token".into(), claims);
            }
            // Writes that change nothing else are how many they happen to be.
            fields.remove("lastUpdateTime");
            fields.values_mut().for_each(strip);
            // The real controllers order these by hashes of their own.
            for name in ["endpoints", "subsets"] {
                if let Some(list) = fields.get_mut(name).and_then(Value::as_array_mut) {
                    sort_masked(list);
                }
            }
            let with_ports =
                ["endpoints", "addresses", "notReadyAddresses"].iter().any(|name| fields.contains_key(*name));
            if let Some(ports) = fields.get_mut("ports").and_then(Value::as_array_mut).filter(|_| with_ports) {
                sort_masked(ports);
            }
        }
        // Kubelets give addresses in the order in which they find pods.
        Value::String(text) if text.starts_with("10.244.0.") && !text.contains('/') => *text = "<pod>".into(),
        _ => {}
    }
}

/// What a token in a Secret says.
fn claims(data: &str) -> Option<Value> {
    use base64::Engine;
    let token = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(data).ok()?).ok()?;
    (token.matches('.').count() == 2).then(|| described(&token))
}

fn forget(metadata: &mut Map<String, Value>) {
    for name in ["resourceVersion", "managedFields"] {
        metadata.remove(name);
    }
    let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations.remove("endpoints.kubernetes.io/last-change-trigger-time");
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}
