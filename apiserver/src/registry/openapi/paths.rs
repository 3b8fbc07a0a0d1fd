//! Operations on resources, with the query parameters by which clients know what the server can.

use serde_json::{Map, Value, json};

use super::{REFERENCE, place};
use crate::registry::Resource;

const PATCH: &str = "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.";

/// Paths of a resource, each with its operations.
pub(super) fn add(paths: &mut Map<String, Value>, resource: &Resource, schema: &str) {
    let scope = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
    let collection = format!("/{}/{scope}{}", place(&resource.group, &resource.version), resource.plural);
    let content = |types: &[&str], schema: Value| -> Value {
        let content: Map<String, Value> =
            types.iter().map(|name| ((*name).to_owned(), json!({"schema": schema}))).collect();
        json!({"content": content})
    };
    let body = json!({"$ref": format!("{REFERENCE}{schema}")});
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let query =
        |name: &str, type_: &str| json!({"name": name, "in": "query", "schema": {"type": type_, "uniqueItems": true}});
    let operation = |action: &str, parameters: &[&str], request: bool| {
        let mut answer = content(&["application/json", "application/yaml"], body.clone());
        answer["description"] = json!("OK");
        let mut operation = json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind,
            "responses": {"200": answer}});
        let parameters: Vec<Value> = parameters.iter().map(|name| query(name, "string")).collect();
        if !parameters.is_empty() {
            operation["parameters"] = json!(parameters);
        }
        if request {
            operation["requestBody"] = content(&["application/json", "application/yaml"], body.clone());
        }
        operation
    };
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    let (mut all, mut one) = (Map::new(), Map::new());
    let mut add = |verb: &str, to: bool, method: &str, made: Value| {
        if resource.allows(verb) {
            if to { &mut all } else { &mut one }.insert(method.into(), made);
        }
    };
    add("list", true, "get", operation("list", &["labelSelector", "fieldSelector", "limit", "continue"], false));
    add("create", true, "post", operation("post", &write, true));
    add("get", false, "get", operation("get", &[], false));
    add("update", false, "put", operation("put", &write, true));
    add("delete", false, "delete", operation("delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"], false));
    let mut patch = operation("patch", &write, false);
    // Strategic merge patch only if it is made of the schemas here that clients shall compute it.
    let mut forms = vec!["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
    if resource.custom.is_none() {
        forms.push("application/strategic-merge-patch+json");
    }
    patch["requestBody"] = content(&forms, json!({"description": PATCH, "type": "object"}));
    if let Some(parameters) = patch["parameters"].as_array_mut() {
        parameters.push(query("force", "boolean"));
    }
    add("patch", false, "patch", patch);
    if let Some(list) = all.get("get").filter(|_| resource.namespaced) {
        // Of all namespaces: kubectl 1.27 looks only there for the kind of a resource.
        let everywhere = format!("/{}/{}", place(&resource.group, &resource.version), resource.plural);
        paths.insert(everywhere, json!({"get": list}));
    }
    paths.insert(format!("{collection}/{{name}}"), Value::Object(one));
    paths.insert(collection, Value::Object(all));
}
