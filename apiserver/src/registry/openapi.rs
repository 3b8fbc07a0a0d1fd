//! OpenAPI v3: an index, and one document for each group-version. Clients look for the PATCH of a kind and its query
//! parameters (does the server validate fields, does it know dry runs) and explain a kind by its schema.
//!
//! No operation names strategic merge patch as a body: clients then compute such patches with the types they were
//! built with, which know every merge key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Registry, Resource};
use crate::schema::{ListType, Node, Type, builtin};

/// Version of Kubernetes that the documents are about.
const VERSION: &str = "1.34";
const REFERENCE: &str = "#/components/schemas/";

/// How protobuf is asked for, and how it is called in the answer.
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `GET /openapi/v2`: its content type and text, for what a client accepts. It names no types: kubectl before 1.28 wants a
/// document before it applies anything, but what is not in there it knows itself or reads in v3.
pub fn v2(accept: &str) -> (&'static str, Bytes) {
    let title = "Kubernetes";
    if !accept.contains(PROTOBUF_ASKED) {
        let info = json!({"title": title, "version": VERSION});
        let document = json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}});
        return ("application/json", Bytes::from(document.to_string()));
    }
    // `openapi.v2.Document`: `swagger` is field 1, `info` 2, `paths` 8, `definitions` 9; `Info`: `title` 1, `version` 2.
    let field = |number: u8, content: &[u8]| {
        let mut bytes = vec![number << 3 | 2];
        // All are shorter than what needs a second byte of length.
        bytes.push(u8::try_from(content.len()).unwrap_or(0x7f));
        bytes.extend_from_slice(content);
        bytes
    };
    let info = [field(1, title.as_bytes()), field(2, VERSION.as_bytes())].concat();
    (PROTOBUF, Bytes::from([field(1, b"2.0"), field(2, &info), field(8, b""), field(9, b"")].concat()))
}

/// A document as it is sent.
#[derive(Clone, Debug)]
pub struct Document {
    /// Changes with the text: clients keep a document of a known hash.
    pub hash: Arc<str>,
    /// JSON.
    pub text: Bytes,
}

/// `api/v1` or `apis/GROUP/VERSION`, as in paths.
fn place(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn group_versions(registry: &Registry) -> BTreeSet<(String, String)> {
    registry.all().iter().map(|resource| (resource.group.clone(), resource.version.clone())).collect()
}

/// `GET /openapi/v3`.
pub fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, version) in group_versions(registry) {
        if let Some(document) = document(registry, &group, &version) {
            let place = place(&group, &version);
            let url = format!("/openapi/v3/{place}?hash={}", document.hash);
            paths.insert(place, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// The document of a group-version, if it is served.
pub fn document(registry: &Registry, group: &str, version: &str) -> Option<Document> {
    // Built-in documents never change and are large; those of definitions come and go and are small.
    static BUILTIN: Mutex<BTreeMap<(String, String), Document>> = Mutex::new(BTreeMap::new());
    let custom = registry.of_version(group, version).any(|resource| resource.custom.is_some());
    let key = (group.to_owned(), version.to_owned());
    let mut known = BUILTIN.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(document), false) = (known.get(&key), custom) {
        return Some(document.clone());
    }
    let text = Bytes::from(write(registry, group, version)?.to_string());
    let digest = ring::digest::digest(&ring::digest::SHA512, &text);
    let hash = digest.as_ref().iter().fold(String::new(), |mut hash, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hash, "{byte:02X}");
        hash
    });
    let document = Document { hash: Arc::from(hash), text };
    if !custom {
        known.insert(key, document.clone());
    }
    Some(document)
}

fn write(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    let mut wanted = Vec::new();
    for resource in registry.of_version(group, version) {
        let (name, schema) = kind_schema(resource);
        references(&schema, &mut wanted);
        schemas.insert(name.clone(), schema);
        add_paths(&mut paths, resource, &name);
        if resource.custom.is_none() {
            wanted.push(name);
        }
        for subresource in &resource.subresources {
            if let Some((group, version)) = &subresource.group_version {
                wanted.push(builtin_name(group, version, &subresource.kind));
            }
        }
    }
    if paths.is_empty() {
        return None;
    }
    while let Some(name) = wanted.pop() {
        if let (Some(node), false) = (builtin::types().get(name.as_str()), schemas.contains_key(&name)) {
            let schema = builtin_schema(node);
            references(&schema, &mut wanted);
            schemas.insert(name, schema);
        }
    }
    Some(json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": VERSION}, "paths": paths,
        "components": {"schemas": schemas}}))
}

