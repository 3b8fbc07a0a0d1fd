//! `metadata.managedFields`: who owns which fields, and what happens to it when somebody writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::merge::{merge, prune};
use super::set::{Set, show};
use super::typed::{Difference, compare, fields, validate};
use crate::failure::{Failure, Outcome};
use crate::schema::Node;

/// Update entries beyond this many are folded into one.
const UPDATES_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";
/// What kubectl has applied by itself, as it keeps it in the object, and how it calls itself when the server applies.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const KUBECTL: &str = "kubectl";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields that nobody owns: identity and what the server keeps.
const UNOWNED: [&[&str]; 11] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:clusterName"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

/// Who wrote, with what operation, in which version, through which subresource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// Its name.
    pub name: String,
    /// Whether it applies; else it updates.
    pub apply: bool,
    /// Version of the request.
    pub api_version: String,
    /// Subresource, empty for the object itself.
    pub subresource: String,
}

#[derive(Clone, Debug)]
struct Owned {
    set: Set,
    time: Option<String>,
}

/// A write as the field manager sees it.
pub struct Write<'a> {
    /// Who writes.
    pub manager: Manager,
    /// Schema of the object.
    pub node: &'a Node,
    /// Top-level fields (or paths) that this endpoint does not write.
    pub reset: &'a [&'a [&'a str]],
    /// Schemas of all versions of a custom resource; entries of other versions are about fields of theirs.
    pub versions: Option<&'a BTreeMap<String, Arc<Node>>>,
    /// Now, for entries that change.
    pub now: String,
}

/// All owners of one object.
#[derive(Clone, Debug, Default)]
pub struct Managed(BTreeMap<Manager, Owned>);

impl Managed {
    /// Reads `metadata.managedFields`; entries that cannot be read count as none.
    pub fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array();
        Self(entries.into_iter().flatten().filter_map(read_entry).collect())
    }

    /// Writes them into an object, in the order of the real server: appliers first, then by time.
    pub fn store(&self, object: &mut Value) {
        let mut entries: Vec<(&Manager, &Owned)> = self.0.iter().collect();
        entries.sort_by(|(a, x), (b, y)| (!a.apply, &x.time, &a.name).cmp(&(!b.apply, &y.time, &b.name)));
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            let list = entries.into_iter().map(|(manager, owned)| write_entry(manager, owned)).collect();
            metadata.insert("managedFields".into(), Value::Array(list));
        }
    }

    fn drop_removed(&mut self, removed: &Set) {
        for owned in self.0.values_mut() {
            owned.set = owned.set.difference(removed);
        }
        self.0.retain(|_, owned| !owned.set.is_empty());
    }

    fn fold_ancient(&mut self) {
        let mut updates: Vec<(Option<String>, Manager)> = self
            .0
            .iter()
            .filter(|(manager, _)| !manager.apply && manager.subresource.is_empty())
            .map(|(manager, owned)| (owned.time.clone(), manager.clone()))
            .collect();
        updates.sort();
        let excess = updates.len().saturating_sub(UPDATES_MAX);
        if excess == 0 {
            return;
        }
        for (time, manager) in updates.into_iter().take(excess + 1) {
            let Some(owned) = self.0.remove(&manager) else { continue };
            let ancient = Manager { name: ANCIENT.into(), ..manager };
            let folded = self.0.entry(ancient).or_insert(Owned { set: Set::default(), time: None });
            folded.set.add(&owned.set);
            folded.time = time;
        }
    }
}

fn read_entry(entry: &Value) -> Option<(Manager, Owned)> {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let manager = Manager {
        name: text("manager"),
        apply: match entry["operation"].as_str()? {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        },
        api_version: text("apiVersion"),
        subresource: text("subresource"),
    };
    let time = entry["time"].as_str().map(str::to_owned);
    Some((manager, Owned { set: Set::from_json(&entry["fieldsV1"]), time }))
}

