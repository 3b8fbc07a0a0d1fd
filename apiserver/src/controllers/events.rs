//! Events: what controllers say about objects. They are written behind the controllers' backs by one task, so that they
//! slow nothing down; if a thousand wait, further ones are dropped.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::client::{Client, PatchType};
use super::kind::{EVENTS, Kind, NEW_EVENTS};
use super::object::{name, namespace, revision, uid};
use crate::clock::{Clock, seconds};

const WAITING_MAX: usize = 1000;
/// Events that are remembered to be counted up instead of written again.
const REMEMBERED: usize = 4096;

/// One thing to say.
struct Saying {
    component: &'static str,
    client: Client,
    about: Value,
    type_: &'static str,
    reason: &'static str,
    /// Only the newer API has it; empty for the older one.
    action: &'static str,
    message: String,
    at: Timestamp,
}

/// Takes events and hands them to the writer.
#[derive(Clone)]
pub(crate) struct Recorder {
    component: &'static str,
    client: Client,
    clock: Arc<dyn Clock>,
    sender: mpsc::Sender<Saying>,
}

/// The writer's end.
pub(crate) struct Events {
    clock: Arc<dyn Clock>,
    sender: mpsc::Sender<Saying>,
    receiver: mpsc::Receiver<Saying>,
}

impl Events {
    /// A writer without anything to write.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self { clock, sender, receiver }
    }

    /// A recorder that speaks as `component`.
    pub(crate) fn recorder(&self, component: &'static str, client: Client) -> Recorder {
        Recorder { component, client, clock: Arc::clone(&self.clock), sender: self.sender.clone() }
    }

    /// Writes for ever.
    pub(crate) async fn write(mut self) {
        let mut book = Book::default();
        while let Some(saying) = self.receiver.recv().await {
            book.write(saying).await;
        }
    }
}

impl Recorder {
    /// Says something about `object`, as most controllers do (core/v1, with a count).
    pub(crate) fn say(&self, kind: &Kind, object: &Value, type_: &'static str, reason: &'static str, message: String) {
        self.act(kind, object, type_, reason, "", message);
    }

    /// Says something with an action, as the scheduler does (events.k8s.io/v1, with a series).
    pub(crate) fn act(
        &self,
        kind: &Kind,
        object: &Value,
        type_: &'static str,
        reason: &'static str,
        action: &'static str,
        message: String,
    ) {
        let mut about = json!({"kind": kind.name, "apiVersion": kind.api_version(), "name": name(object),
            "uid": uid(object), "resourceVersion": revision(object)});
        if kind.namespaced {
            about["namespace"] = json!(namespace(object));
        }
        self.about(about, type_, reason, action, message);
    }

    /// Says something about what a reference names.
    pub(crate) fn about(
        &self,
        about: Value,
        type_: &'static str,
        reason: &'static str,
        action: &'static str,
        message: String,
    ) {
        let (component, client, at) = (self.component, self.client.clone(), self.clock.now());
        let saying = Saying { component, client, about, type_, reason, action, message, at };
        if let Err(error) = self.sender.try_send(saying) {
            tracing::debug!(%error, reason, "event dropped");
        }
    }
}

/// The so-manyth different thing that one component says of one object for one reason is put together with the next.
const DIFFERENT: usize = 10;
/// Those of so long ago do not count.
const TOGETHER: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);

/// What was said of one object for one reason.
struct Topic {
    messages: HashSet<String>,
    last: Timestamp,
}

#[derive(Default)]
struct Book {
    known: HashMap<String, (Value, i64)>,
    order: VecDeque<String>,
    topics: HashMap<String, Topic>,
}

