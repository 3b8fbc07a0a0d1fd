//! What controllers know: the newest form of every object that they watch, shared by all of them.
//!
//! Two things feed it: the watches, and the answers to the controllers' own writes. Of two forms of an object the one
//! with the higher revision wins, so the order in which they arrive does not matter. An object that a controller has
//! deleted does not come back by an older event, since its uid is remembered until its own DELETED event is seen; nor by
//! the answer to a write that comes after that event, since what the watch has passed and does not know is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::kind::{Kind, PODS};
use super::object::{list, name, namespace, revision, text, uid};

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Namespace, empty for a cluster-scoped object.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
}

impl Key {
    /// The place of an object.
    pub(crate) fn of(object: &Value) -> Self {
        Self { namespace: namespace(object).to_owned(), name: name(object).to_owned() }
    }

    /// A place by its parts.
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// An object came, changed or went.
pub(crate) struct Change {
    /// Its kind.
    pub(crate) kind: Kind,
    /// As it was known before; nothing if it is new.
    pub(crate) before: Option<Arc<Value>>,
    /// As it is now; nothing if it is gone.
    pub(crate) after: Option<Arc<Value>>,
}

impl Change {
    /// The newest known form.
    pub(crate) fn object(&self) -> &Value {
        self.after.as_deref().or(self.before.as_deref()).unwrap_or(&Value::Null)
    }

    /// Both forms.
    pub(crate) fn both(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.before.iter().chain(&self.after)
    }

    /// Whether it is of this kind.
    pub(crate) fn is(&self, kind: &Kind) -> bool {
        self.kind == *kind
    }
}

type Handler = Arc<dyn Fn(&Change) + Send + Sync>;

#[derive(Default)]
struct Table {
    objects: BTreeMap<Key, Arc<Value>>,
    gone: HashSet<String>,
    /// The revision up to which the watch has told everything.
    told: u64,
}

#[derive(Default)]
struct Inner {
    tables: HashMap<Kind, Table>,
    by_uid: HashMap<String, (Kind, Key)>,
    dependents: HashMap<String, BTreeSet<(Kind, Key)>>,
    on_node: HashMap<String, BTreeSet<Key>>,
    handlers: Vec<Handler>,
}

/// The cache.
pub(crate) struct Cache {
    inner: Mutex<Inner>,
    synced: watch::Sender<BTreeSet<Kind>>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { inner: Mutex::default(), synced: watch::Sender::new(BTreeSet::new()) }
    }
}

fn number(object: &Value) -> u64 {
    revision(object).parse().unwrap_or(0)
}

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/metadata/ownerReferences").iter().filter_map(|owner| owner["uid"].as_str())
}