fn write_entry(manager: &Manager, owned: &Owned) -> Value {
    let mut entry = json!({
        "manager": manager.name, "operation": if manager.apply { "Apply" } else { "Update" },
        "apiVersion": manager.api_version, "fieldsType": "FieldsV1", "fieldsV1": owned.set.to_json(),
    });
    if let Some(time) = &owned.time {
        entry["time"] = json!(time);
    }
    if !manager.subresource.is_empty() {
        entry["subresource"] = json!(manager.subresource);
    }
    entry
}

fn strip(set: &mut Set, reset: &[&[&str]]) {
    for path in UNOWNED.iter().chain(reset) {
        set.cut(path);
    }
    // A bare `metadata` holds nothing that anyone owns.
    if let Some(metadata) = set.children.get_mut("f:metadata") {
        metadata.member = false;
        if metadata.is_empty() {
            set.children.remove("f:metadata");
        }
    }
}

/// Whether the writer asks to forget all owners: an empty list, or a list of one empty entry.
fn asks_reset(object: &Value) -> bool {
    match object["metadata"]["managedFields"].as_array() {
        Some(list) => {
            list.is_empty() || list.iter().all(|entry| entry.as_object().is_some_and(serde_json::Map::is_empty))
        }
        None => false,
    }
}

/// Books a create or update: the writer owns what it changed, everybody loses what it removed.
///
/// `live` is the object before (its bare zero form on create).
pub fn update(live: &Value, new: &mut Value, write: &Write<'_>, create: bool) {
    let part = !write.manager.subresource.is_empty();
    if asks_reset(new) && !part {
        Managed::default().store(new);
        return;
    }
    // What the client sends back decides, so that managers can be migrated; who sends none, or is about a part of the
    // object only, keeps the stored ones.
    let sent = if part { Managed::default() } else { Managed::of(new) };
    let mut managed = if sent.0.is_empty() { Managed::of(live) } else { sent };
    if managed.0.is_empty() && !create {
        managed.store(new);
        return;
    }
    let mut difference = compare(&without_managed(live), &without_managed(new), write.node);
    for set in [&mut difference.added, &mut difference.modified, &mut difference.removed] {
        strip(set, write.reset);
    }
    let Ok(others) = others(&mut managed, live, new, write) else {
        // The real server forgets all owners when it cannot read the object as one of them wrote it.
        Managed::default().store(new);
        return;
    };
    let taken = difference.taken();
    for (manager, owned) in &mut managed.0 {
        if *manager != write.manager {
            let theirs = others.get(&manager.api_version).unwrap_or(&difference);
            owned.set = owned.set.difference(&theirs.taken()).difference(&theirs.removed);
        }
    }
    managed.drop_removed(&difference.removed);
    if !taken.is_empty() {
        let own = managed.0.entry(write.manager.clone()).or_insert(Owned { set: Set::default(), time: None });
        own.set.add(&taken);
        // What is written through its scale, an object books without a time.
        own.time = (write.manager.subresource != "scale").then(|| write.now.clone());
    }
    managed.fold_ancient();
    managed.store(new);
}

/// How the objects differ as other versions see them in which something is owned; owners of versions that are gone own
/// nothing any more.
fn others(
    managed: &mut Managed,
    live: &Value,
    new: &Value,
    write: &Write<'_>,
) -> Result<BTreeMap<String, Difference>, String> {
    let mut differences = BTreeMap::new();
    let Some(versions) = write.versions else { return Ok(differences) };
    let version = |manager: &Manager| manager.api_version.rsplit('/').next().unwrap_or_default().to_owned();
    managed.0.retain(|manager, _| versions.contains_key(&version(manager)));
    for manager in managed.0.keys().filter(|manager| manager.api_version != write.manager.api_version) {
        if differences.contains_key(&manager.api_version) {
            continue;
        }
        let Some(node) = versions.get(&version(manager)) else { continue };
        let (live, new) = (without_managed(live), without_managed(new));
        validate(&live, node).and_then(|()| validate(&new, node))?;
        differences.insert(manager.api_version.clone(), compare(&live, &new, node));
    }
    Ok(differences)
}

