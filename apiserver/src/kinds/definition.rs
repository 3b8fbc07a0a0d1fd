//! CustomResourceDefinitions: what they default to, and the resources that they add.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::registry::{Custom, Resource, ScalePaths, Subresource, version_rank};
use crate::schema::builtin::{convert, types};
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
    if spec["names"]["listKind"].as_str().unwrap_or_default().is_empty() {
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
    let stored =
        object["spec"]["versions"].as_array().into_iter().flatten().filter(|version| version["storage"] == true);
    let stored: Vec<Value> = stored.map(|version| version["name"].clone()).collect();
    let mut versions = object["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    let fresh: Vec<Value> = stored.into_iter().filter(|version| !versions.contains(version)).collect();
    versions.extend(fresh);
    object["status"]["storedVersions"] = json!(versions);
}

/// Whether a condition of the definition is true.
fn has(definition: &Value, kind: &str) -> bool {
    let mut conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// The next form of a definition that is not yet what its controllers make of it: first its names are accepted, then
/// it is established. The real server does this in two writes, and watchers see both.
pub fn next_step(definition: &Value, now: &str) -> Option<Value> {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message});
    let accepted = condition("NamesAccepted", "True", "NoConflicts", "no conflicts found");
    let mut next = definition.clone();
    if !has(definition, "NamesAccepted") || definition["status"]["acceptedNames"] != definition["spec"]["names"] {
        next["status"]["acceptedNames"] = definition["spec"]["names"].clone();
        if !has(definition, "NamesAccepted") {
            let installing = condition("Established", "False", "Installing", "the initial names have been accepted");
            next["status"]["conditions"] = json!([accepted, installing]);
        }
    } else if !has(definition, "Established") {
        let message = "the initial names have been accepted";
        let established = condition("Established", "True", "InitialNamesAccepted", message);
        next["status"]["conditions"] = json!([accepted, established]);
    } else {
        return None;
    }
    Some(next)
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
    let mut served: Vec<&&Value> = versions.iter().filter(|version| version["served"] == true).collect();
    served.sort_by_key(|version| version_rank(version["name"].as_str().unwrap_or_default()));
    served
        .into_iter()
        .map(|version| {
            let (group, plural, kind) = (text(&spec["group"]), text(&names["plural"]), text(&names["kind"]));
            let custom = custom(definition, version);
            Resource {
                version: text(&version["name"]),
                singular: text(&names["singular"]),
                list_kind: text(&names["listKind"]),
                namespaced: spec["scope"] == "Namespaced",
                verbs: VERBS.to_vec(),
                short_names: list(&names["shortNames"]),
                categories: list(&names["categories"]),
                subresources: subresources(&custom, &kind),
                schema: Arc::new(schema(&version["schema"]["openAPIV3Schema"])),
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

fn custom(definition: &Value, version: &Value) -> Custom {
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
        openapi: version["schema"]["openAPIV3Schema"].clone(),
        terminating: definition["metadata"]["deletionTimestamp"].is_string(),
    }
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
