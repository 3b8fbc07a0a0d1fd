//! Events have two groups and one store: kept in the core form, shown in either.

use serde_json::{Value, json};

/// Field of the core form, and of `events.k8s.io`.
const FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];

fn rename(mut object: Value, version: &str, pairs: impl Iterator<Item = (&'static str, &'static str)>) -> Value {
    let Some(map) = object.as_object_mut() else { return object };
    for (from, to) in pairs {
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
    map.insert("apiVersion".into(), json!(version));
    map.insert("kind".into(), json!("Event"));
    object
}

/// The form of events.k8s.io as core.
pub fn to_core(object: Value) -> Value {
    rename(object, "v1", FIELDS.into_iter().map(|(core, new)| (new, core)))
}

/// The core form as events.k8s.io, which does not print who reports if nobody does.
pub fn from_core(object: &Value) -> Value {
    let mut object = rename(object.clone(), "events.k8s.io/v1", FIELDS.into_iter());
    if let Some(map) = object.as_object_mut() {
        for name in ["reportingController", "reportingInstance"] {
            if map.get(name).is_some_and(|value| value == "") {
                map.remove(name);
            }
        }
    }
    object
}
