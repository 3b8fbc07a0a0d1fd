//! Plays a script against a server, ours or a real one.

#![allow(clippy::unwrap_used, reason = "test code: a broken script or recording ends the test")]

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use apiserver::{Body, Credentials};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use super::server::Server;

const KEPT: [&str; 4] = ["Content-Type", "Warning", "Retry-After", "Vary"];

fn media(word: &str) -> &str {
    match word {
        "json" => "application/json",
        "yaml" => "application/yaml",
        "patch" => "application/json-patch+json",
        "merge" => "application/merge-patch+json",
        "smp" => "application/strategic-merge-patch+json",
        "apply" => "application/apply-patch+yaml",
        other => other,
    }
}

fn accept(word: &str) -> &str {
    match word {
        "" => "application/json",
        "table" => "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        "table-only" => "application/json;as=Table;v=v1;g=meta.k8s.io",
        "partial" => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        "partial-list" => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        "discovery" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
        "yaml" => "application/yaml",
        other => other,
    }
}

/// How long a step is asked again that has `until`, if it does not say it by `within`.
const UNTIL_MAX: Duration = Duration::from_secs(10);

struct Player {
    server: Server,
    variables: BTreeMap<String, String>,
    watches: BTreeMap<String, Watch>,
}

/// What an open watch has shown so far; the flag is set when the server has closed it.
struct Watch {
    head: Value,
    seen: tokio::sync::watch::Receiver<(Vec<Value>, bool)>,
}

/// Records by step label; the server has seen no other script.
pub(crate) async fn play(script: &str, server: Server) -> BTreeMap<String, Value> {
    let ordered: serde_yaml::Value = serde_yaml::from_str(script).unwrap();
    let script: Value = serde_yaml::from_str(script).unwrap();
    let mut player = Player { server, variables: BTreeMap::new(), watches: BTreeMap::new() };
    let mut records = BTreeMap::new();
    for (number, step) in script["steps"].as_array().unwrap().iter().enumerate() {
        let mut step = step.clone();
        if let Some(body) = ordered["steps"][number].get("body") {
            step["raw"] = json!(spelled(body));
        }
        let step = &step;
        let title = ["note", "show", "do", "collect"].iter().find_map(|name| step[*name].as_str()).unwrap_or_default();
        if let Some(mut record) = player.step(step).await {
            record["show"] = json!(step["show"].is_string());
            record["order"] = step["order"].clone();
            if step["shape"] == true {
                record["shape"] = json!(true);
            }
            records.insert(format!("{:03} {title}", number + 1), record);
        }
    }
    records
}

/// A body as text, in the order of the script: what is wrong with one is told in that order.
fn spelled(value: &serde_yaml::Value) -> String {
    match value {
        serde_yaml::Value::Mapping(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{}: {}", spelled(key), spelled(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        serde_yaml::Value::Sequence(list) => {
            format!("[{}]", list.iter().map(spelled).collect::<Vec<_>>().join(", "))
        }
        other => serde_json::to_string(other).unwrap(),
    }
}

