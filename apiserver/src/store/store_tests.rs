//! Store: order, history, going back, and what a killed process leaves.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

/// A directory of its own, removed at the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("apiserver-log-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn key(name: &str) -> Key {
    Key { resource: Arc::from("/configmaps"), namespace: "ns".into(), name: name.into() }
}

fn object(name: &str, data: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns"}, "data": {"k": data}})
}

fn small(events: usize) -> Store {
    Store::in_memory(Retention { events, ..Retention::default() })
}

#[test]
fn revisions_grow_and_are_in_the_object() {
    let mut store = small(10);
    let first = store.put(key("a"), object("a", "1")).unwrap();
    let second = store.put(key("b"), object("b", "1")).unwrap();
    assert_eq!(first["metadata"]["resourceVersion"], "2");
    assert_eq!(second["metadata"]["resourceVersion"], "3");
    assert_eq!(store.delete(&key("a")).unwrap().unwrap()["metadata"]["resourceVersion"], "4");
    assert_eq!(store.delete(&key("a")).unwrap(), None);
    assert_eq!(store.revision(), 4);
}

#[test]
fn old_states_are_rebuilt_by_undoing() {
    let mut store = small(100);
    let mut seen = Vec::new();
    for step in 0..30u32 {
        let name = format!("o{}", step % 5);
        if step % 7 == 6 {
            store.delete(&key(&name)).unwrap();
        } else {
            store.put(key(&name), object(&name, &step.to_string())).unwrap();
        }
        let state: Vec<(Arc<Key>, Arc<Stored>)> = store
            .list_stored(&key("").resource, "ns")
            .map(|(key, stored)| (Arc::clone(key), Arc::clone(stored)))
            .collect();
        seen.push((store.revision(), state));
    }
    for (revision, state) in seen {
        assert_eq!(store.list_at(&key("").resource, "ns", revision).unwrap(), state, "at {revision}");
    }
}

#[test]
fn a_cursor_behind_the_ring_is_too_old() {
    let mut store = small(3);
    for step in 0..5 {
        store.put(key("a"), object("a", &step.to_string())).unwrap();
    }
    // Revisions 4, 5, 6 are kept: a cursor at 3 misses nothing, one at 2 would.
    let resource = key("").resource;
    assert_eq!(store.events_after(&resource, 3, 10).unwrap().len(), 3);
    assert_eq!(store.events_after(&resource, 2, 10).unwrap_err(), TooOld { asked: 2, floor: 3 });
    store.compact(5);
    assert!(store.events_after(&resource, 4, 10).is_err());
    assert_eq!(store.events_after(&resource, 5, 10).unwrap().len(), 1);
    let other: Arc<str> = Arc::from("/pods");
    assert!(store.events_after(&other, 4, 10).is_err(), "a resource without events is compacted too");
}

#[test]
fn namespaces_are_listed_apart() {
    let mut store = small(10);
    store.put(key("a"), object("a", "1")).unwrap();
    store.put(Key { namespace: "ns-2".into(), ..key("a") }, object("a", "2")).unwrap();
    store.put(Key { resource: Arc::from("/secrets"), ..key("a") }, object("a", "3")).unwrap();
    let count = |namespace| store.list(&key("").resource, namespace).count();
    assert_eq!((count("ns"), count("ns-2"), count("n"), count("")), (1, 1, 0, 2));
}

#[test]
fn every_cut_of_the_log_opens_to_a_prefix() {
    let directory = Scratch::new();
    let path = directory.0.join("log");
    let mut ends = Vec::new();
    {
        let mut store = Store::open(&path, Retention::default(), Durability::Process).unwrap();
        for step in 0..6 {
            store.put(key(&format!("o{step}")), object("o", "x")).unwrap();
            ends.push(std::fs::metadata(&path).unwrap().len());
        }
        store.delete(&key("o0")).unwrap();
        ends.push(std::fs::metadata(&path).unwrap().len());
    }
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut store = Store::open(&path, Retention::default(), Durability::Process).unwrap();
        let records = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
        assert_eq!(store.revision(), 1 + records, "cut at {cut}");
        assert_eq!(store.get(&key("o0")).is_some(), (1..7).contains(&records), "cut at {cut}");
        // It goes on where it stopped, and what it writes then is there after the next start.
        store.put(key("later"), object("later", "y")).unwrap();
        drop(store);
        let store = Store::open(&path, Retention::default(), Durability::Process).unwrap();
        assert_eq!(store.get(&key("later")).unwrap()["metadata"]["resourceVersion"], (records + 2).to_string());
    }
}