/// The owners of one field of an object, as owners of a field of another form of it.
pub fn seen_as(object: &Value, path: &[String], as_path: &[String], api_version: &str) -> Managed {
    let owners = Managed::of(object).0.into_iter().filter(|(_, owned)| owned.set.has(path));
    let renamed = owners.map(|(manager, owned)| {
        let mut set = Set::default();
        set.insert(as_path);
        (Manager { api_version: api_version.to_owned(), ..manager }, Owned { set, time: owned.time })
    });
    Managed(renamed.collect())
}

/// Books in an object what became of the owners of one of its fields in another form of it.
pub fn carry_back(object: &mut Value, form: &Value, path: &[String], api_version: &str) {
    let mut owners = Managed::of(object);
    let mut others = Managed::of(form).0;
    let alike = |a: &Manager, b: &Manager| (&a.name, a.apply, &a.subresource) == (&b.name, b.apply, &b.subresource);
    for (manager, owned) in owners.0.iter_mut().filter(|(_, owned)| owned.set.has(path)) {
        let kept = others.keys().find(|other| alike(other, manager)).cloned();
        match kept {
            Some(other) => drop(others.remove(&other)),
            None => {
                let mut lost = Set::default();
                lost.insert(path);
                owned.set = owned.set.difference(&lost);
            }
        }
    }
    owners.0.retain(|_, owned| !owned.set.is_empty());
    for (manager, owned) in others.into_iter().filter(|(_, owned)| !owned.set.is_empty()) {
        let mut set = Set::default();
        set.insert(path);
        owners.0.insert(Manager { api_version: api_version.to_owned(), ..manager }, Owned { set, ..owned });
    }
    owners.store(object);
}

/// Whether somebody owns a field.
pub fn is_owned(object: &Value, path: &[String]) -> bool {
    Managed::of(object).0.values().any(|owned| owned.set.has(path))
}

/// Applies a configuration: the merged object with its owners booked, or the conflicts.
pub fn apply(live: &Value, config: &Value, write: &Write<'_>, force: bool) -> Outcome<Value> {
    let mut managed = Managed::of(live);
    let exists = live["metadata"]["uid"].is_string();
    if managed.0.is_empty() && exists {
        let before = Manager { name: BEFORE_FIRST_APPLY.into(), apply: false, ..write.manager.clone() };
        let mut set = compare(&json!({}), &without_managed(live), write.node).added;
        strip(&mut set, &[]);
        managed.0.insert(before, Owned { set, time: Some(write.now.clone()) });
    }
    let live_object = without_managed(live);
    let mut own = fields(config, write.node);
    strip(&mut own, write.reset);
    let mut merged = merge(&live_object, &without_reset(config, write.reset), write.node);
    let mut kept = own.clone();
    let mut previous = Set::default();
    for (manager, owned) in &managed.0 {
        if *manager == write.manager { previous = owned.set.clone() } else { kept.add(&owned.set) }
    }
    prune(&mut merged, &previous.difference(&own), &kept, write.node);

    let others = others(&mut managed, &live_object, &merged, write).map_err(Failure::plain)?;
    let difference = compare(&live_object, &merged, write.node);
    let mut conflicts = Vec::new();
    for (manager, owned) in &mut managed.0 {
        let overlap = owned.set.intersection(&others.get(&manager.api_version).unwrap_or(&difference).taken());
        if *manager == write.manager || overlap.is_empty() {
            continue;
        }
        if force {
            owned.set = owned.set.difference(&overlap);
        } else {
            conflicts.push((manager.clone(), overlap));
        }
    }
    if !conflicts.is_empty() {
        let allowed = last_applied(live, write).unwrap_or_default();
        conflicts.iter_mut().for_each(|(_, set)| *set = set.difference(&allowed));
        conflicts.retain(|(_, set)| !set.is_empty());
        return if conflicts.is_empty() { apply(live, config, write, true) } else { Err(conflict(&conflicts)) };
    }
    tell_last_applied(&mut merged, config, write);
    let changed = merged != live_object;
    let old_time = managed.0.get(&write.manager).and_then(|owned| owned.time.clone());
    let time = if changed { Some(write.now.clone()) } else { old_time };
    managed.0.insert(write.manager.clone(), Owned { set: own, time });
    managed.drop_removed(&difference.removed);
    managed.store(&mut merged);
    Ok(merged)
}

