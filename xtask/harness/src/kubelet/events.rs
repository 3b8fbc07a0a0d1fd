//! Events of pods. They never hold up what they tell of: where the API server does not keep up, they are left out. They are
//! core/v1 events, as a real kubelet writes them; nodes are allowed no others.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events under way.
const QUEUE: usize = 256;
/// How long an event is counted up instead of written anew.
const SERIES: Duration = Duration::from_secs(600);
/// Longest message of an event (the API takes 1024 bytes).
const MESSAGE_MAX: usize = 1000;

/// Where events are told.
#[derive(Clone)]
pub(crate) struct Events(mpsc::Sender<Event>);

/// What is told of a pod.
pub(super) struct Told<'a> {
    pub(super) warning: bool,
    pub(super) reason: &'a str,
    /// What was being done; events of the same reason and action become one with a count.
    pub(super) action: &'a str,
    pub(super) note: String,
    /// Container that it is about: `containers{NAME}` or `initContainers{NAME}`.
    pub(super) field: Option<String>,
}

/// What has been written: its name, how often it has been told, and when last.
struct Series {
    name: String,
    count: i32,
    last: Instant,
}

/// Pod, container, reason and action.
type Key = [String; 4];

impl Events {
    /// A queue, and the task that empties it.
    pub(super) fn start(client: Client, node: &str) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Event>(QUEUE);
        let node = node.to_owned();
        tokio::spawn(async move {
            let mut written: HashMap<Key, Series> = HashMap::new();
            while let Some(event) = receiver.recv().await {
                written.retain(|_, series| series.last.elapsed() < SERIES);
                let (reason, pod) = (event.reason.clone(), event.involved_object.name.clone());
                if let Err(error) = write(&client, &node, &mut written, event).await {
                    eprintln!("event {reason:?} of pod {pod:?}: {error}");
                }
            }
        });
        Self(sender)
    }

    /// Tells of a pod.
    pub(super) fn tell(&self, pod: &Pod, told: Told<'_>) {
        let mut about = pod.object_ref(&());
        about.field_path = told.field.map(|field| format!("spec.{field}"));
        let event = Event {
            type_: Some(if told.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(told.reason.to_owned()),
            action: Some(told.action.to_owned()),
            message: Some(shortened(told.note)),
            involved_object: about,
            ..Event::default()
        };
        if self.0.try_send(event).is_err() {
            eprintln!("event {} of pod {:?} left out: too many at once", told.reason, pod.metadata.name);
        }
    }
}

fn shortened(mut note: String) -> String {
    note.truncate(note.floor_char_boundary(MESSAGE_MAX));
    note
}

/// Counts the event up if it has been told before and is still there, or else writes it.
async fn write(client: &Client, node: &str, written: &mut HashMap<Key, Series>, event: Event) -> kube::Result<()> {
    let about = &event.involved_object;
    let namespace = about.namespace.clone().unwrap_or_default();
    let api = Api::<Event>::namespaced(client.clone(), &namespace);
    let key = key(&event);
    if let Some(series) = written.get_mut(&key) {
        series.count += 1;
        series.last = Instant::now();
        let seen = Time(Timestamp::now());
        let again = json!({"count": series.count, "lastTimestamp": seen, "message": event.message});
        match api.patch(&series.name, &PatchParams::default(), &Patch::Merge(&again)).await {
            // Events are forgotten after an hour.
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            done => return done.map(drop),
        }
    }
    let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), Timestamp::now().as_nanosecond());
    api.create(&PostParams::default(), &complete(event, name.clone(), namespace, node)).await?;
    written.insert(key, Series { name, count: 1, last: Instant::now() });
    Ok(())
}

fn complete(event: Event, name: String, namespace: String, node: &str) -> Event {
    let now = Timestamp::now();
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
        count: Some(1),
        event_time: None::<MicroTime>,
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.to_owned()),
        // With it, the API would take the event for one of the newer kind, which has no count.
        action: None,
        ..event
    }
}

fn key(event: &Event) -> Key {
    let ObjectReference { uid, field_path, .. } = &event.involved_object;
    [uid, field_path, &event.reason, &event.action].map(|part| part.clone().unwrap_or_default())
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