#[test]
fn damage_in_the_middle_is_refused() {
    let directory = Scratch::new();
    let path = directory.0.join("log");
    {
        let mut store = Store::open(&path, Retention::default(), Durability::Disk).unwrap();
        store.put(key("a"), object("a", "1")).unwrap();
        store.put(key("b"), object("b", "1")).unwrap();
    }
    let whole = std::fs::read(&path).unwrap();
    for at in 8..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = Store::open(&path, Retention::default(), Durability::Disk).err();
        assert!(matches!(error, Some(LogError::Damaged { .. })), "byte {at}: {error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is cut off what is refused");
    }
    std::fs::write(&path, b"something else").unwrap();
    assert!(matches!(Store::open(&path, Retention::default(), Durability::Disk), Err(LogError::Foreign { .. })));
}

#[test]
fn what_a_power_cut_left_unwritten_is_torn() {
    let directory = Scratch::new();
    let path = directory.0.join("log");
    let start = {
        let mut store = Store::open(&path, Retention::default(), Durability::Disk).unwrap();
        store.put(key("a"), object("a", "1")).unwrap();
        let start = std::fs::metadata(&path).unwrap().len() as usize;
        store.put(key("b"), object("b", "1")).unwrap();
        start
    };
    let whole = std::fs::read(&path).unwrap();
    for hole in [start..whole.len(), start + 12..whole.len(), start + 20..start + 40] {
        let mut bytes = whole.clone();
        bytes[hole.clone()].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let store = Store::open(&path, Retention::default(), Durability::Disk).unwrap();
        assert_eq!((store.revision(), store.get(&key("b"))), (2, None), "zeros in {hole:?}");
    }
}

#[test]
fn two_servers_do_not_write_to_one_log() {
    let directory = Scratch::new();
    let path = directory.0.join("log");
    let first = Store::open(&path, Retention::default(), Durability::Process).unwrap();
    let error = Store::open(&path, Retention::default(), Durability::Process).err().unwrap();
    assert!(matches!(error, LogError::InUse { .. }), "{error}");
    drop(first);
    Store::open(&path, Retention::default(), Durability::Process).unwrap();
}

#[test]
fn large_objects_are_forgotten_by_their_weight() {
    let mut store = Store::in_memory(Retention { events: 1000, bytes: 10_000 });
    for step in 0..50 {
        store.put(key("a"), object("a", &format!("{step}{}", "x".repeat(1000)))).unwrap();
    }
    let resource = key("").resource;
    assert!(store.events_after(&resource, 30, 100).is_err(), "they would take 20 kB");
    assert!(store.events_after(&resource, 45, 100).is_ok());
    store.put(key("a"), object("a", &"x".repeat(20_000))).unwrap();
    assert_eq!(store.events_after(&resource, store.revision() - 1, 10).unwrap().len(), 1, "the last one is kept");
}

#[test]
fn history_goes_on_after_a_restart() {
    let directory = Scratch::new();
    let path = directory.0.join("log");
    let open = |events| Store::open(&path, Retention { events, ..Retention::default() }, Durability::Process).unwrap();
    let resource = key("").resource;
    let before = {
        let mut store = open(100);
        store.put(key("a"), object("a", "1")).unwrap();
        store.put(key("a"), object("a", "2")).unwrap();
        store.delete(&key("a")).unwrap();
        store.put(key("a"), object("a", "3")).unwrap();
        store.events_after(&resource, 1, 10).unwrap()
    };
    let told = |events: &[Event]| {
        let one = |event: &Event| (event.revision, event.before.clone(), event.after.clone());
        events.iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(told(&open(100).events_after(&resource, 1, 10).unwrap()), told(&before));
    assert_eq!(open(100).made_at(&key("a")), Some(5));
    // Only as much as is kept.
    let store = open(2);
    assert!(store.events_after(&resource, 2, 10).is_err());
    assert_eq!(store.events_after(&resource, 3, 10).unwrap().len(), 2);
}

#[test]
fn trees_are_made_again_when_they_were_forgotten() {
    let mut store = small(10);
    for number in 0..40 {
        let large = "x".repeat(100_000);
        store.put(key(&format!("o{number:02}")), object(&format!("o{number:02}"), &large)).unwrap();
    }
    for (number, (key, object)) in store.list(&key("").resource, "ns").enumerate() {
        assert_eq!(object["metadata"]["name"], key.name.as_str());
        assert_eq!(object["metadata"]["resourceVersion"], (number + 2).to_string());
    }
}
