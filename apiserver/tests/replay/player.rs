//! Plays a script against a fresh server, without sockets.

#![allow(clippy::unwrap_used, reason = "test code: a broken script or recording ends the test")]

use std::collections::BTreeMap;
use std::time::Duration;

use apiserver::{ApiServer, Options};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Map, Value, json};

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

struct Player {
    server: ApiServer,
    variables: BTreeMap<String, String>,
    watches: BTreeMap<String, Watch>,
}

/// What an open watch has shown so far; the flag is set when the server has closed it.
struct Watch {
    head: Value,
    seen: tokio::sync::watch::Receiver<(Vec<Value>, bool)>,
}

/// Records by step label.
pub(crate) async fn play(script: &str) -> BTreeMap<String, Value> {
    let script: Value = serde_yaml::from_str(script).unwrap();
    let server = ApiServer::start(Options { seed: 7, ..Options::default() }).unwrap();
    let mut player = Player { server, variables: BTreeMap::new(), watches: BTreeMap::new() };
    let mut records = BTreeMap::new();
    for (number, step) in script["steps"].as_array().unwrap().iter().enumerate() {
        let title = ["note", "do", "collect"].iter().find_map(|name| step[*name].as_str()).unwrap_or_default();
        if let Some(record) = player.step(step).await {
            records.insert(format!("{:03} {title}", number + 1), record);
        }
    }
    records
}

impl Player {
    async fn step(&mut self, step: &Value) -> Option<Value> {
        if let Some(seconds) = step["sleep"].as_f64() {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            return None;
        }
        if let Some(revision) = step.get("compact") {
            let revision = self.fill(revision);
            self.server.compact(revision.as_str().unwrap_or_default().parse().unwrap_or(0));
            return None;
        }
        if let Some(name) = step["collect"].as_str() {
            return Some(self.collect(name, step).await);
        }
        let request = self.request(step);
        if let Some(name) = step["watch"].as_str() {
            let response = self.server.handle(request).await;
            self.watches.insert(name.to_owned(), Watch::follow(response));
            return None;
        }
        let response = self.server.handle(request).await;
        Some(self.answer(step, response).await)
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
        let line = self.fill(&step["do"]);
        let (method, target) = line.as_str().unwrap().split_once(' ').unwrap();
        let target = target.replace(' ', "%20").replace('"', "%22").replace('<', "%3C").replace('>', "%3E");
        let mut request = http::Request::builder().method(method).uri(target).header("User-Agent", "golden/1");
        request = request.header("Accept", accept(step["accept"].as_str().unwrap_or_default()));
        let body = match (step.get("body"), step["raw"].as_str()) {
            (Some(body), _) => Some(self.fill(body).to_string()),
            (None, Some(raw)) => Some(self.fill(&json!(raw)).as_str().unwrap().to_owned()),
            _ => None,
        };
        if body.is_some() || step.get("type").is_some() {
            request = request.header("Content-Type", media(step["type"].as_str().unwrap_or("json")));
        }
        request.body(Full::new(Bytes::from(body.unwrap_or_default()))).unwrap()
    }

    async fn answer(&mut self, step: &Value, response: http::Response<apiserver::server::Body>) -> Value {
        let mut record = head(&response);
        let bytes = match tokio::time::timeout(Duration::from_secs(8), response.into_body().collect()).await {
            Ok(body) => body.unwrap().to_bytes(),
            Err(_) => {
                record["end"] = json!("stream stays open");
                Bytes::new()
            }
        };
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        for (name, path) in step["save"].as_object().into_iter().flatten() {
            let pointer = path.as_str().unwrap().replace('.', "/");
            let found = body.pointer(&pointer).cloned().unwrap_or_default();
            let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
            self.variables.insert(name.clone(), text);
        }
        if body.is_null() {
            let lines: Result<Vec<Value>, _> =
                bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(serde_json::from_slice).collect();
            match lines {
                Ok(events) if !events.is_empty() => record["events"] = json!(events),
                _ => record["text"] = json!(String::from_utf8_lossy(&bytes)),
            }
        } else {
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
    fn follow(response: http::Response<apiserver::server::Body>) -> Self {
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
