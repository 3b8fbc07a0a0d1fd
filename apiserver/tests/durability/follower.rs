//! A watch that goes on after each restart from the last revision it saw, as informers do.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::watch;

use crate::process::client::Client;
use crate::writer::{Known, MAPS, known, list};

/// Longest time for the last events to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) kind: String,
    pub(crate) name: String,
    revision: u64,
    object: Value,
}

/// Follows all config maps in the background.
pub(crate) struct Follower {
    servers: watch::Sender<Client>,
    seen: watch::Receiver<Vec<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Follower {
    pub(crate) async fn start(client: Client) -> Self {
        let (from, _) = list(&client).await;
        let (servers, mut clients) = watch::channel(client);
        let (send, seen) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            let mut from = from;
            loop {
                let client = clients.borrow_and_update().clone();
                follow(&client, &mut from, &send).await;
                if clients.changed().await.is_err() {
                    return;
                }
            }
        });
        Self { servers, seen, task }
    }

    /// The server was started again.
    pub(crate) fn goes_on_with(&self, client: Client) {
        self.servers.send_replace(client);
    }

    /// Everything that was seen, when all up to `revision` has been.
    pub(crate) async fn until(self, revision: u64) -> Vec<Seen> {
        let Self { servers, mut seen, task } = self;
        let all = seen.wait_for(|seen| seen.last().is_some_and(|last| last.revision >= revision));
        let seen = match tokio::time::timeout(PATIENCE, all).await {
            Ok(Ok(seen)) => seen.clone(),
            // The watch refused to go on, and said why.
            Ok(Err(_)) => std::panic::resume_unwind(task.await.unwrap_err().into_panic()),
            Err(_) => panic!("no event up to revision {revision}"),
        };
        drop(servers);
        task.abort();
        seen
    }
}

/// One watch, until it breaks.
async fn follow(client: &Client, from: &mut u64, send: &watch::Sender<Vec<Seen>>) {
    let path = format!("{MAPS}?watch=1&resourceVersion={from}");
    let Ok(mut open) = client.open().await else { return };
    let Ok(answer) = open.send("GET", &path, None).await else { return };
    assert_eq!(answer.status(), 200);
    let (mut body, mut rest) = (answer.into_body(), Vec::new());
    while let Some(Ok(frame)) = body.frame().await {
        rest.extend_from_slice(frame.data_ref().map(|data| &data[..]).unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap();
            assert_ne!(event["type"], "ERROR", "from revision {from}: {event}");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let metadata = &event["object"]["metadata"];
            let revision: u64 = text(&metadata["resourceVersion"]).parse().unwrap();
            assert!(revision > *from, "{revision} after {from}");
            *from = revision;
            let seen = Seen {
                kind: text(&event["type"]),
                name: text(&metadata["name"]),
                revision,
                object: event["object"].clone(),
            };
            send.send_modify(|all| all.push(seen));
        }
    }
}

/// The events lead to what is there.
pub(crate) fn check_state(seen: &[Seen], objects: &BTreeMap<String, Known>) {
    let mut state = BTreeMap::new();
    for event in seen {
        match &*event.kind {
            "DELETED" => drop(state.remove(&event.name)),
            _ => drop(state.insert(event.name.clone(), known(&event.object))),
        }
    }
    let own = objects.iter().filter(|(name, _)| name.starts_with('w'));
    assert_eq!(state, own.map(|(name, known)| (name.clone(), known.clone())).collect());
}
