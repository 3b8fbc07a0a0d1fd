//! What counts as equal: everything, but for what a server may choose.
//!
//! A uid, generated name, hash of a template, allocated address or port stands for one of ours through the whole script; revisions keep
//! their order and equalities; times keep their precision; ages are by form. What the script spells out is exact.

#![allow(clippy::unwrap_used, reason = "test code: a broken script or recording ends the test")]

use std::collections::{BTreeMap, BTreeSet};

use regex::{Captures, Regex};
use serde_json::{Map, Value, json};

const VOLATILE: &str = r#"(?P<uid>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})|(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)|(?P<ip>10\.96\.\d{1,3}\.\d{1,3})|(?P<port>\b3[0-2]\d{3}\b)|(?P<gen>\b[a-z0-9.-]*-[bcdfghjklmnpqrstvwxz2456789]{5}\b)|(?P<hash>\b[bcdfghjklmnpqrstvwxz2456789]{8,10}\b)|(?P<rv>[Vv]ersion: "?\d+(?: \(\d+\))?|current: \d+|record \(\d+\)|recondition \(\d+|resourceVersion\\":\\"\d+|hash=[0-9A-F]+)"#;
const CLAIM_TIMES: [&str; 4] = ["exp", "iat", "nbf", "warnafter"];
const SORTS: [&str; 7] = ["uid", "time", "ip", "port", "gen", "hash", "rv"];