/// Fields that kubectl has applied by itself before it let the server apply and that are still so: it may change those
/// without a conflict, which is how objects go over from the one way to the other.
fn last_applied(live: &Value, write: &Write<'_>) -> Option<Set> {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|_| write.manager.name == KUBECTL)?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if applied["apiVersion"] != live["apiVersion"] {
        return None;
    }
    let since = compare(&applied, live, write.node);
    Some(fields(&applied, write.node).difference(&since.taken()).difference(&since.removed))
}

/// Who owns a path, as entries of another version that have the replicas of a scale instead.
pub fn owners_of(object: &Value, path: &[String], api_version: &str) -> Vec<Value> {
    let mut replicas = Set::default();
    replicas.insert(&["f:spec".to_owned(), "f:replicas".to_owned()]);
    let managed = Managed::of(object).0.into_iter().filter(|(_, owned)| owned.set.has(path));
    let seen = managed.map(|(manager, owned)| {
        let manager = Manager { api_version: api_version.to_owned(), ..manager };
        write_entry(&manager, &Owned { set: replicas.clone(), time: owned.time })
    });
    seen.collect()
}

/// Takes a path from everybody who owns it.
pub fn disown(object: &mut Value, path: &[&str]) {
    let mut managed = Managed::of(object);
    managed.0.values_mut().for_each(|owned| owned.set.cut(path));
    managed.0.retain(|_, owned| !owned.set.is_empty());
    managed.store(object);
}

/// Who goes back to applying by itself finds there what the server has applied for kubectl.
fn tell_last_applied(merged: &mut Value, config: &Value, write: &Write<'_>) {
    if write.manager.name != KUBECTL {
        return;
    }
    let Some(told) = merged.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(LAST_APPLIED)) else {
        return;
    };
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    *told = json!(format!("{config}\n"));
}

fn without_managed(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

fn without_reset(config: &Value, reset: &[&[&str]]) -> Value {
    let mut config = config.clone();
    for path in reset {
        let mut at = &mut config;
        for (depth, element) in path.iter().enumerate() {
            let Some(map) = at.as_object_mut() else { break };
            let name = element.trim_start_matches("f:");
            if depth + 1 == path.len() {
                map.remove(name);
                break;
            }
            let Some(next) = map.get_mut(name) else { break };
            at = next;
        }
    }
    config
}

fn conflict(conflicts: &[(Manager, Set)]) -> Failure {
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for (manager, set) in conflicts {
        let mut name = format!("{:?}", manager.name);
        if !manager.subresource.is_empty() {
            name.push_str(&format!(" with subresource {:?}", manager.subresource));
        }
        if !manager.apply {
            name.push_str(&format!(" using {}", manager.api_version));
        }
        lines.push(format!("conflicts with {name}:"));
        for path in set.paths() {
            let field = show(&path);
            lines.push(format!("- {field}"));
            causes.push(
                json!({"reason": "FieldManagerConflict", "message": format!("conflict with {name}"), "field": field}),
            );
        }
    }
    let message = match &causes[..] {
        [only] => {
            let text = |name: &str| only[name].as_str().unwrap_or_default().to_owned();
            format!("Apply failed with 1 conflict: {}: {}", text("message"), text("field"))
        }
        all => format!("Apply failed with {} conflicts: {}", all.len(), lines.join("\n")),
    };
    Failure::apply_conflict(message, causes)
}
