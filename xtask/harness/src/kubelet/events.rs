//! Events of pods. They never hold up what they tell of: where the API server does not keep up, they are left out.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;

/// Events under way.
const QUEUE: usize = 256;

/// Where events are told.
#[derive(Clone)]
pub(crate) struct Events(mpsc::Sender<(Event, ObjectReference)>);

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

impl Events {
    /// A queue, and the task that empties it.
    pub(super) fn start(client: Client, node: &str) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let reporter = Reporter { controller: "kubelet".into(), instance: Some(node.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(async move {
            while let Some((event, about)) = receiver.recv().await {
                if let Err(error) = recorder.publish(&event, &about).await {
                    eprintln!("event {} of pod {}: {error}", event.reason, about.name.unwrap_or_default());
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
            type_: if told.warning { EventType::Warning } else { EventType::Normal },
            reason: told.reason.to_owned(),
            // The API takes 1024 characters.
            note: Some(told.note.chars().take(1000).collect()),
            action: told.action.to_owned(),
            secondary: None,
        };
        if self.0.try_send((event, about)).is_err() {
            eprintln!("event {} of pod {:?} left out: too many at once", told.reason, pod.metadata.name);
        }
    }
}