impl Inner {
    fn forget(&mut self, kind: &Kind, object: &Value) {
        let place = (kind.clone(), Key::of(object));
        self.by_uid.remove(uid(object));
        for owner in owners(object) {
            if let Some(all) = self.dependents.get_mut(owner) {
                all.remove(&place);
                if all.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
        if *kind == PODS
            && let Some(pods) = self.on_node.get_mut(text(object, "/spec/nodeName"))
        {
            pods.remove(&place.1);
        }
    }

    fn learn(&mut self, kind: &Kind, object: &Value) {
        let place = (kind.clone(), Key::of(object));
        for owner in owners(object) {
            self.dependents.entry(owner.to_owned()).or_default().insert(place.clone());
        }
        let node = text(object, "/spec/nodeName");
        if *kind == PODS && !node.is_empty() {
            self.on_node.entry(node.to_owned()).or_default().insert(place.1.clone());
        }
        self.by_uid.insert(uid(object).to_owned(), place);
    }

    fn put(&mut self, kind: &Kind, object: Value) -> Option<Change> {
        let table = self.tables.get_mut(kind)?;
        let key = Key::of(&object);
        let before = table.objects.get(&key).cloned();
        let known = before.as_ref().map_or(table.told, |held| number(held));
        if table.gone.contains(uid(&object)) || known >= number(&object) {
            return None;
        }
        let after = Arc::new(object);
        table.objects.insert(key, Arc::clone(&after));
        if let Some(before) = &before {
            self.forget(kind, before);
        }
        self.learn(kind, &after);
        Some(Change { kind: kind.clone(), before, after: Some(after) })
    }

    /// The watch has told everything up to a revision.
    fn reach(&mut self, kind: &Kind, at: u64) {
        if let Some(table) = self.tables.get_mut(kind) {
            table.told = table.told.max(at);
        }
    }

    fn remove(&mut self, kind: &Kind, key: &Key) -> Option<Change> {
        let before = self.tables.get_mut(kind)?.objects.remove(key)?;
        self.forget(kind, &before);
        Some(Change { kind: kind.clone(), before: Some(before), after: None })
    }
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `handler` on every change from now on. It must only note what is to be done: it runs where the change is.
    pub(crate) fn subscribe(&self, handler: impl Fn(&Change) + Send + Sync + 'static) {
        self.lock().handlers.push(Arc::new(handler));
    }

    fn tell(&self, changes: impl IntoIterator<Item = Change>) {
        let handlers = self.lock().handlers.clone();
        for change in changes {
            for handler in &handlers {
                handler(&change);
            }
        }
    }

    /// Begins to hold a kind.
    pub(crate) fn hold(&self, kind: &Kind) {
        self.lock().tables.entry(kind.clone()).or_default();
    }

    /// Forgets a kind that is no longer served.
    pub(crate) fn drop_kind(&self, kind: &Kind) {
        let changes: Vec<Change> = {
            let mut inner = self.lock();
            let keys: Vec<Key> =
                inner.tables.get(kind).map(|t| t.objects.keys().cloned().collect()).unwrap_or_default();
            let changes = keys.iter().filter_map(|key| inner.remove(kind, key)).collect();
            inner.tables.remove(kind);
            changes
        };
        self.synced.send_modify(|synced| _ = synced.remove(kind));
        self.tell(changes);
    }

    /// Whether a kind is held.
    pub(crate) fn holds(&self, kind: &Kind) -> bool {
        self.lock().tables.contains_key(kind)
    }

    /// The kinds that are held.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.lock().tables.keys().cloned().collect();
        kinds.sort();
        kinds
    }

    /// A list came: what is not in it and not newer than it is gone.
    pub(crate) fn replaced(&self, kind: &Kind, listed: Vec<Value>, at: u64) {
        let mut changes = Vec::new();
        {
            let mut inner = self.lock();
            let present: BTreeSet<Key> = listed.iter().map(Key::of).collect();
            let Some(table) = inner.tables.get_mut(kind) else { return };
            table.gone.clear();
            table.told = 0;
            let held = table.objects.iter();
            let stale: Vec<Key> = held
                .filter(|(key, object)| !present.contains(*key) && number(object) <= at)
                .map(|(key, _)| key.clone())
                .collect();
            changes.extend(stale.iter().filter_map(|key| inner.remove(kind, key)));
            changes.extend(listed.into_iter().filter_map(|object| inner.put(kind, object)));
            inner.reach(kind, at);
        }
        self.synced.send_modify(|synced| _ = synced.insert(kind.clone()));
        self.tell(changes);
    }

    /// A watch said ADDED or MODIFIED.
    pub(crate) fn seen(&self, kind: &Kind, object: Value) {
        let change = {
            let (mut inner, at) = (self.lock(), number(&object));
            let change = inner.put(kind, object);
            inner.reach(kind, at);
            change
        };
        self.tell(change);
    }

    /// A watch said DELETED.
    pub(crate) fn seen_deleted(&self, kind: &Kind, object: &Value) {
        let change = {
            let mut inner = self.lock();
            let Some(table) = inner.tables.get_mut(kind) else { return };
            table.gone.remove(uid(object));
            table.told = table.told.max(number(object));
            let key = Key::of(object);
            let same = table.objects.get(&key).is_some_and(|held| number(held) <= number(object));
            if same { inner.remove(kind, &key) } else { None }
        };
        self.tell(change);
    }

    /// A write was answered with `object`.
    pub(crate) fn written(&self, kind: &Kind, object: Value) -> Arc<Value> {
        let shared = Arc::new(object);
        let change = self.lock().put(kind, Value::clone(&shared));
        self.tell(change);
        shared
    }

    /// A delete was answered: the object is gone.
    pub(crate) fn deleted(&self, kind: &Kind, object: &Value) {
        let change = {
            let mut inner = self.lock();
            let key = Key::of(object);
            let Some(table) = inner.tables.get_mut(kind) else { return };
            if table.objects.get(&key).is_none_or(|held| uid(held) != uid(object)) {
                return;
            }
            table.gone.insert(uid(object).to_owned());
            inner.remove(kind, &key)
        };
        self.tell(change);
    }

    /// The object at a place.
    pub(crate) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock().tables.get(kind)?.objects.get(&Key::new(namespace, name)).cloned()
    }

    /// Objects of a kind in one namespace, or in all if it is empty, by namespace and name.
    pub(crate) fn list(&self, kind: &Kind, namespace: &str) -> Vec<Arc<Value>> {
        let inner = self.lock();
        let Some(table) = inner.tables.get(kind) else { return Vec::new() };
        let from = table.objects.range(Key::new(namespace, "")..);
        let own = from.take_while(|(key, _)| namespace.is_empty() || key.namespace == namespace);
        own.map(|(_, object)| Arc::clone(object)).collect()
    }

    /// The object with a uid.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<(Kind, Arc<Value>)> {
        let inner = self.lock();
        let (kind, key) = inner.by_uid.get(uid)?;
        Some((kind.clone(), Arc::clone(inner.tables.get(kind)?.objects.get(key)?)))
    }

    /// Objects that name `uid` among their owners.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<(Kind, Arc<Value>)> {
        let inner = self.lock();
        let places = inner.dependents.get(uid).into_iter().flatten();
        places
            .filter_map(|(kind, key)| Some((kind.clone(), Arc::clone(inner.tables.get(kind)?.objects.get(key)?))))
            .collect()
    }

    /// The pods that are bound to a node, by namespace and name.
    pub(crate) fn pods_on(&self, node: &str) -> Vec<Arc<Value>> {
        let inner = self.lock();
        let (Some(keys), Some(pods)) = (inner.on_node.get(node), inner.tables.get(&PODS)) else { return Vec::new() };
        keys.iter().filter_map(|key| pods.objects.get(key).cloned()).collect()
    }

    /// Returns when every one of `kinds` has been listed.
    pub(crate) async fn synced(&self, kinds: &[Kind]) {
        let mut synced = self.synced.subscribe();
        // One that is no longer held will never be. The sender lives as long as the cache does.
        let _ = synced.wait_for(|synced| kinds.iter().all(|kind| synced.contains(kind) || !self.holds(kind))).await;
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
