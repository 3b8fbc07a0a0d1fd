//! CustomResourceDefinitions: what they default to, and the resources that they add.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Value, json};

use super::definition_rules;
use crate::registry::{Custom, Resource, ScalePaths, Subresource, version_rank};
use crate::schema::builtin::{convert, types};
use crate::schema::rules::Rules;
use crate::schema::{Node, Type};
use crate::verbs::meta;

/// Where definitions are stored.
pub const STORAGE: &str = "apiextensions.k8s.io/customresourcedefinitions";

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// Names that follow from others, and no conversion.
pub(super) fn default(object: &mut Value) {
    let spec = &mut object["spec"];
    if !spec.is_object() {
        return;
    }
    let kind = spec["names"]["kind"].as_str().unwrap_or_default().to_owned();
    if spec["names"]["singular"].as_str().unwrap_or_default().is_empty() {
        spec["names"]["singular"] = json!(kind.to_lowercase());
    }
    if spec["names"]["listKind"].as_str().unwrap_or_default().is_empty() && !kind.is_empty() {
        spec["names"]["listKind"] = json!(format!("{kind}List"));
    }
    if spec["conversion"].is_null() {
        spec["conversion"] = json!({"strategy": "None"});
    }
}

/// A new definition is not accepted yet; the versions in which objects may be stored are known.
pub(super) fn begin(object: &mut Value) {
    object["status"] = json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": null});
    follow(object);
}

/// Keeps account of storage versions.
pub(super) fn follow(object: &mut Value) {
    let mut versions = object["spec"]["versions"].as_array().into_iter().flatten();
    let Some(name) = versions.find(|version| version["storage"] == true).map(|version| version["name"].clone()) else {
        return;
    };
    let mut stored = object["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.contains(&name) {
        stored.push(name);
    }
    object["status"]["storedVersions"] = json!(stored);
}

