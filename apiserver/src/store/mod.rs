//! The store: every object, one revision counter, and the lossless history that watches read.
//!
//! Invariants: revisions grow by one for each committed write; an event and the map change together; a write is in the
//! log before anybody can see it; the history of a resource is contiguous from its floor to the head.

mod history;
mod log;
#[cfg(test)]
mod store_tests;
mod stored;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use history::History;
pub use history::{Change, Event};
pub use log::{Durability, LogError};
use log::{Log, Record};
pub use stored::Stored;
use stored::Trees;

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
    /// Bytes of the objects of these events: few large objects do not take more memory than many small ones.
    pub bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { events: 100_000, bytes: 64 << 20 }
    }
}

/// The largest object, as JSON: what etcd takes if nobody configures it (measured with v3.6: 1.5 MiB for a request).
const OBJECT_MAX: usize = 1536 << 10;

/// An object of a list, with its key.
pub type Listed = (Arc<Key>, Arc<Stored>);

/// All objects at the newest revision, and enough history to go back.
pub struct Store {
    revision: u64,
    objects: BTreeMap<Arc<Key>, Arc<Stored>>,
    trees: RefCell<Trees>,
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
            trees: RefCell::default(),
            history: BTreeMap::new(),
            compacted: 0,
            retention,
            head: watch::Sender::new(1),
            log: None,
        }
    }

    /// Opens the log at `path`, or makes it, and replays it: objects and their history, so that a watch goes on from the
    /// revision that it had seen. A torn last record is dropped; anything else that is wrong is an error, since something
    /// acknowledged would be missing.
    pub fn open(path: &Path, retention: Retention, durability: Durability) -> Result<Self, LogError> {
        let mut store = Self::in_memory(retention);
        let log = Log::open(path, durability, |record| store.replay(record))?;
        store.head.send_replace(store.revision);
        store.log = Some(log);
        Ok(store)
    }

    fn replay(&mut self, record: Record) {
        let Record { revision, key, object } = record;
        let key = self.shared(key);
        let after = object.map(|object| Arc::new(Stored::new(revision, &object)));
        let before = match &after {
            Some(after) => self.objects.insert(Arc::clone(&key), Arc::clone(after)),
            None => self.objects.remove(&key),
        };
        self.commit(Change { revision, key, before, after });
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Follows the newest revision; a watcher that wakes reads the history from its own cursor, so nothing is lost.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// A stored object as a tree.
    pub fn tree(&self, stored: &Stored) -> Arc<Value> {
        self.trees.borrow_mut().get(stored)
    }

    /// The object at `key`.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.stored(key).map(|stored| self.tree(stored))
    }

    /// The object at `key`, as it is kept.
    pub fn stored(&self, key: &Key) -> Option<&Arc<Stored>> {
        self.objects.get(key)
    }

    /// Objects of a resource in one namespace (or in all, if empty), by namespace and name.
    pub fn list<'a>(
        &'a self,
        resource: &Arc<str>,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<Key>, Arc<Value>)> + use<'a> {
        self.list_stored(resource, namespace).map(|(key, stored)| (key, self.tree(stored)))
    }

    /// As `list`, but as they are kept.
    pub fn list_stored<'a>(
        &'a self,
        resource: &Arc<str>,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<Key>, &'a Arc<Stored>)> + use<'a> {
        let start = Key { resource: Arc::clone(resource), namespace: namespace.to_owned(), name: String::new() };
        let resource = Arc::clone(resource);
        self.objects.range::<Key, _>((Bound::Included(&start), Bound::Unbounded)).take_while(move |(key, _)| {
            key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
        })
    }

    /// The objects of a resource as they were at `revision`, by undoing what came later; in the order of `list`.
    pub fn list_at(&self, resource: &Arc<str>, namespace: &str, revision: u64) -> Result<Vec<Listed>, TooOld> {
        let all = self.list_stored(resource, namespace).map(|(key, stored)| (Arc::clone(key), Arc::clone(stored)));
        if revision >= self.revision {
            return Ok(all.collect());
        }
        self.check_floor(resource, revision)?;
        let mut objects: BTreeMap<Arc<Key>, Arc<Stored>> = all.collect();
        for change in self.history.get(resource).into_iter().flat_map(|history| history.back_to(revision)) {
            if !namespace.is_empty() && change.key.namespace != namespace {
                continue;
            }
            match &change.before {
                Some(before) => objects.insert(Arc::clone(&change.key), Arc::clone(before)),
                None => objects.remove(&change.key),
            };
        }
        Ok(objects.into_iter().collect())
    }

    /// Events of a resource after `revision`, oldest first, at most `limit`.
    pub fn events_after(&self, resource: &Arc<str>, revision: u64, limit: usize) -> Result<Vec<Event>, TooOld> {
        let tree = |stored: &Option<Arc<Stored>>| stored.as_ref().map(|stored| self.tree(stored));
        let changes = self.changes_after(resource, revision, limit)?.into_iter();
        let event = |change: Change| {
            let (before, after) = (tree(&change.before), tree(&change.after));
            Event { revision: change.revision, key: change.key, before, after }
        };
        Ok(changes.map(event).collect())
    }

    fn changes_after(&self, resource: &Arc<str>, revision: u64, limit: usize) -> Result<Vec<Change>, TooOld> {
        self.check_floor(resource, revision)?;
        Ok(self.history.get(resource).map(|history| history.after(revision, limit)).unwrap_or_default())
    }

    /// What a watch is told of after `revision`, oldest first: it cannot begin before the resource was served.
    pub fn watched_after(&self, resource: &Arc<str>, revision: u64, limit: usize) -> Result<Vec<Change>, TooOld> {
        match self.history.get(resource).map_or(0, History::begin) {
            begin if revision < begin => Err(TooOld { asked: revision, floor: begin }),
            _ => self.changes_after(resource, revision, limit),
        }
    }

    fn check_floor(&self, resource: &Arc<str>, revision: u64) -> Result<(), TooOld> {
        let floor = self.history.get(resource).map_or(0, History::floor).max(self.compacted);
        if revision < floor { Err(TooOld { asked: revision, floor }) } else { Ok(()) }
    }

    /// The key as it is kept already, if it is.
    fn shared(&self, key: Key) -> Arc<Key> {
        self.objects.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| Arc::clone(known))
    }

    /// Writes `object` at `key`; its `metadata.resourceVersion` becomes the new revision.
    pub fn put(&mut self, key: Key, mut object: Value) -> Result<Arc<Value>, LogError> {
        let revision = self.revision + 1;
        set_revision(&mut object, revision);
        let stored = Arc::new(Stored::new(revision, &object));
        if stored.text.len() > OBJECT_MAX {
            return Err(LogError::TooLarge { length: stored.text.len() });
        }
        if let Some(log) = &mut self.log {
            log.append(revision, &key, Some(&stored.text))?;
        }
        let tree = Arc::new(object);
        self.trees.get_mut().keep(&stored, Arc::clone(&tree));
        let key = self.shared(key);
        let before = self.objects.insert(Arc::clone(&key), Arc::clone(&stored));
        self.commit(Change { revision, key, before, after: Some(stored) });
        Ok(tree)
    }

    /// Removes `key`. The deleted object is handed out with the revision of the delete, as watches show it.
    pub fn delete(&mut self, key: &Key) -> Result<Option<Arc<Value>>, LogError> {
        let Some((key, last)) = self.objects.get_key_value(key) else { return Ok(None) };
        let (key, last) = (Arc::clone(key), Arc::clone(last));
        let revision = self.revision + 1;
        let gone = Arc::new(at_revision(&self.tree(&last), revision));
        if let Some(log) = &mut self.log {
            log.append(revision, &key, None)?;
        }
        self.objects.remove(&key);
        self.commit(Change { revision, key, before: Some(last), after: None });
        Ok(Some(gone))
    }

    fn commit(&mut self, change: Change) {
        self.revision = self.revision.max(change.revision);
        let history = self.history.entry(Arc::clone(&change.key.resource)).or_default();
        history.push(change, self.retention);
        self.head.send_replace(self.revision);
    }

    /// The resource is served from now on: nobody can watch what was before.
    pub fn begin(&mut self, resource: &Arc<str>) {
        self.begin_at(resource, self.revision);
    }

    /// The resource has been served since a revision.
    pub fn begin_at(&mut self, resource: &Arc<str>, revision: u64) {
        self.history.entry(Arc::clone(resource)).or_default().set_begin(revision);
    }

    /// The revision that made the object at `key`; that of its last change if its first is forgotten.
    pub fn made_at(&self, key: &Key) -> Option<u64> {
        let stored = self.stored(key)?;
        let changes = self.history.get(&key.resource).into_iter().flat_map(|history| history.back_to(0));
        let mut own = changes.filter(|change| *change.key == *key);
        Some(own.find(|change| change.before.is_none()).map_or(stored.revision, |made| made.revision))
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