impl Player {
    async fn step(&mut self, step: &Value) -> Option<Value> {
        if let Some(seconds) = step["sleep"].as_f64() {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            return None;
        }
        if let Some(revision) = step.get("compact") {
            let revision = self.fill(revision);
            self.server.compact(revision.as_str().unwrap_or_default().parse().unwrap_or(0)).await;
            return None;
        }
        if let Some(name) = step["collect"].as_str() {
            return Some(self.collect(name, step).await);
        }
        if let Some(name) = step["watch"].as_str() {
            let response = self.server.handle(self.request(step)).await;
            self.watches.insert(name.to_owned(), Watch::follow(response));
            return None;
        }
        let until = &step["until"];
        let within = step["within"].as_u64().map_or(UNTIL_MAX, Duration::from_secs);
        let deadline = tokio::time::Instant::now() + within;
        loop {
            if !step["kubelet"].is_null() {
                self.tend_pods(step["kubelet"].as_str()).await;
            }
            let response = self.server.handle(self.request(step)).await;
            let mut record = self.answer(step, response).await;
            let settled = settled(until, &record["response"]);
            if settled || tokio::time::Instant::now() > deadline {
                // What is not waited for is to be done.
                let done =
                    !until.is_null() || step["show"].is_string() || record["response"]["code"].as_u64() < Some(400);
                record["settled"] = json!(settled && done);
                return Some(record);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let mut text = text.clone();
                // Longest names first, so that `$rv` does not eat `$rvb`.
                let mut names: Vec<&String> = self.variables.keys().collect();
                names.sort_by_key(|name| std::cmp::Reverse(name.len()));
                for name in names {
                    text = text.replace(&format!("${{{name}}}"), &self.variables[name]);
                    text = text.replace(&format!("${name}"), &self.variables[name]);
                }
                Value::String(text)
            }
            Value::Array(list) => list.iter().map(|value| self.fill(value)).collect(),
            Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), self.fill(value))).collect(),
            other => other.clone(),
        }
    }

    fn request(&self, step: &Value) -> http::Request<Full<Bytes>> {
        let shown = step["show"].as_str().map(|path| json!(format!("GET {path}")));
        let line = self.fill(shown.as_ref().unwrap_or(&step["do"]));
        let (method, target) = line.as_str().unwrap().split_once(' ').unwrap();
        let target = target.replace(' ', "%20").replace('"', "%22").replace('<', "%3C").replace('>', "%3E");
        let mut request = http::Request::builder().method(method).uri(target).header("User-Agent", "golden/1");
        request = request.header("Accept", accept(step["accept"].as_str().unwrap_or_default()));
        let token = match step["as"].as_str() {
            Some(token) => self.fill(&json!(token)).as_str().unwrap().to_owned(),
            None => self.server.administrator().to_owned(),
        };
        if !token.is_empty() {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if step["as"].is_string() {
            // A request in process is the administrator's; one that came from elsewhere says who it is.
            request = request.extension(Credentials::default());
        }
        let body = step["raw"].as_str().map(|raw| self.fill(&json!(raw)).as_str().unwrap().to_owned());
        if body.is_some() || step.get("type").is_some() {
            request = request.header("Content-Type", media(step["type"].as_str().unwrap_or("json")));
        }
        request.body(Full::new(Bytes::from(body.unwrap_or_default()))).unwrap()
    }

    /// What kubelets do: pods that are bound run, and are ready unless their name begins with `slow` or their image is
    /// `never`; pods that are to end have ended, unless their name begins with `stubborn`. If told to, those that run
    /// `succeed` or `fail`.
    async fn tend_pods(&mut self, end: Option<&str>) {
        let list = self.request(&json!({"do": "GET /api/v1/pods"}));
        let response = self.server.handle(list).await;
        let pods = self.answer(&json!({}), response).await["response"]["body"]["items"].clone();
        for (number, pod) in pods.as_array().into_iter().flatten().enumerate() {
            let metadata = &pod["metadata"];
            let name = metadata["name"].as_str().unwrap_or_default();
            let path = format!("/api/v1/namespaces/{}/pods/{name}", metadata["namespace"].as_str().unwrap_or_default());
            let ending = metadata["deletionTimestamp"].is_string();
            let step = if ending && !name.starts_with("stubborn") {
                json!({"do": format!("DELETE {path}"), "raw": r#"{"gracePeriodSeconds": 0}"#})
            } else if !ending && pod["spec"]["nodeName"].is_string() && pod["status"]["phase"] == "Pending" {
                let address = format!("10.244.0.{}", number + 2);
                let since = "2026-01-01T00:00:00Z";
                let never = name.starts_with("slow") || pod["spec"]["containers"][0]["image"] == "never";
                let ready = if never { "False" } else { "True" };
                let condition =
                    |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": since});
                let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                    "conditions": [condition("PodScheduled", "True"), condition("Ready", ready)]});
                json!({"do": format!("PATCH {path}/status"), "type": "merge", "raw": json!({"status": status}).to_string()})
            } else if let Some(end) = end.filter(|_| !ending && pod["status"]["phase"] == "Running") {
                let phase = if end == "fail" { "Failed" } else { "Succeeded" };
                let status = json!({"phase": phase, "conditions": [{"type": "Ready", "status": "False",
                    "reason": "PodCompleted", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
                json!({"do": format!("PATCH {path}/status"), "type": "smp", "raw": json!({"status": status}).to_string()})
            } else {
                continue;
            };
            let response = self.server.handle(self.request(&step)).await;
            // It may have gone in the meantime.
            self.answer(&step, response).await;
        }
    }

    async fn answer(&mut self, step: &Value, response: http::Response<Body>) -> Value {
        let mut record = head(&response);
        let (mut body, mut bytes) = (response.into_body(), Vec::new());
        let whole = async {
            while let Some(frame) = body.frame().await {
                bytes.extend_from_slice(frame.unwrap().data_ref().map(|data| &data[..]).unwrap_or_default());
            }
        };
        if tokio::time::timeout(Duration::from_secs(8), whole).await.is_err() {
            record["end"] = json!("stream stays open");
        }
        let mut body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        for (name, path) in step["save"].as_object().into_iter().flatten() {
            let found = at(&body, path.as_str().unwrap()).first().map(|found| (*found).clone()).unwrap_or_default();
            let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
            self.variables.insert(name.clone(), text);
        }
        for rule in step["filter"].as_array().into_iter().flatten() {
            keep_only(&mut body, rule);
        }
        if body.is_null() {
            let lines: Result<Vec<Value>, _> =
                bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(serde_json::from_slice).collect();
            match lines {
                Ok(events) if !events.is_empty() => record["events"] = json!(events),
                _ => record["text"] = json!(String::from_utf8_lossy(&bytes)),
            }
        } else {
            if let Some(token) = body["status"]["token"].as_str().filter(|token| token.matches('.').count() == 2) {
                record["jwt"] = described(token);
                body["status"]["token"] = json!("<jwt>");
            }
            record["body"] = body;
        }
        json!({"response": record})
    }

    async fn collect(&mut self, name: &str, step: &Value) -> Value {
        let Watch { head: mut record, mut seen } = self.watches.remove(name).unwrap();
        let until = &step["until"];
        let limit = Duration::from_secs_f64(step["timeout"].as_f64().unwrap_or(5.0));
        let hit = |events: &[Value]| !until.is_null() && events.iter().any(|event| is(event, until));
        let waited = tokio::time::timeout(limit, seen.wait_for(|(events, closed)| *closed || hit(events))).await;
        let end = match &waited {
            Err(_) => "timeout",
            Ok(Ok(state)) if !state.1 || hit(&state.0) => "sentinel",
            Ok(_) => "closed",
        };
        record["end"] = json!(end);
        drop(waited);
        record["events"] = json!(seen.borrow().0);
        json!({"response": record, "bookmarks": step["bookmarks"]})
    }
}

impl Watch {
    fn follow(response: http::Response<Body>) -> Self {
        let head = head(&response);
        let (sender, seen) = tokio::sync::watch::channel((Vec::new(), false));
        tokio::spawn(async move {
            let mut body = response.into_body();
            let mut rest = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                rest.extend_from_slice(frame.data_ref().map(|data| &data[..]).unwrap_or_default());
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let event: Value = serde_json::from_slice(&line).unwrap();
                    sender.send_modify(|state| state.0.push(event));
                }
                if sender.is_closed() {
                    return;
                }
            }
            sender.send_modify(|state| state.1 = true);
        });
        Self { head, seen }
    }
}

fn is(event: &Value, until: &Value) -> bool {
    let object = match event["object"]["kind"].as_str() {
        Some("Table") => &event["object"]["rows"][0]["object"],
        _ => &event["object"],
    };
    (until["type"].is_null() || until["type"] == event["type"])
        && (until["name"].is_null() || until["name"] == object["metadata"]["name"])
}

/// Names of a token's header fields, and its claims.
pub(crate) fn described(token: &str) -> Value {
    use base64::Engine;
    let part = |index: usize| -> Value {
        let text = token.split('.').nth(index).unwrap_or_default();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    };
    let names: Vec<Value> = part(0).as_object().into_iter().flatten().map(|(name, _)| json!(name)).collect();
    json!({"header": names, "claims": part(1)})
}

/// Whether an answer is the one that `until` waits for.
fn settled(until: &Value, response: &Value) -> bool {
    until.as_object().into_iter().flatten().all(|(path, want)| match path.as_str() {
        "code" => response["code"] == *want,
        path => at(&response["body"], path).contains(&want),
    })
}

/// A step of a path.
static STEP: LazyLock<regex::Regex> = LazyLock::new(|| {
    regex::Regex::new(r#"\.([A-Za-z0-9_-]+)|\["([^"]+)"\]|\[(\*)\]|\[(\d+)\]|\[([\w-]+)=([^\]]*)\]"#).unwrap()
});

/// Values at `.a.b[0]`, `.a[*].b`, `.a[key=v].b`, `.a["dotted.key"]`.
fn at<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut hits = vec![value];
    for found in STEP.captures_iter(path) {
        let group = |number: usize| found.get(number).map(|text| text.as_str());
        hits = match (group(1).or(group(2)), group(4), group(5).zip(group(6))) {
            (Some(name), ..) => hits.into_iter().filter_map(|hit| hit.get(name)).collect(),
            (_, Some(index), _) => {
                hits.into_iter().filter_map(|hit| hit.get(index.parse::<usize>().unwrap())).collect()
            }
            (.., Some((key, want))) => {
                hits.into_iter().filter_map(Value::as_array).flatten().filter(|item| item[key] == want).collect()
            }
            _ => hits.into_iter().filter_map(Value::as_array).flatten().collect(),
        };
    }
    hits
}

/// Drops entries of a list that the step does not ask about: `{"list": ".groups", "key": ".name", "keep": […]}`.
fn keep_only(body: &mut Value, rule: &Value) {
    let keep: Vec<Value> = rule["keep"].as_array().cloned().unwrap_or_default();
    let key = rule["key"].as_str().unwrap();
    let names: Vec<&str> = rule["list"].as_str().unwrap().split('.').filter(|name| !name.is_empty()).collect();
    visit(body, &names, &mut |list| {
        list.retain(|item| at(item, key).first().is_some_and(|found| keep.contains(found)));
    });
}

/// Calls `change` for each list at a path of names, which may end in `[*]` or `[key=value]`.
fn visit(value: &mut Value, names: &[&str], change: &mut impl FnMut(&mut Vec<Value>)) {
    match (names.split_first(), value) {
        (None, Value::Array(list)) => change(list),
        (Some((name, rest)), value) => {
            let (name, choice) = name.split_once('[').unwrap_or((name, ""));
            let each = choice == "*]";
            let (key, want) = choice.trim_end_matches(']').split_once('=').unwrap_or_default();
            match value.get_mut(name) {
                Some(Value::Array(list)) if each => list.iter_mut().for_each(|item| visit(item, rest, change)),
                Some(Value::Array(list)) if !key.is_empty() => {
                    list.iter_mut().filter(|item| item[key] == want).for_each(|item| visit(item, rest, change));
                }
                Some(below) => visit(below, rest, change),
                None => {}
            }
        }
        _ => {}
    }
}

/// Code and the headers that are compared.
fn head<B>(response: &http::Response<B>) -> Value {
    let mut headers = Map::new();
    for name in KEPT {
        let all: Vec<Value> =
            response.headers().get_all(name).iter().map(|value| json!(value.to_str().unwrap())).collect();
        match (name, all.len()) {
            (_, 0) => {}
            ("Warning", _) => drop(headers.insert(name.into(), json!(all))),
            _ => drop(headers.insert(name.into(), all[0].clone())),
        }
    }
    json!({"code": response.status().as_u16(), "headers": headers})
}
