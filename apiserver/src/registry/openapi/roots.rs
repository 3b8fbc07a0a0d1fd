//! Documents of what is no resource: the version, and where resources are to be found.

use serde_json::{Map, Value, json};

use super::schemas::{META, complete};
use super::{REFERENCE, TITLE, Text, VERSION};
use crate::registry::Registry;

/// Where such documents are, as in paths. Groups of definitions have none.
pub(super) fn places(registry: &Registry) -> Vec<String> {
    let builtin = registry.all().iter().filter(|resource| resource.custom.is_none() && !resource.group.is_empty());
    let groups = builtin.map(|resource| format!("apis/{}", resource.group));
    let mut places: Vec<String> = ["api", "apis", "version"].into_iter().map(str::to_owned).chain(groups).collect();
    places.sort();
    places.dedup();
    places
}

/// The document of one of them.
pub(super) fn write(registry: &Registry, place: &str) -> Option<Text> {
    if !places(registry).iter().any(|known| known == place) {
        return None;
    }
    let plain: &[&str] = &["application/json"];
    let encoded: &[&str] = &["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
    let (tag, action, what, kind, forms) = match place.strip_prefix("apis/") {
        Some(group) => {
            let tag = camel(group.trim_end_matches(".k8s.io"), false);
            let action = format!("get{}APIGroup", camel(group.trim_end_matches(".k8s.io"), true));
            (tag, action, "get information of a group", format!("{META}APIGroup"), encoded)
        }
        None if place == "version" => {
            let what = "get the version information for this server";
            let kind = "io.k8s.apimachinery.pkg.version.Info".to_owned();
            ("version".into(), "getCodeVersion".into(), what, kind, plain)
        }
        None => {
            let (tag, action, kind) = match place {
                "api" => ("core", "getCoreAPIVersions", "APIVersions"),
                _ => ("apis", "getAPIVersions", "APIGroupList"),
            };
            (tag.into(), action.into(), "get available API versions", format!("{META}{kind}"), encoded)
        }
    };
    let schema = json!({"schema": {"$ref": format!("{REFERENCE}{kind}")}});
    let content: Map<String, Value> = forms.iter().map(|form| ((*form).to_owned(), schema.clone())).collect();
    let get = json!({"tags": [tag], "description": what, "operationId": action, "responses": {
        "200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}}});
    let mut schemas = Map::new();
    complete(&mut schemas, vec![kind]);
    let paths = Map::from_iter([(format!("/{place}/"), json!({"get": get}))]);
    Some(Text { title: TITLE, version: VERSION, paths, schemas })
}

/// `rbac.authorization` in one word.
fn camel(group: &str, first: bool) -> String {
    let parts = group.split('.').enumerate();
    let word = |(number, part): (usize, &str)| {
        let (head, rest) = part.split_at(part.len().min(1));
        if number > 0 || first { format!("{}{rest}", head.to_uppercase()) } else { part.to_owned() }
    };
    parts.map(word).collect()
}
