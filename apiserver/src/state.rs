//! Everything behind the lock: the store, what is served, chance, and what Services have been given.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::auth::access::Access;
use crate::auth::bootstrap;
use crate::clock::{Clock, IdGenerator, seconds};
use crate::expiry::{self, Expiry};
use crate::failure::{Failure, Outcome};
use crate::fields::managed::{Manager, Write, update};
use crate::kinds::definition;
use crate::kinds::service::Allocations;
use crate::registry::{Registry, Resource};
use crate::store::{Key, LogError, Store};

/// Objects are read again by a parser that goes no deeper than 128 levels, from within records, lists and events.
const DEPTH_MAX: usize = 120;

/// The server's state; every request that writes holds it from reading to committing.
pub struct State {
    /// All objects.
    pub store: Store,
    /// All resources.
    pub registry: Registry,
    /// Uids and names.
    pub chance: IdGenerator,
    /// Cluster IPs and node ports in use.
    pub allocations: Allocations,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Keys, roles, plug-ins.
    pub access: Access,
    /// When Events end.
    pub(crate) expiry: Expiry,
}

impl State {
    /// The key of an object.
    pub fn key(resource: &Resource, namespace: &str, name: &str) -> Key {
        Key { resource: Arc::clone(&resource.storage), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The object, or 404.
    pub fn read(&self, resource: &Resource, namespace: &str, name: &str) -> Outcome<Arc<Value>> {
        let key = Self::key(resource, namespace, name);
        self.store.get(&key).ok_or_else(|| Failure::not_found(&resource.group, &resource.plural, name))
    }

    /// The namespace object.
    pub fn namespace(&self, name: &str) -> Option<Arc<Value>> {
        let key = Key { resource: Arc::from("/namespaces"), namespace: String::new(), name: name.to_owned() };
        self.store.get(&key)
    }

    /// Whole seconds of now.
    pub fn now(&self) -> String {
        seconds(self.clock.now())
    }

    /// Commits an object and keeps the books that follow from it.
    pub fn put(&mut self, key: Key, object: Value) -> Outcome<Arc<Value>> {
        if is_deeper(&object, DEPTH_MAX) {
            return Err(Failure::unsupported(&format!("an object that is nested deeper than {DEPTH_MAX} levels")));
        }
        let before = self.store.get(&key);
        let after = self.store.put(key.clone(), object).map_err(|error| match error {
            LogError::TooLarge { .. } => Failure::plain("etcdserver: request is too large"),
            error => Failure::unavailable(error.to_string()),
        })?;
        self.allocations.follow(&key, before.as_deref(), Some(&after));
        self.access.follow(&key);
        self.follow_definitions(&key);
        if &*key.resource == expiry::EVENTS {
            let now = self.clock.now();
            self.expiry.note(now, &key, &self.store);
            while let Some(ended) = self.expiry.next(now, &self.store) {
                self.remove(&ended)?;
            }
        }
        if &*key.resource == definition::STORAGE {
            if before.is_none() {
                self.store.begin(&definition::instances(&after));
            }
            self.establish(&key, &after)?;
            let names = |definition: &Value| definition["status"]["acceptedNames"].clone();
            if before.is_some_and(|before| names(&before) != names(&after)) {
                self.establish_others(&key, &after["spec"]["group"])?;
            }
        }
        Ok(after)
    }

    /// What the controllers of definitions do, each step as a write of its own.
    fn establish(&mut self, key: &Key, definition: &Value) -> Outcome<()> {
        let (now, group) = (self.now(), definition["spec"]["group"].clone());
        let definitions = self.definitions(&group);
        if let Some(mut next) = definition::next_step(definition, &definitions, &now) {
            let (api_version, name) = ("apiextensions.k8s.io/v1".into(), "kube-apiserver".into());
            let manager = Manager { name, apply: false, api_version, subresource: "status".into() };
            let found = self.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
            let Some(resource) = found.cloned() else { return Ok(()) };
            let write = Write { manager, node: &resource.schema, reset: &[&["f:spec"]], versions: None, now };
            update(definition, &mut next, &write, false);
            self.put(key.clone(), next)?;
            return Ok(());
        }
        if definition["metadata"]["deletionTimestamp"].is_string() {
            let storage = definition::instances(definition);
            crate::verbs::delete::end_all(self, &storage)?;
            return self.release_definition(&storage);
        }
        Ok(())
    }

    /// What follows for the other definitions of a group when one takes names or gives them up.
    fn establish_others(&mut self, key: &Key, group: &Value) -> Outcome<()> {
        for other in self.definitions(group) {
            let name = other["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if name != key.name {
                self.establish(&Key { name, ..key.clone() }, &other)?;
            }
        }
        Ok(())
    }

    /// Definitions of a group.
    fn definitions(&self, group: &Value) -> Vec<Arc<Value>> {
        let storage: Arc<str> = Arc::from(definition::STORAGE);
        let all = self.store.list(&storage, "").map(|(_, object)| object);
        all.filter(|definition| definition["spec"]["group"] == *group).collect()
    }

    /// A definition that ends goes with its last instance.
    fn release_definition(&mut self, storage: &Arc<str>) -> Outcome<()> {
        let Some((group, plural)) = storage.split_once('/') else { return Ok(()) };
        let name = format!("{plural}.{group}");
        let key = Key { resource: Arc::from(definition::STORAGE), namespace: String::new(), name };
        let Some(found) = self.store.get(&key) else { return Ok(()) };
        let ends = found["metadata"]["deletionTimestamp"].is_string();
        if !ends || self.store.list_stored(storage, "").next().is_some() {
            return Ok(());
        }
        let rest = definition::without_cleanup(&found, &self.now());
        if rest["metadata"]["finalizers"].is_null() {
            self.remove(&key)?;
        } else if rest["metadata"]["finalizers"] != found["metadata"]["finalizers"] {
            self.put(key, rest)?;
        }
        Ok(())
    }

    /// Deletes an object; the answer carries the revision of the delete.
    pub fn remove(&mut self, key: &Key) -> Outcome<Option<Arc<Value>>> {
        let before = self.store.get(key);
        let gone = self.store.delete(key).map_err(|error| Failure::unavailable(error.to_string()))?;
        self.allocations.follow(key, before.as_deref(), None);
        self.access.follow(key);
        self.follow_definitions(key);
        if &*key.resource == definition::STORAGE {
            // Others may take the names that are free now.
            let group = before.map(|before| before["spec"]["group"].clone()).unwrap_or_default();
            self.establish_others(key, &group)?;
        } else if self.registry.all().iter().any(|r| r.custom.is_some() && r.storage == key.resource) {
            self.release_definition(&key.resource)?;
        }
        Ok(gone)
    }

    fn follow_definitions(&mut self, key: &Key) {
        if &*key.resource == definition::STORAGE {
            self.rebuild_custom();
        }
    }

    /// Serves what the stored definitions say.
    pub fn rebuild_custom(&mut self) {
        let storage: Arc<str> = Arc::from(definition::STORAGE);
        let custom = self.store.list(&storage, "").flat_map(|(_, object)| definition::resources(&object)).collect();
        self.registry.set_custom(custom);
    }

    /// Rebuilds what follows from the stored objects, after the log was replayed, and goes on with what was under way:
    /// the steps of a definition are writes of their own.
    ///
    /// # Errors
    /// 503 if the log cannot be written.
    pub fn restore(&mut self) -> Outcome<()> {
        let services: Arc<str> = Arc::from("/services");
        for (key, object) in self.store.list(&services, "") {
            self.allocations.follow(key, None, Some(&object));
        }
        let events: Arc<str> = Arc::from(expiry::EVENTS);
        for (key, _) in self.store.list_stored(&events, "") {
            self.expiry.note(self.clock.now(), key, &self.store);
        }
        let definitions: Arc<str> = Arc::from(definition::STORAGE);
        let served = self
            .store
            .list(&definitions, "")
            .map(|(key, object)| (definition::instances(&object), self.store.made_at(key).unwrap_or_default()));
        for (instances, since) in served.collect::<Vec<_>>() {
            self.store.begin_at(&instances, since);
        }
        self.rebuild_custom();
        let keys: Vec<Arc<Key>> = self.store.list_stored(&definitions, "").map(|(key, _)| Arc::clone(key)).collect();
        for key in keys {
            // An earlier one may have changed it.
            if let Some(definition) = self.store.get(&key) {
                self.establish(&key, &definition)?;
            }
        }
        Ok(())
    }

    /// Makes what every cluster has, if it is not there.
    pub fn bootstrap(&mut self) -> Outcome<()> {
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let labels = json!({"kubernetes.io/metadata.name": name});
            let mut object =
                json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}});
            self.book("namespaces", &mut object);
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
            self.make(Key { resource: Arc::from("/namespaces"), namespace: String::new(), name: name.into() }, object)?;
        }
        for (key, object) in bootstrap::objects(&self.registry, &self.now()) {
            self.make(key, object)?;
        }
        let address = self.allocations.first_address();
        let port = json!({"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443});
        let mut service = json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"ports": [port], "clusterIP": address, "type": "ClusterIP", "sessionAffinity": "None",
                "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster"},
        });
        self.book("services", &mut service);
        service["spec"]["clusterIPs"] = json!([address]);
        service["spec"]["ipFamilies"] = json!(["IPv4"]);
        service["status"] = json!({"loadBalancer": {}});
        self.make(
            Key { resource: Arc::from("/services"), namespace: "default".into(), name: "kubernetes".into() },
            service,
        )
    }

    /// Books the server as the owner of a core object.
    fn book(&self, plural: &str, object: &mut Value) {
        if let Some(resource) = self.registry.find("", "v1", plural) {
            bootstrap::book(resource, object, self.now());
        }
    }

    /// Stores an object with an identity, unless one is there.
    pub fn make(&mut self, key: Key, mut object: Value) -> Outcome<()> {
        if self.store.stored(&key).is_none() {
            object["metadata"]["uid"] = json!(self.chance.uid());
            object["metadata"]["creationTimestamp"] = json!(self.now());
            self.put(key, object)?;
        }
        Ok(())
    }
}

/// Whether a value has more levels than `levels`.
pub(crate) fn is_deeper(value: &Value, levels: usize) -> bool {
    let within = |value: &Value| levels == 0 || is_deeper(value, levels - 1);
    match value {
        Value::Object(map) => map.values().any(within),
        Value::Array(list) => list.iter().any(within),
        _ => false,
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