/// What is known so far about which of our values stands for which recorded one.
pub(crate) struct Comparison {
    script: String,
    volatile: Regex,
    age: Regex,
    bound: BTreeMap<(&'static str, String), String>,
    back: BTreeMap<(&'static str, String), String>,
    revisions: BTreeMap<u64, u64>,
    problems: Vec<String>,
}

impl Comparison {
    pub(crate) fn new(script: &str) -> Self {
        Self {
            script: script.to_owned(),
            volatile: Regex::new(VOLATILE).unwrap(),
            age: Regex::new(r"^(\d+[smhdy])+$").unwrap(),
            bound: BTreeMap::new(),
            back: BTreeMap::new(),
            revisions: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Differences between a recorded and an observed exchange.
    pub(crate) fn exchange(&mut self, golden: &Value, seen: &Value) -> Vec<String> {
        self.problems.clear();
        let (g, s) = (&golden["response"], &seen["response"]);
        if golden["shape"] == true {
            self.walk(&shape(g), &shape(s), "shape", false);
            return std::mem::take(&mut self.problems);
        }
        for name in ["code", "end", "headers", "text", "jwt", "body"] {
            self.walk(&g[name], &s[name], name, false);
        }
        let plain = golden["bookmarks"] == true;
        self.walk(&events(g, plain), &events(s, plain), "events", false);
        std::mem::take(&mut self.problems)
    }

    fn differ(&mut self, path: &str, golden: &Value, seen: &Value) {
        self.problems.push(format!("{path}: recorded {golden}, observed {seen}"));
    }

    fn walk(&mut self, g: &Value, s: &Value, path: &str, listish: bool) {
        match (g, s) {
            (Value::Object(g), Value::Object(s)) => self.maps(g, s, path, listish),
            (Value::Array(a), Value::Array(b)) => {
                if a.len() != b.len() {
                    self.differ(path, &json!(a.len()), &json!(b.len()));
                }
                for (index, (a, b)) in a.iter().zip(b).enumerate() {
                    self.walk(a, b, &format!("{path}[{index}]"), listish);
                }
            }
            (Value::String(a), Value::String(b)) if self.texts(a, b) => {}
            (Value::Number(a), Value::Number(b)) if self.ports(a.as_u64(), b.as_u64()) => {}
            _ if g == s => {}
            _ => self.differ(path, g, s),
        }
    }

    fn ports(&mut self, a: Option<u64>, b: Option<u64>) -> bool {
        let range = 30000..=32767;
        match (a, b) {
            (Some(a), Some(b)) if range.contains(&a) && range.contains(&b) => {
                self.same("port", &a.to_string(), &b.to_string())
            }
            _ => a == b && a.is_some(),
        }
    }

    fn maps(&mut self, g: &Map<String, Value>, s: &Map<String, Value>, path: &str, listish: bool) {
        let kind = g.get("kind").and_then(Value::as_str).unwrap_or_default();
        let bookmark = g.get("type").is_some_and(|kind| kind == "BOOKMARK");
        let collection = kind.ends_with("List") || kind == "Table" || (listish && path.ends_with(".object"));
        let (g, s) = match kind {
            "Table" => (self.without_ages(g), self.without_ages(s)),
            "Status" => (sorted_causes(g), sorted_causes(s)),
            _ => (g.clone(), s.clone()),
        };
        let names: BTreeSet<&String> = g.keys().chain(s.keys()).collect();
        for name in names {
            let below = format!("{path}.{name}");
            match (g.get(name), s.get(name)) {
                (Some(Value::Object(a)), Some(Value::Object(b))) if name == "metadata" => {
                    self.metadata(a, b, &below, collection);
                }
                // When a token was made and how long it is good is told by other fields.
                (Some(_), Some(_)) if path.starts_with("jwt.") && CLAIM_TIMES.contains(&name.as_str()) => {}
                (Some(a), Some(b)) => self.walk(a, b, &below, listish || (bookmark && name == "object")),
                (Some(a), None) => self.differ(&below, a, &json!("(absent)")),
                (None, Some(b)) => self.differ(&below, &json!("(absent)"), b),
                (None, None) => {}
            }
        }
    }

    fn metadata(&mut self, g: &Map<String, Value>, s: &Map<String, Value>, path: &str, listish: bool) {
        let (mut g, mut s) = (g.clone(), s.clone());
        if let (Some(a), Some(b)) = (g.get("resourceVersion").cloned(), s.get("resourceVersion").cloned()) {
            g.remove("resourceVersion");
            s.remove("resourceVersion");
            if !self.revision(&a, &b, listish) {
                self.differ(&format!("{path}.resourceVersion (order)"), &a, &b);
            }
        }
        for map in [&mut g, &mut s] {
            if map.get("continue").is_some_and(|token| token != "") {
                map.insert("continue".into(), json!("<token>"));
            }
            if let Some(list) = map.get("managedFields").and_then(Value::as_array) {
                let mut list = list.clone();
                list.sort_by_key(|entry| {
                    ["manager", "operation", "subresource", "apiVersion"].map(|name| entry[name].to_string())
                });
                map.insert("managedFields".into(), json!(list));
            }
        }
        self.walk(&Value::Object(g), &Value::Object(s), path, false);
    }

    /// A list may be newer than what is in it, but not older than a write that was seen, nor newer than a later one.
    fn revision(&mut self, g: &Value, s: &Value, listish: bool) -> bool {
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
        let (Some(g), Some(s)) = (number(g), number(s)) else { return g == s };
        if listish {
            return self.revisions.iter().all(|(a, b)| (*a <= g) == (*b <= s));
        }
        match self.revisions.get(&g) {
            Some(known) => *known == s,
            None if self.revisions.iter().any(|(a, b)| (*a < g) != (*b < s) || *b == s) => false,
            None => {
                self.revisions.insert(g, s);
                true
            }
        }
    }

    fn same(&mut self, sort: &'static str, g: &str, s: &str) -> bool {
        if self.script.contains(g) {
            return g == s;
        }
        let forth = self.bound.entry((sort, g.to_owned())).or_insert_with(|| s.to_owned()) == s;
        forth && self.back.entry((sort, s.to_owned())).or_insert_with(|| g.to_owned()) == g
    }

    fn texts(&mut self, g: &str, s: &str) -> bool {
        if self.volatile.replace_all(g, "\0") != self.volatile.replace_all(s, "\0") {
            return false;
        }
        let parts = |text: &str| -> Vec<(&'static str, String)> {
            let sort = |found: &Captures<'_>| SORTS.into_iter().find(|sort| found.name(sort).is_some()).unwrap();
            self.volatile.captures_iter(text).map(|found| (sort(&found), found[0].to_owned())).collect()
        };
        let (a, b) = (parts(g), parts(s));
        a.len() == b.len()
            && a.iter().zip(&b).all(|((sort, x), (other, y))| match *sort {
                _ if sort != other => false,
                "rv" => true,
                "time" if self.script.contains(x) => x == y,
                "time" => x.len() == y.len(),
                "gen" if x == y => true,
                sort => self.same(sort, x, y),
            })
    }

    fn without_ages(&self, table: &Map<String, Value>) -> Map<String, Value> {
        let mut table = Value::Object(table.clone());
        for row in table.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
            for cell in row["cells"].as_array_mut().into_iter().flatten() {
                if cell.as_str().is_some_and(|text| self.age.is_match(text)) {
                    *cell = json!("<age>");
                }
            }
        }
        table.as_object().cloned().unwrap_or_default()
    }
}

/// The causes of apply conflicts and of a custom resource's errors come in any order, in the message too.
fn sorted_causes(status: &Map<String, Value>) -> Map<String, Value> {
    let mut status = Value::Object(status.clone());
    let group = status["details"]["group"].as_str().unwrap_or_default();
    let custom = status["code"] == 422 && group.contains('.') && !group.ends_with(".k8s.io");
    if !custom && status["details"]["causes"][0]["reason"] != "FieldManagerConflict" {
        return status.as_object().cloned().unwrap_or_default();
    }
    if let Some(causes) = status["details"]["causes"].as_array_mut() {
        causes.sort_by_key(Value::to_string);
    }
    let message = status["message"].as_str().unwrap_or_default();
    if let (true, Some((head, rest))) = (custom, message.split_once(" is invalid: [")) {
        let mut parts: Vec<&str> = rest.trim_end_matches(']').split(", ").collect();
        parts.sort_unstable();
        status["message"] = json!(format!("{head} is invalid: [{}", parts.join(", ")));
    }
    status.as_object().cloned().unwrap_or_default()
}

/// Keys and types only, for answers whose values are the server's own.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) if text.starts_with("application/") => value.clone(),
        Value::String(_) => json!("a string"),
        Value::Array(_) => json!("a list"),
        Value::Null => json!("null"),
    }
}

/// Plain bookmarks are the server's choice, unless the step is about them; several in a row are one.
fn events(response: &Value, keep: bool) -> Value {
    let mut out: Vec<Value> = Vec::new();
    for event in response["events"].as_array().into_iter().flatten() {
        let mark = event["type"] == "BOOKMARK";
        let plain = mark && event["object"]["metadata"]["annotations"].is_null() && event["object"]["kind"] != "Table";
        if plain && !keep {
            continue;
        }
        if plain && out.last().is_some_and(|last| last["type"] == "BOOKMARK") {
            out.pop();
        }
        out.push(event.clone());
    }
    json!(out)
}
