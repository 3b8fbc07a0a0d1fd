//! Tests of [`super`]: what stays, what goes, and how much is remembered of it.
use serde_json::json;

use super::*;
use crate::store::Retention;

fn key(name: &str) -> Key {
    Key { resource: EVENTS.into(), namespace: "ns".into(), name: name.into() }
}

fn write(store: &mut Store, expiry: &mut Expiry, name: &str, now: Timestamp) {
    store.put(key(name), json!({"metadata": {"name": name}})).unwrap();
    expiry.note(now, &key(name), store);
}

#[test]
fn an_event_ends_an_hour_after_its_last_change() {
    let (mut store, mut expiry) = (Store::in_memory(Retention::default()), Expiry::default());
    let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
    write(&mut store, &mut expiry, "once", at(0));
    write(&mut store, &mut expiry, "again", at(0));
    write(&mut store, &mut expiry, "again", at(30));
    assert_eq!(expiry.next(at(59), &store), None);
    assert_eq!(expiry.next(at(60), &store), Some(key("once")));
    assert_eq!(expiry.next(at(89), &store), None);
    assert_eq!(expiry.next(at(90), &store), Some(key("again")));
    assert_eq!(expiry.next(at(1000), &store), None);
}

#[test]
fn one_event_that_is_counted_up_for_ever_takes_no_memory() {
    let (mut store, mut expiry) = (Store::in_memory(Retention::default()), Expiry::default());
    for _ in 0..10 * STALE {
        write(&mut store, &mut expiry, "again", Timestamp::UNIX_EPOCH);
    }
    assert!(expiry.due.len() <= STALE + 2, "{}", expiry.due.len());
}
