//! Of two forms of an object the newer stays, and what is gone does not come back.

#![allow(clippy::unwrap_used, reason = "test code")]

use serde_json::{Value, json};

use super::Cache;
use crate::controllers::kind::PODS;

fn pod(revision: u64) -> Value {
    let metadata = json!({"name": "p", "namespace": "n", "uid": "u", "resourceVersion": revision.to_string()});
    json!({"kind": "Pod", "metadata": metadata})
}

fn watched() -> Cache {
    let cache = Cache::default();
    cache.hold(&PODS);
    cache.replaced(&PODS, vec![pod(1)], 2);
    cache
}

/// With several threads the watch may be faster than the answer.
#[test]
fn what_is_gone_does_not_come_back_by_the_answer_to_an_earlier_write() {
    let cache = watched();
    cache.seen_deleted(&PODS, &pod(4));
    cache.written(&PODS, pod(3));
    cache.written(&PODS, pod(4));
    assert!(cache.get(&PODS, "n", "p").is_none());
}

#[test]
fn what_is_new_is_known_by_the_answer_and_by_the_watch() {
    let cache = watched();
    cache.written(&PODS, pod(5));
    cache.seen(&PODS, pod(3));
    assert_eq!(cache.get(&PODS, "n", "p").unwrap()["metadata"]["resourceVersion"], "5");
    cache.deleted(&PODS, &pod(5));
    cache.seen(&PODS, pod(5));
    assert!(cache.get(&PODS, "n", "p").is_none(), "its DELETED is still to come");
    cache.seen_deleted(&PODS, &pod(6));
    let mut other = pod(7);
    other["metadata"]["uid"] = json!("v");
    cache.written(&PODS, other);
    assert_eq!(cache.get(&PODS, "n", "p").unwrap()["metadata"]["uid"], "v");
}

/// After a watch is lost, a list says what there is, however old it is.
#[test]
fn a_list_brings_back_what_the_cache_has_lost() {
    let cache = watched();
    cache.seen_deleted(&PODS, &pod(4));
    cache.replaced(&PODS, vec![pod(3)], 9);
    assert!(cache.get(&PODS, "n", "p").is_some());
}
