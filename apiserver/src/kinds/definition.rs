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

/// Accepts the names and establishes the definition, as two controllers of the real server do.
pub(super) fn establish(object: &mut Value) {
    let stored =
        object["spec"]["versions"].as_array().into_iter().flatten().filter(|version| version["storage"] == true);
    let stored: Vec<Value> = stored.map(|version| version["name"].clone()).collect();
    let mut versions = object["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    versions.extend(stored.into_iter().filter(|version| !versions.contains(version)).collect::<Vec<_>>());
    object["status"]["storedVersions"] = json!(versions);
    object["status"]["acceptedNames"] = object["spec"]["names"].clone();
    if object["status"]["conditions"].is_null() {
        let now = object["metadata"]["creationTimestamp"].clone();
        object["status"]["conditions"] = json!([
            {"type": "NamesAccepted", "status": "True", "lastTransitionTime": now, "reason": "NoConflicts",
                "message": "no conflicts found"},
            {"type": "Established", "status": "True", "lastTransitionTime": now, "reason": "InitialNamesAccepted",
                "message": "the initial names have been accepted"},
        ]);
    }
}

/// The resources, one for each served version.
pub fn resources(definition: &Value) -> Vec<Resource> {
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