fn builtin_name(group: &str, version: &str, kind: &str) -> String {
    let short = match group.split('.').next().unwrap_or_default() {
        "" => "core",
        short => short,
    };
    format!("io.k8s.api.{short}.{version}.{kind}")
}

/// Name and schema of the kind of a resource.
fn kind_schema(resource: &Resource) -> (String, Value) {
    let Resource { group, version, kind, .. } = resource;
    let (name, mut schema) = match &resource.custom {
        Some(custom) => {
            let reversed: Vec<&str> = group.rsplit('.').collect();
            (format!("{}.{version}.{kind}", reversed.join(".")), custom_schema(&custom.openapi))
        }
        None => {
            let found = builtin::types().iter().find(|(_, node)| Arc::ptr_eq(node, &resource.schema));
            let name = found.map_or_else(|| builtin_name(group, version, kind), |(name, _)| name.to_string());
            (name, builtin_schema(&resource.schema))
        }
    };
    schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
    (name, schema)
}

/// What a definition says, and what all objects have.
fn custom_schema(openapi: &Value) -> Value {
    let mut schema = openapi.clone();
    mark_alternatives(&mut schema);
    if !schema.is_object() {
        schema = json!({});
    }
    schema["type"] = json!("object");
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let model = builtin::types().get("io.k8s.api.core.v1.ConfigMap");
    for name in ["apiVersion", "kind", "metadata"] {
        if let Some(node) = model.and_then(|model| model.fields.get(name)) {
            schema["properties"][name] = field_schema(node);
        }
    }
    schema
}

/// A number or a string, in words that clients of plain OpenAPI understand.
fn mark_alternatives(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(mark_alternatives);
            if map.get("x-kubernetes-int-or-string") == Some(&json!(true)) && !map.contains_key("anyOf") {
                map.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(mark_alternatives),
        _ => {}
    }
}

fn builtin_schema(node: &Node) -> Value {
    let mut schema = Map::new();
    let mut set = |name: &str, value: Value| drop(schema.insert(name.into(), value));
    if !node.description.is_empty() {
        set("description", json!(format!("{}{}", node.description, node.choices_about)));
    }
    let type_ = match node.type_ {
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::Any | Type::IntOrString => "",
    };
    if !type_.is_empty() {
        set("type", json!(type_));
    } else if node.type_ == Type::IntOrString {
        set("oneOf", json!([{"type": "integer"}, {"type": "string"}]));
        set("format", json!("int-or-string"));
    }
    if !node.format.is_empty() {
        set("format", json!(node.format));
    }
    if !node.choices.is_empty() {
        set("enum", json!(node.choices));
    }
    // Every object has metadata, whoever writes it.
    let required: Vec<&String> = node.required.iter().filter(|name| *name != "metadata").collect();
    if !required.is_empty() {
        set("required", json!(required));
    }
    if !node.fields.is_empty() {
        let fields: Map<String, Value> =
            node.fields.iter().map(|(name, field)| (name.clone(), field_schema(field))).collect();
        set("properties", Value::Object(fields));
    }
    if let Some(items) = &node.items {
        set("items", field_schema(items));
    }
    if let Some(values) = &node.additional {
        set("additionalProperties", field_schema(values));
    }
    match &node.list {
        ListType::Set => set("x-kubernetes-list-type", json!("set")),
        ListType::Map(keys) => {
            set("x-kubernetes-list-type", json!("map"));
            set("x-kubernetes-list-map-keys", json!(keys));
        }
        ListType::Atomic if node.type_ == Type::Array => set("x-kubernetes-list-type", json!("atomic")),
        ListType::Atomic => {}
    }
    if node.atomic {
        set("x-kubernetes-map-type", json!("atomic"));
    }
    Value::Object(schema)
}

fn field_schema(node: &Node) -> Value {
    let Some(name) = &node.reference else { return builtin_schema(node) };
    // Beside a reference nothing else counts, so what belongs to the field stands around it.
    let mut schema = json!({"allOf": [{"$ref": format!("{REFERENCE}{name}")}]});
    if !node.description.is_empty() {
        schema["description"] = json!(format!("{}{}", node.description, node.choices_about));
    }
    schema
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                found.push(name.trim_start_matches(REFERENCE).to_owned());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Paths of a resource, each with its operations.
fn add_paths(paths: &mut Map<String, Value>, resource: &Resource, schema: &str) {
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

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;
