//! Writes config maps of its own, and knows what each of them must be.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::follower::Seen;
use crate::process::client::{Client, Open};

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Objects of one writer: few, so that each is made, changed and deleted many times.
const NAMES: usize = 8;

/// What is known of an object that is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    uid: String,
    revision: u64,
    data: String,
}

impl Known {
    fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let metadata = &object["metadata"];
        let revision = text(&metadata["resourceVersion"]).parse().unwrap();
        Self { uid: text(&metadata["uid"]), revision, data: brief(object["data"]["k"].as_str().unwrap()) }
    }
}

/// Number and length of a text that is written: what a message can show.
fn brief(data: &str) -> String {
    let (number, filling) = data.split_once(':').unwrap();
    assert!(filling.bytes().all(|byte| byte == b'x'), "{data}");
    format!("{number}:{}", filling.len())
}

#[derive(Clone, Debug, PartialEq)]
enum Act {
    Create(String),
    Patch(String),
    Delete,
}

/// One of several that write at once.
pub(crate) struct Writer {
    index: usize,
    chance: fastrand::Rng,
    count: u64,
    known: BTreeMap<String, Known>,
    /// What was asked for and not answered.
    unsure: Option<(String, Act)>,
    /// The events that there must be for each name, in order.
    events: BTreeMap<String, Vec<&'static str>>,
    newest: u64,
}

/// The revision of all config maps, and they.
pub(crate) async fn list(client: &Client) -> (u64, BTreeMap<String, Known>) {
    let (code, list) = client.ask("GET", MAPS, None).await.unwrap();
    assert_eq!(code, 200, "{list}");
    let items = list["items"].as_array().unwrap().iter();
    let objects = items.map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), Known::of(object)));
    (list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap(), objects.collect())
}

impl Writer {
    pub(crate) fn new(index: usize, seed: u64) -> Self {
        Self {
            index,
            chance: fastrand::Rng::with_seed(seed),
            count: 0,
            known: BTreeMap::new(),
            unsure: None,
            events: BTreeMap::new(),
            newest: 0,
        }
    }

    /// The newest revision that was acknowledged to this writer.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Writes until the server does not answer any more.
    pub(crate) async fn work(&mut self, client: &Client, count: &watch::Sender<usize>) {
        let Ok(mut open) = client.open().await else { return };
        loop {
            let name = format!("w{}-{}", self.index, self.chance.usize(..NAMES));
            self.count += 1;
            // Sizes differ, so that records end anywhere.
            let data = format!("{}:{}", self.count, "x".repeat(self.chance.usize(..3000)));
            let act = match self.known.contains_key(&name) {
                false => Act::Create(data),
                true if self.chance.usize(..4) == 0 => Act::Delete,
                true => Act::Patch(data),
            };
            self.unsure = Some((name.clone(), act.clone()));
            let Ok((code, answer)) = ask(&mut open, &name, &act).await else { return };
            assert!(code == 200 || code == 201, "{name}: {code} {answer}");
            self.unsure = None;
            let now = (act != Act::Delete).then(|| Known::of(&answer));
            self.note(&name, &act, now);
            count.send_modify(|count| *count += 1);
        }
    }

    fn note(&mut self, name: &str, act: &Act, now: Option<Known>) {
        let kind = match act {
            Act::Create(_) => "ADDED",
            Act::Patch(_) => "MODIFIED",
            Act::Delete => "DELETED",
        };
        self.events.entry(name.to_owned()).or_default().push(kind);
        match now {
            Some(now) => {
                self.newest = self.newest.max(now.revision);
                self.known.insert(name.to_owned(), now);
            }
            None => drop(self.known.remove(name)),
        }
    }

    /// After a restart everything is as it was acknowledged; what was not happened whole or not at all.
    pub(crate) fn check(&mut self, objects: &BTreeMap<String, Known>, round: usize) {
        if let Some((name, act)) = self.unsure.take() {
            let (before, now) = (self.known.get(&name).cloned(), objects.get(&name).cloned());
            if now != before {
                match (&act, &before, &now) {
                    (Act::Create(data), None, Some(now)) => assert_eq!(now.data, brief(data), "round {round}: {name}"),
                    (Act::Patch(data), Some(before), Some(now)) => {
                        assert_eq!((&now.data, &now.uid), (&brief(data), &before.uid), "round {round}: {name}");
                        assert!(now.revision > before.revision, "round {round}: {name}");
                    }
                    (Act::Delete, Some(_), None) => {}
                    _ => panic!("round {round}: {name} was {before:?}, is {now:?} after {act:?}"),
                }
                self.note(&name, &act, now);
            }
        }
        let prefix = format!("w{}-", self.index);
        let own = objects.iter().filter(|(name, _)| name.starts_with(&prefix));
        let own: BTreeMap<String, Known> = own.map(|(name, known)| (name.clone(), known.clone())).collect();
        assert_eq!(own, self.known, "round {round}: what was acknowledged to writer {}", self.index);
    }

    /// Whoever followed saw each write once and in order; how many that were.
    pub(crate) fn check_events(&self, seen: &[Seen]) -> usize {
        for (name, wanted) in &self.events {
            let found: Vec<&str> = seen.iter().filter(|seen| seen.name == *name).map(|seen| &*seen.kind).collect();
            assert_eq!(&found, wanted, "events of {name}");
        }
        self.events.values().map(Vec::len).sum()
    }
}

async fn ask(open: &mut Open, name: &str, act: &Act) -> Result<(u16, Value), crate::process::client::Error> {
    let path = format!("{MAPS}/{name}");
    match act {
        Act::Create(data) => {
            let map = json!({"metadata": {"name": name}, "data": {"k": data}});
            open.ask("POST", MAPS, Some(&map)).await
        }
        Act::Patch(data) => open.ask("PATCH", &path, Some(&json!({"data": {"k": data}}))).await,
        Act::Delete => open.ask("DELETE", &path, None).await,
    }
}

pub(crate) fn known(object: &Value) -> Known {
    Known::of(object)
}