impl Book {
    async fn write(&mut self, mut saying: Saying) {
        let mut about = saying.about.clone();
        if saying.action.is_empty()
            && let Some(about) = about.as_object_mut()
        {
            // The older API takes what is said of one object in two states for the same.
            about.remove("resourceVersion");
        }
        let topic = json!([saying.component, about, saying.type_, saying.reason]).to_string();
        let together = saying.action.is_empty() && self.is_repetitive(&topic, &saying);
        let identity = match together {
            true => {
                saying.message = format!("(combined from similar events): {}", saying.message);
                topic
            }
            false => json!([topic, saying.message]).to_string(),
        };
        if let Some((event, count)) = self.known.get_mut(&identity) {
            *count += 1;
            if repeat(&saying, event, *count).await {
                return;
            }
        }
        if let Some(event) = create(&saying, !together).await {
            if self.known.insert(identity.clone(), (event, 1)).is_none() {
                self.order.push_back(identity);
            }
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    /// Whether much was said already of the object for the reason.
    fn is_repetitive(&mut self, topic: &str, saying: &Saying) -> bool {
        self.topics.retain(|_, topic| saying.at.duration_since(topic.last) <= TOGETHER);
        let fresh = || Topic { messages: HashSet::new(), last: saying.at };
        let topic = self.topics.entry(topic.to_owned()).or_insert_with(fresh);
        topic.last = saying.at;
        topic.messages.insert(saying.message.clone());
        let many = topic.messages.len() >= DIFFERENT;
        if many {
            // One makes room for the next.
            let other = topic.messages.iter().find(|message| **message != saying.message).cloned();
            other.map(|message| topic.messages.remove(&message));
        }
        many
    }
}

/// Writes of events that are refused are not repeated: what they are about may be gone, or its namespace ends.
fn noted<T>(answer: Result<T, super::client::Refused>) -> Option<T> {
    answer.inspect_err(|refused| tracing::debug!(%refused, "event refused")).ok()
}

async fn repeat(saying: &Saying, event: &Value, count: i64) -> bool {
    let (kind, patch) = if saying.action.is_empty() {
        (EVENTS, json!({"count": count, "lastTimestamp": seconds(saying.at), "message": saying.message}))
    } else {
        (NEW_EVENTS, json!({"series": {"count": count, "lastObservedTime": micros(saying.at)}}))
    };
    noted(saying.client.patch(&kind, event, "", PatchType::Strategic, &patch).await).is_some()
}

/// `reporting` says whether the newer fields tell who says it.
async fn create(saying: &Saying, reporting: bool) -> Option<Value> {
    let namespace = saying.about["namespace"].as_str().unwrap_or("default");
    let stem = saying.about["name"].as_str().unwrap_or_default();
    for attempt in 0..64 {
        let name = format!("{stem}.{:x}", saying.at.as_nanosecond() + attempt);
        let metadata = json!({"name": name, "namespace": namespace});
        let made = if saying.action.is_empty() {
            let now = seconds(saying.at);
            let reporting = if reporting { saying.component } else { "" };
            let event = json!({
                "kind": "Event", "apiVersion": "v1", "metadata": metadata, "involvedObject": saying.about,
                "reason": saying.reason, "message": saying.message, "type": saying.type_, "count": 1,
                "firstTimestamp": now, "lastTimestamp": now, "source": {"component": saying.component},
                "reportingComponent": reporting, "reportingInstance": "", "eventTime": null,
            });
            saying.client.create(&EVENTS, &event).await
        } else {
            let event = json!({
                "kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": metadata, "regarding": saying.about,
                "reason": saying.reason, "note": saying.message, "type": saying.type_, "action": saying.action,
                "eventTime": micros(saying.at), "reportingController": saying.component,
                "reportingInstance": format!("{}-embedded", saying.component),
            });
            saying.client.create(&NEW_EVENTS, &event).await
        };
        match made {
            // Under paused time two events have the same time.
            Err(refused) if refused.is_already_exists() => continue,
            other => return noted(other).map(|event| Value::clone(&event)),
        }
    }
    None
}

/// A time with the microseconds that MicroTime has.
pub(crate) fn micros(time: Timestamp) -> String {
    format!("{time:.6}")
}
