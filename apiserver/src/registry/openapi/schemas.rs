//! Schemas of kinds, built-in and custom, as clients of OpenAPI v3 read them.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::REFERENCE;
use crate::registry::Resource;
use crate::schema::{ListType, Node, Type, builtin};

/// Begins the names of what all objects share.
pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Name of the schema of a built-in kind.
pub(super) fn builtin_name(group: &str, version: &str, kind: &str) -> String {
    let short = match group.split('.').next().unwrap_or_default() {
        "" => "core",
        short => short,
    };
    format!("io.k8s.api.{short}.{version}.{kind}")
}

/// Name and schema of the kind of a resource.
pub(super) fn of_kind(resource: &Resource) -> (String, Value) {
    let Resource { group, version, kind, .. } = resource;
    let (name, schema) = match &resource.custom {
        Some(custom) => {
            let reversed: Vec<&str> = group.rsplit('.').collect();
            (format!("{}.{version}.{kind}", reversed.join(".")), custom_schema(&custom.openapi))
        }
        None => {
            let found = builtin::types().iter().find(|(_, node)| Arc::ptr_eq(node, &resource.schema));
            let name = found.map_or_else(|| builtin_name(group, version, kind), |(name, _)| name.to_string());
            (name, of_node(&resource.schema))
        }
    };
    (name, with_kind(schema, group, version, kind))
}

/// Says of which kind a schema is.
pub(super) fn with_kind(mut schema: Value, group: &str, version: &str, kind: &str) -> Value {
    schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
    schema
}

/// The schema of lists of a custom resource.
pub(super) fn list_of(resource: &Resource, of: &str) -> Value {
    let Resource { group, version, kind, plural, list_kind, .. } = resource;
    let mut properties = Map::new();
    let model = builtin::types().get("io.k8s.api.core.v1.ConfigMap");
    for name in ["apiVersion", "kind"] {
        if let Some(node) = model.and_then(|model| model.fields.get(name)) {
            properties.insert(name.into(), of_field(node));
        }
    }
    let conventions = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
    properties.insert(
        "items".into(),
        json!({"description": format!("List of {plural}. More info: {conventions}"), "type": "array",
            "items": {"$ref": format!("{REFERENCE}{of}")}}),
    );
    properties.insert(
        "metadata".into(),
        json!({"description": format!("Standard list metadata. More info: {conventions}#types-kinds"),
            "allOf": [{"$ref": format!("{REFERENCE}{META}ListMeta")}]}),
    );
    let schema = json!({"description": format!("{list_kind} is a list of {kind}"), "type": "object",
        "required": ["items"], "properties": properties});
    with_kind(schema, group, version, list_kind)
}

/// Adds all schemas that are wanted, and those that they refer to.
pub(super) fn complete(schemas: &mut Map<String, Value>, mut wanted: Vec<String>) {
    while let Some(name) = wanted.pop() {
        if let (Some(node), false) = (builtin::types().get(name.as_str()), schemas.contains_key(&name)) {
            let schema = of_node(node);
            references(&schema, &mut wanted);
            schemas.insert(name, schema);
        }
    }
}

/// What a definition says, and what all objects have.
pub(super) fn custom_schema(openapi: &Value) -> Value {
    let mut schema = openapi.clone();
    spell_out(&mut schema);
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
            schema["properties"][name] = of_field(node);
        }
    }
    schema
}

/// Says in words that clients of plain OpenAPI understand what is a number or a string, and what a whole object.
fn spell_out(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(spell_out);
            if map.get("x-kubernetes-int-or-string") == Some(&json!(true)) && !map.contains_key("anyOf") {
                map.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
            }
            if map.get("x-kubernetes-embedded-resource") == Some(&json!(true)) {
                embed(map);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(spell_out),
        _ => {}
    }
}

/// What every object within another has.
fn embed(schema: &mut Map<String, Value>) {
    let conventions = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
    let version = format!(
        "apiVersion defines the versioned schema of this representation of an object. More info: {conventions}#resources"
    );
    let kind = format!(
        "kind is a string value representing the type of this object. In CamelCase. More info: {conventions}#types-kinds"
    );
    let metadata = format!("Standard object's metadata. More info: {conventions}#metadata");
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    properties["apiVersion"] = json!({"description": version, "type": "string"});
    properties["kind"] = json!({"description": kind, "type": "string"});
    properties["metadata"] =
        json!({"description": metadata, "allOf": [{"$ref": format!("{REFERENCE}{META}ObjectMeta")}]});
    let given = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let mut required: Vec<Value> = given.filter(|name| *name != "apiVersion" && *name != "kind").cloned().collect();
    required.extend([json!("apiVersion"), json!("kind")]);
    schema.insert("required".into(), json!(required));
}

/// The schema of a built-in type.
pub(super) fn of_node(node: &Node) -> Value {
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
    // Every object has metadata, whoever writes it; only the older of both Events says so.
    let event = node.fields.contains_key("involvedObject");
    let required: Vec<&String> = node.required.iter().filter(|name| *name != "metadata" || event).collect();
    if !required.is_empty() {
        set("required", json!(required));
    }
    if !node.fields.is_empty() {
        let fields: Map<String, Value> =
            node.fields.iter().map(|(name, field)| (name.clone(), of_field(field))).collect();
        set("properties", Value::Object(fields));
    }
    if let Some(items) = &node.items {
        set("items", of_field(items));
    }
    if let Some(values) = &node.additional {
        let schema = match &values.reference {
            Some(name) if values.description.is_empty() => json!({"$ref": format!("{REFERENCE}{name}")}),
            _ => of_field(values),
        };
        set("additionalProperties", schema);
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
    if node.atomic || node.granular {
        set("x-kubernetes-map-type", json!(if node.atomic { "atomic" } else { "granular" }));
    }
    if let Some(key) = node.patch_key.as_ref().filter(|key| !key.is_empty()) {
        set("x-kubernetes-patch-merge-key", json!(key));
    }
    let strategies = [(node.patch_key.is_some(), "merge"), (node.retain_keys, "retainKeys")];
    let strategies: Vec<&str> = strategies.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
    if !strategies.is_empty() {
        set("x-kubernetes-patch-strategy", json!(strategies.join(",")));
    }
    Value::Object(schema)
}

fn of_field(node: &Node) -> Value {
    let Some(name) = &node.reference else { return of_node(node) };
    // Beside a reference nothing else counts, so what belongs to the field stands around it.
    let mut schema = json!({"allOf": [{"$ref": format!("{REFERENCE}{name}")}]});
    if node.granular {
        schema["x-kubernetes-map-type"] = json!("granular");
    }
    if node.retain_keys {
        schema["x-kubernetes-patch-strategy"] = json!("retainKeys");
    }
    if !node.description.is_empty() {
        schema["description"] = json!(format!("{}{}", node.description, node.choices_about));
    }
    schema
}

/// Names of the schemas to which one refers.
pub(super) fn references(schema: &Value, found: &mut Vec<String>) {
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