/// Whether a condition of the definition is true.
fn has(definition: &Value, kind: &str) -> bool {
    let mut conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Sets a condition; its time only moves with its status.
fn set_condition(definition: &mut Value, now: &str, kind: &str, status: &str, reason: &str, message: &str) {
    let mut conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut condition =
        json!({"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message});
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(old) => {
            if old["status"] == status {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
    definition["status"]["conditions"] = json!(conditions);
}

/// The next form of a definition that is not yet what its controllers make of it; the real server does each step in a
/// write of its own, and watchers see them all. `group` are all definitions of its group.
pub fn next_step(definition: &Value, group: &[std::sync::Arc<Value>], now: &str) -> Option<Value> {
    let mut next = definition.clone();
    if definition["metadata"]["deletionTimestamp"].is_string() {
        let pending = |condition: &Value| condition["reason"] == "InstanceDeletionPending";
        let mut conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
        if !conditions.any(pending) {
            return None;
        }
        let message = "CustomResource deletion is in progress";
        set_condition(&mut next, now, "Terminating", "True", "InstanceDeletionInProgress", message);
        return Some(next);
    }
    if let Some((status, reason, message)) = definition_rules::approval(definition) {
        set_condition(&mut next, now, "KubernetesAPIApprovalPolicyConformant", status, reason, &message);
        if next["status"] != definition["status"] {
            return Some(next);
        }
    }
    if definition["status"]["acceptedNames"] != definition["spec"]["names"] {
        accept_names(&mut next, group, now);
        return (next["status"] != definition["status"]).then_some(next);
    }
    if has(definition, "NamesAccepted") && !has(definition, "Established") {
        let message = "the initial names have been accepted";
        set_condition(&mut next, now, "Established", "True", "InitialNamesAccepted", message);
        return Some(next);
    }
    None
}

/// Takes the names that nobody else of the group has.
fn accept_names(next: &mut Value, group: &[std::sync::Arc<Value>], now: &str) {
    let (mut resources, mut kinds) = (Vec::new(), Vec::new());
    for other in group {
        let names = &other["status"]["acceptedNames"];
        resources.extend([names["plural"].clone(), names["singular"].clone()]);
        resources.extend(names["shortNames"].as_array().cloned().unwrap_or_default());
        kinds.extend([names["kind"].clone(), names["listKind"].clone()]);
    }
    let wanted = next["spec"]["names"].clone();
    let accepted = next["status"]["acceptedNames"].clone();
    let mut names = accepted.clone();
    let mut conflict: Option<(&str, String)> = None;
    let mut take = |name: &str, taken: &[Value], reason: &'static str| {
        let word = wanted[name].as_str().unwrap_or_default();
        if word != accepted[name].as_str().unwrap_or_default() && taken.contains(&json!(word)) {
            conflict = Some((reason, format!("\"{word}\" is already in use")));
        } else if wanted[name].is_string() {
            names[name] = wanted[name].clone();
        }
    };
    take("plural", &resources, "PluralConflict");
    take("singular", &resources, "SingularConflict");
    take("kind", &kinds, "KindConflict");
    take("listKind", &kinds, "ListKindConflict");
    let own = accepted["shortNames"].as_array().cloned().unwrap_or_default();
    let short = wanted["shortNames"].as_array().cloned().unwrap_or_default();
    let used: Vec<String> = short
        .iter()
        .filter(|name| !own.contains(name) && resources.contains(name))
        .map(|name| format!("{name} is already in use"))
        .collect();
    // Kinds are looked at last, so their conflict is the one that is told.
    match (&used[..], &conflict) {
        ([], _) => put(&mut names, "shortNames", &wanted["shortNames"]),
        ([one], None) => conflict = Some(("ShortNamesConflict", one.clone())),
        (all, None) => conflict = Some(("ShortNamesConflict", format!("[{}]", all.join(", ")))),
        _ => {}
    }
    put(&mut names, "categories", &wanted["categories"]);
    next["status"]["acceptedNames"] = names;
    match conflict {
        None => set_condition(next, now, "NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => set_condition(next, now, "NamesAccepted", "False", reason, &message),
    }
    let established = next["status"]["conditions"].as_array().into_iter().flatten();
    let known = established.filter(|condition| condition["type"] == "Established").count() > 0;
    if !has(next, "Established") && has(next, "NamesAccepted") {
        let message = "the initial names have been accepted";
        set_condition(next, now, "Established", "False", "Installing", message);
    } else if !known {
        set_condition(next, now, "Established", "False", "NotAccepted", "not all names are accepted");
    }
}

fn put(holder: &mut Value, name: &str, value: &Value) {
    let Some(map) = holder.as_object_mut() else { return };
    match value {
        Value::Null => map.remove(name),
        value => map.insert(name.into(), value.clone()),
    };
}

/// The finalizer under which instances are deleted.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A definition that is to go: it goes when its instances are gone.
pub fn end(definition: &Value, now: &str) -> Value {
    let mut ending = definition.clone();
    ending["metadata"]["deletionTimestamp"] = json!(now);
    let mut finalizers = ending["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
        finalizers.push(json!(CLEANUP));
    }
    ending["metadata"]["finalizers"] = json!(finalizers);
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(&mut ending, now, "Terminating", "True", "InstanceDeletionPending", message);
    ending
}

/// What is left of an ending definition without instances, if anything still holds it.
pub fn without_cleanup(definition: &Value, now: &str) -> Value {
    let mut rest = definition.clone();
    let finalizers = rest["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let finalizers: Vec<Value> = finalizers.into_iter().filter(|finalizer| finalizer != CLEANUP).collect();
    put(&mut rest["metadata"], "finalizers", &if finalizers.is_empty() { Value::Null } else { json!(finalizers) });
    set_condition(&mut rest, now, "Terminating", "False", "InstanceDeletionCompleted", "removed all instances");
    rest
}

/// Where the instances of a definition are stored.
pub fn instances(definition: &Value) -> std::sync::Arc<str> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Arc::from(format!("{}/{}", text(&definition["spec"]["group"]), text(&definition["spec"]["names"]["plural"])))
}

/// The resources, one for each served version.
pub fn resources(definition: &Value) -> Vec<Resource> {
    if !has(definition, "Established") {
        return Vec::new();
    }
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let names = &definition["status"]["acceptedNames"];
    let versions: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    let storage =
        versions.iter().find(|version| version["storage"] == true).map(|v| text(&v["name"])).unwrap_or_default();
    let node = |version: &&Value| (text(&version["name"]), Arc::new(schema(&version["schema"]["openAPIV3Schema"])));
    let schemas: Arc<BTreeMap<String, Arc<Node>>> = Arc::new(versions.iter().map(node).collect());
    let mut served: Vec<&&Value> = versions.iter().filter(|version| version["served"] == true).collect();
    served.sort_by_key(|version| version_rank(version["name"].as_str().unwrap_or_default()));
    served
        .into_iter()
        .map(|version| {
            let (group, plural, kind) = (text(&spec["group"]), text(&names["plural"]), text(&names["kind"]));
            let custom = custom(definition, version, Arc::clone(&schemas));
            Resource {
                version: text(&version["name"]),
                singular: text(&names["singular"]),
                list_kind: text(&names["listKind"]),
                namespaced: spec["scope"] == "Namespaced",
                verbs: VERBS.to_vec(),
                short_names: list(&names["shortNames"]),
                categories: list(&names["categories"]),
                subresources: subresources(&custom, &kind),
                schema: schemas.get(version["name"].as_str().unwrap_or_default()).cloned().unwrap_or_default(),
                storage: Arc::from(format!("{group}/{plural}")),
                storage_version: storage.clone(),
                custom: Some(Arc::new(custom)),
                group,
                plural,
                kind,
            }
        })
        .collect()
}

fn custom(definition: &Value, version: &Value, schemas: Arc<BTreeMap<String, Arc<Node>>>) -> Custom {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let sub = &version["subresources"];
    let scale = sub.get("scale").filter(|scale| scale.is_object()).map(|scale| ScalePaths {
        spec: text(&scale["specReplicasPath"]).unwrap_or_default(),
        status: text(&scale["statusReplicasPath"]).unwrap_or_default(),
        selector: text(&scale["labelSelectorPath"]),
    });
    let selectable = version["selectableFields"].as_array().into_iter().flatten();
    Custom {
        status: sub["status"].is_object(),
        scale,
        columns: version
            .get("additionalPrinterColumns")
            .filter(|columns| columns.as_array().is_some_and(|c| !c.is_empty()))
            .cloned(),
        selectable: selectable
            .filter_map(|field| text(&field["jsonPath"]))
            .map(|path| path.trim_start_matches('.').to_owned())
            .collect(),
        definition: meta(definition, "name").to_owned(),
        identity: identity(definition),
        schemas,
        openapi: version["schema"]["openAPIV3Schema"].clone(),
        rules: Rules::compile(&version["schema"]["openAPIV3Schema"]),
        warning: deprecation(definition, version),
        terminating: definition["metadata"]["deletionTimestamp"].is_string(),
    }
}

fn identity(definition: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in [&definition["metadata"]["uid"], &definition["spec"], &definition["status"]["acceptedNames"]] {
        part.to_string().hash(&mut hasher);
    }
    hasher.finish()
}

/// What a deprecated version warns about: its own words, or which version to use.
fn deprecation(definition: &Value, version: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    if let Some(own) = version["deprecationWarning"].as_str() {
        return Some(own.to_owned());
    }
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, kind, name) = (text(&spec["group"]), text(&spec["names"]["kind"]), text(&version["name"]));
    let mut better: Vec<String> = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|other| other["served"] == true && other["deprecated"] != true)
        .map(|other| text(&other["name"]))
        .filter(|other| version_rank(other) < version_rank(&name))
        .collect();
    better.sort_by_key(|version| version_rank(version));
    let instead = better.first().map(|better| format!("; use {group}/{better} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{instead}"))
}

fn subresources(custom: &Custom, kind: &str) -> Vec<Subresource> {
    let verbs = vec!["get", "patch", "update"];
    let mut all = Vec::new();
    if custom.status {
        all.push(Subresource { name: "status".into(), verbs: verbs.clone(), kind: kind.into(), group_version: None });
    }
    if custom.scale.is_some() {
        let group_version = Some(("autoscaling".into(), "v1".into()));
        all.push(Subresource { name: "scale".into(), verbs, kind: "Scale".into(), group_version });
    }
    all
}

/// The structural schema, with the parts that every object has.
fn schema(openapi: &Value) -> Node {
    let mut node = convert(openapi);
    node.type_ = Type::Object;
    let reference = |name: &str| Node { reference: Some(Arc::from(name)), ..Node::default() };
    node.fields.insert("metadata".into(), reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
    for name in ["apiVersion", "kind"] {
        node.fields.insert(name.into(), Node { type_: Type::String, ..Node::default() });
    }
    debug_assert!(types().contains_key("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
    node
}
