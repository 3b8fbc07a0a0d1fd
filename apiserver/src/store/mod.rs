//! The store: every object, one revision counter, and the lossless history that watches read.
//!
//! Invariants: revisions grow by one for each committed write; an event and the map change together; a write is in the
//! log before anybody can see it; the history of a resource is contiguous from its floor to the head.

mod history;
mod log;
#[cfg(test)]
mod store_tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

pub use history::Event;
use history::History;
pub use log::{Durability, LogError};
use log::{Log, Record};

/// Where an object lives: its resource (`apps/deployments`), namespace (empty if cluster-scoped) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Group and plural, `/`-separated; the core group is empty: `/pods`.
    pub resource: Arc<str>,
    /// Namespace, empty for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Why a watch or an old list cannot be served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({floor})")]
pub struct TooOld {
    /// The revision that was asked for.
    pub asked: u64,
    /// The oldest revision from which history is still complete.
    pub floor: u64,
}

/// What is kept of the past, for each resource.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Events of one resource; older ones are forgotten and a watch from before them is told 410.
    pub events: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { events: 100_000 }
    }
}

/// All objects at the newest revision, and enough history to go back.
pub struct Store {
    revision: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: BTreeMap<Arc<str>, History>,
    /// History before this revision is gone for every resource, also for those without events.
    compacted: u64,
    retention: Retention,
    head: watch::Sender<u64>,
    log: Option<Log>,
}

impl Store {
    /// An empty store that keeps nothing on disk.
    pub fn in_memory(retention: Retention) -> Self {
        Self {
            revision: 1,
            objects: BTreeMap::new(),
            history: BTreeMap::new(),
            compacted: 0,
            retention,
            head: watch::Sender::new(1),
            log: None,
        }
    }

    /// Opens the log at `path`, or makes it, and replays it. A torn last record is dropped; anything else that is wrong
    /// is an error, since something acknowledged would be missing.
    pub fn open(path: &Path, retention: Retention, durability: Durability) -> Result<Self, LogError> {
        let mut store = Self::in_memory(retention);
        let log = Log::open(path, durability, |record| store.replay(record))?;
        // What came before the restart cannot be replayed to a watch: only the last state of each object is kept.
        store.compacted = store.revision;
        store.head.send_replace(store.revision);
        store.log = Some(log);
        Ok(store)
    }

    fn replay(&mut self, record: Record) {
        self.revision = self.revision.max(record.revision);
        match record.object {
            Some(object) => self.objects.insert(record.key, Arc::new(object)),
            None => self.objects.remove(&record.key),
        };
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Follows the newest revision; a watcher that wakes reads the history from its own cursor, so nothing is lost.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The object at `key`.
    pub fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// Objects of a resource in one namespace (or in all, if empty), by namespace and name.
    pub fn list<'a>(
        &'a self,
        resource: &Arc<str>,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + use<'a> {
        let start = Key { resource: Arc::clone(resource), namespace: namespace.to_owned(), name: String::new() };
        let resource = Arc::clone(resource);
        self.objects.range((Bound::Included(start), Bound::Unbounded)).take_while(move |(key, _)| {
            key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
        })
    }

    /// The objects of a resource as they were at `revision`, by undoing what came later.
    pub fn list_at(
        &self,
        resource: &Arc<str>,
        namespace: &str,
        revision: u64,
    ) -> Result<BTreeMap<Key, Arc<Value>>, TooOld> {
        let mut objects: BTreeMap<Key, Arc<Value>> =
            self.list(resource, namespace).map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        if revision >= self.revision {
            return Ok(objects);
        }
        self.check_floor(resource, revision)?;
        for event in self.history.get(resource).into_iter().flat_map(|history| history.back_to(revision)) {
            if !namespace.is_empty() && event.key.namespace != namespace {
                continue;
            }
            match &event.before {
                Some(before) => objects.insert(event.key.clone(), Arc::clone(before)),
                None => objects.remove(&event.key),
            };
        }
        Ok(objects)
    }

    /// Events of a resource after `revision`, oldest first, at most `limit`.
    pub fn events_after(&self, resource: &Arc<str>, revision: u64, limit: usize) -> Result<Vec<Event>, TooOld> {
        self.check_floor(resource, revision)?;
        Ok(self.history.get(resource).map(|history| history.after(revision, limit)).unwrap_or_default())
    }

    /// As `events_after`, for a watch: it cannot begin before the resource was served.
    pub fn watched_after(&self, resource: &Arc<str>, revision: u64, limit: usize) -> Result<Vec<Event>, TooOld> {
        match self.history.get(resource).map_or(0, History::begin) {
            begin if revision < begin => Err(TooOld { asked: revision, floor: begin }),
            _ => self.events_after(resource, revision, limit),
        }
    }

    fn check_floor(&self, resource: &Arc<str>, revision: u64) -> Result<(), TooOld> {
        let floor = self.history.get(resource).map_or(0, History::floor).max(self.compacted);
        if revision < floor { Err(TooOld { asked: revision, floor }) } else { Ok(()) }
    }

    /// Writes `object` at `key`; its `metadata.resourceVersion` becomes the new revision.
    pub fn put(&mut self, key: Key, mut object: Value) -> Result<Arc<Value>, LogError> {
        let revision = self.revision + 1;
        set_revision(&mut object, revision);
        let object = Arc::new(object);
        if let Some(log) = &mut self.log {
            log.append(revision, &key, Some(&object))?;
        }
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        self.commit(Event { revision, key, before, after: Some(Arc::clone(&object)) });
        Ok(object)
    }

    /// Removes `key`. The deleted object is handed out with the revision of the delete, as watches show it.
    pub fn delete(&mut self, key: &Key) -> Result<Option<Arc<Value>>, LogError> {
        let Some(last) = self.objects.get(key) else { return Ok(None) };
        let last = Arc::clone(last);
        let revision = self.revision + 1;
        let gone = Arc::new(at_revision(&last, revision));
        if let Some(log) = &mut self.log {
            log.append(revision, key, None)?;
        }
        self.objects.remove(key);
        self.commit(Event { revision, key: key.clone(), before: Some(last), after: None });
        Ok(Some(gone))
    }

    fn commit(&mut self, event: Event) {
        self.revision = event.revision;
        let history = self.history.entry(Arc::clone(&event.key.resource)).or_default();
        history.push(event, self.retention.events);
        self.head.send_replace(self.revision);
    }

    /// The resource is served from now on: nobody can watch what was before.
    pub fn begin(&mut self, resource: &Arc<str>) {
        let revision = self.revision;
        self.history.entry(Arc::clone(resource)).or_default().set_begin(revision);
    }

    /// Forgets history before `revision`: watches and exact lists from before it are then told 410.
    pub fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        for history in self.history.values_mut() {
            history.forget_before(self.compacted);
        }
    }

    /// The revision before which history is gone.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }
}

/// The object as it is shown when it is gone: unchanged, but with the revision at which that happened.
pub fn at_revision(object: &Value, revision: u64) -> Value {
    let mut object = object.clone();
    set_revision(&mut object, revision);
    object
}

fn set_revision(object: &mut Value, revision: u64) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), Value::String(revision.to_string()));
    }
}
