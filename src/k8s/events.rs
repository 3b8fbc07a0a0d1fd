//! Kubernetes Events: what happened to an object, for `kubectl describe`. They are told once: an Event's name follows from
//! what it says, so that the same said again, also by another process, becomes a count.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::events::EventType;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use super::clock::Clock;
use super::lease::REQUEST_TIMEOUT;

/// Events that wait to be sent. More than that are not told: they are for people, and must hold nothing up.
const QUEUE_MAX: usize = 1024;
/// Events whose count is remembered; the API server forgets them after an hour.
const COUNTS_MAX: usize = 4096;
/// Longest text, in bytes, that the API server takes.
const TEXT_MAX: usize = 1024;

/// Something to tell about an object.
#[derive(Clone, Debug)]
pub struct Note {
    /// The object.
    pub regarding: ObjectReference,
    /// Whether it is as it should be.
    pub type_: EventType,
    /// What happened, in one word.
    pub reason: &'static str,
    /// What happened, for people.
    pub text: String,
}

/// Takes notes and never waits.
#[derive(Clone)]
pub struct Notes(mpsc::Sender<Note>);

impl Notes {
    /// Sends Events until the last clone is gone. `controller` and `instance` name who tells.
    #[must_use]
    pub fn start(client: Client, controller: &'static str, instance: String, clock: Arc<dyn Clock>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(Publisher { client, controller, instance, clock, counts: BTreeMap::new() }.run(receiver));
        Self(sender)
    }

    /// Tells it, unless too much waits already.
    pub fn tell(&self, note: Note) {
        if let Err(error) = self.0.try_send(note) {
            tracing::debug!(%error, "an Event is left out");
        }
    }
}

struct Publisher {
    client: Client,
    controller: &'static str,
    instance: String,
    clock: Arc<dyn Clock>,
    /// How often each was told.
    counts: BTreeMap<String, i32>,
}

impl Publisher {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        while let Some(note) = notes.recv().await {
            match tokio::time::timeout(REQUEST_TIMEOUT, self.publish(&note)).await {
                Ok(Ok(())) => {}
                // The namespace or the right may be gone; the status says the same.
                Ok(Err(error)) => tracing::info!(reason = note.reason, %error, "an Event was not taken"),
                Err(_) => tracing::info!(reason = note.reason, "an Event was not answered in time"),
            }
        }
    }

    async fn publish(&mut self, note: &Note) -> kube::Result<()> {
        let namespace = note.regarding.namespace.as_deref().unwrap_or("default");
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let name = event_name(note);
        if self.counts.len() >= COUNTS_MAX {
            self.counts.clear();
        }
        let mut told = self.counts.get(&name).copied().unwrap_or(0);
        if told == 0 {
            match api.create(&PostParams::default(), &self.event(note, &name, namespace)).await {
                Err(kube::Error::Api(status)) if status.code == 409 => told = 1,
                created => {
                    created?;
                    self.counts.insert(name, 1);
                    return Ok(());
                }
            }
        }
        let series = json!({"series": {"count": told + 1, "lastObservedTime": MicroTime(self.clock.wall())}});
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(series)).await {
            // It has aged out; the next time it is a new one.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.counts.remove(&name);
                Ok(())
            }
            patched => {
                patched?;
                self.counts.insert(name, told + 1);
                Ok(())
            }
        }
    }

    fn event(&self, note: &Note, name: &str, namespace: &str) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(self.clock.wall())),
            action: Some("Allocate".to_owned()),
            reason: Some(note.reason.to_owned()),
            note: Some(bounded(&note.text).to_owned()),
            type_: Some(
                match note.type_ {
                    EventType::Normal => "Normal",
                    EventType::Warning => "Warning",
                }
                .to_owned(),
            ),
            regarding: Some(ObjectReference { resource_version: None, ..note.regarding.clone() }),
            reporting_controller: Some(self.controller.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

/// The object's name and a digest of what is said about it.
fn event_name(note: &Note) -> String {
    // Two releases may disagree about the digest; then the same is told twice.
    let mut digest = DefaultHasher::new();
    (&note.regarding.uid, note.reason, &note.text).hash(&mut digest);
    format!("{}.{:016x}", note.regarding.name.as_deref().unwrap_or("unnamed"), digest.finish())
}

fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
