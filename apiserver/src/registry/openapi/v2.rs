//! OpenAPI v2, made of the documents of v3: one for everything, with the kinds and the operations in its own words.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{REFERENCE, VERSION, document, group_versions, root, roots, wire};
use crate::registry::Registry;

/// How protobuf is asked for, and how it is called in the answer.
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const DEFINITIONS: &str = "#/definitions/";
/// Words that the second version does not have, or not in this sense.
const FOREIGN: [&str; 5] = ["allOf", "anyOf", "oneOf", "not", "nullable"];

/// Both forms of a document, and the hashes of those of which it was made.
struct Made {
    of: String,
    json: Bytes,
    protobuf: Bytes,
}

/// `GET /openapi/v2`: its content type and text, for what a client accepts.
pub fn v2(registry: &Registry, accept: &str) -> (&'static str, Bytes) {
    static LAST: Mutex<Option<Made>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let versions = group_versions(registry);
    let served = versions.iter().filter_map(|(group, version)| document(registry, group, version));
    let roots = roots::places(registry);
    let documents: Vec<_> = served.chain(roots.iter().filter_map(|place| root(registry, place))).collect();
    let of: String = documents.iter().map(|document| &*document.hash).collect();
    if last.as_ref().is_none_or(|made| made.of != of) {
        let texts: Vec<&Bytes> = documents.iter().map(|document| &document.text).collect();
        *last = Some(make(of, &texts));
    }
    let (json, protobuf) = last.as_ref().map(|made| (made.json.clone(), made.protobuf.clone())).unwrap_or_default();
    if accept.contains(PROTOBUF_ASKED) { (PROTOBUF, protobuf) } else { ("application/json", json) }
}

fn make(of: String, documents: &[&Bytes]) -> Made {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for text in documents {
        let Ok(mut document) = serde_json::from_slice::<Value>(text) else { continue };
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            paths.insert(path.clone(), operations(item));
        }
        let Value::Object(schemas) = document["components"]["schemas"].take() else { continue };
        for (name, schema) in schemas {
            // What a version of its own says of a kind goes before what another says of it in passing.
            let whole = schema.get("x-kubernetes-group-version-kind").is_some();
            if whole || !definitions.contains_key(&name) {
                definitions.insert(name, translate(schema));
            }
        }
    }
    let document = json!({"paths": paths, "definitions": definitions});
    let info = json!({"title": "Kubernetes", "version": VERSION});
    let bearer = json!({"BearerToken": {"description": "Bearer Token authentication", "type": "apiKey",
        "name": "authorization", "in": "header"}});
    let json = format!(
        "{{\"swagger\":\"2.0\",\"info\":{info},\"paths\":{},\"definitions\":{},\"securityDefinitions\":{bearer},\"security\":[{{\"BearerToken\":[]}}]}}",
        document["paths"], document["definitions"]
    );
    Made { of, json: Bytes::from(json), protobuf: Bytes::from(wire::document(&document, VERSION)) }
}

/// A schema in the words of the second version.
fn translate(schema: Value) -> Value {
    let Value::Object(mut map) = schema else { return schema };
    // What is a number or a string, nothing else is said of.
    let either = map.get("format") == Some(&json!("int-or-string"));
    let reference = map.get("allOf").and_then(|all| all[0]["$ref"].as_str()).map(str::to_owned);
    let quantity = map.get("oneOf").is_some() && !either;
    if either || quantity {
        map.insert("type".into(), json!("string"));
    }
    // What may be this or that has no type there; a whole object always has one.
    let is = |mark: &str| map.get(mark) == Some(&json!(true));
    let whole = map.contains_key("x-kubernetes-group-version-kind");
    let open = is("x-kubernetes-preserve-unknown-fields") && !whole;
    if open || is("x-kubernetes-int-or-string") || is("nullable") {
        map.retain(|name, _| !matches!(name.as_str(), "items" | "properties" | "type"));
    }
    for (name, value) in &mut map {
        match name.as_str() {
            "properties" => {
                let fields = value.as_object_mut().map(std::mem::take).unwrap_or_default();
                *value = fields.into_iter().map(|(name, field)| (name, translate(field))).collect();
            }
            "items" | "additionalProperties" => *value = translate(value.take()),
            _ => {}
        }
    }
    map.retain(|name, _| !FOREIGN.contains(&name.as_str()));
    if let Some(name) = reference {
        map.insert("$ref".into(), json!(name));
    }
    if let Some(Value::String(name)) = map.get_mut("$ref") {
        *name = name.replace(REFERENCE, DEFINITIONS);
    }
    map.remove("default");
    Value::Object(map)
}

/// The operations of a path.
fn operations(item: &Value) -> Value {
    let all = item.as_object().into_iter().flatten();
    Value::Object(all.map(|(method, operation)| (method.clone(), convert(operation))).collect())
}

fn convert(operation: &Value) -> Value {
    let mut made = operation.clone();
    let types = |content: &Value| -> Vec<String> {
        content.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let schema = |content: &Value| {
        content.as_object().and_then(|all| all.values().next()).map(|one| translate(one["schema"].clone()))
    };
    let mut parameters = Vec::new();
    let body = &operation["requestBody"]["content"];
    made["consumes"] = json!(["*/*"]);
    if let Some(schema) = schema(body) {
        parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
        if operation["x-kubernetes-action"] == "patch" {
            made["consumes"] = json!(types(body));
        }
    }
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (name, kind) = (&parameter["name"], &parameter["schema"]["type"]);
        parameters.push(json!({"uniqueItems": true, "type": kind, "name": name, "in": "query"}));
    }
    made["produces"] = json!(types(&operation["responses"]["200"]["content"]));
    made["schemes"] = json!(["https"]);
    for (_, response) in made["responses"].as_object_mut().into_iter().flatten() {
        let found = schema(&response["content"]);
        let Some(fields) = response.as_object_mut() else { continue };
        fields.remove("content");
        fields.extend(found.map(|schema| ("schema".to_owned(), schema)));
    }
    if let Some(fields) = made.as_object_mut() {
        fields.remove("requestBody");
        fields.remove("parameters");
        if !parameters.is_empty() {
            fields.insert("parameters".into(), json!(parameters));
        }
    }
    made
}
