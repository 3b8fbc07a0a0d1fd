//! When something about a service's endpoints last changed: what measures how long the way to the data path takes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde_json::Value;

use super::Key;
use crate::controllers::object::{condition, name, text};

/// The times that were seen last.
#[derive(Default)]
pub(super) struct Known {
    service: String,
    pods: HashMap<String, String>,
}

/// The earliest change since the last look; of a service that is new, when it was made; nothing if nothing changed.
pub(super) fn changed_at(known: Entry<'_, Key, Known>, service: &Value, pods: &[Arc<Value>]) -> Option<String> {
    let made = text(service, "/metadata/creationTimestamp").to_owned();
    let ready = |pod: &Value| condition(pod, "Ready").map(|ready| text(ready, "/lastTransitionTime").to_owned());
    let times: HashMap<String, String> = pods
        .iter()
        .filter_map(|pod| Some((name(pod).to_owned(), ready(pod).filter(|time| !time.is_empty())?)))
        .collect();
    match known {
        Entry::Vacant(entry) => {
            entry.insert(Known { service: made.clone(), pods: times });
            Some(made)
        }
        Entry::Occupied(mut entry) => {
            let old = entry.get();
            let later = times.iter().filter(|(pod, time)| old.pods.get(*pod).is_none_or(|old| *time > old));
            let renewed = (made > old.service).then_some(&made);
            let earliest = later.map(|(_, time)| time).chain(renewed).min().cloned();
            entry.insert(Known { service: made, pods: times });
            earliest
        }
    }
}
