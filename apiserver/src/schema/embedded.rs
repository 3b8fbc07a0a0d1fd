//! Objects within custom resources (`x-kubernetes-embedded-resource`): each says its kind, and has sound metadata.

use serde_json::Value;

use crate::failure::FieldError;
use crate::kinds::names;

/// What is wrong with the objects that lie in a custom resource of this `openAPIV3Schema`.
pub fn errors(object: &Value, schema: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(object, schema, "", &mut errors);
    errors
}

fn walk(value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            if schema["x-kubernetes-embedded-resource"] == true {
                errors.extend(own_errors(value, path));
            }
            for (name, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                match (schema["properties"].get(name), &schema["additionalProperties"]) {
                    (Some(own), _) => walk(value, own, &format!("{path}{dot}{name}"), errors),
                    (None, own) if own.is_object() => walk(value, own, &format!("{path}[{name}]"), errors),
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                walk(value, &schema["items"], &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

fn own_errors(object: &Value, path: &str) -> Vec<FieldError> {
    let absent = |name: &&str| object[*name].as_str().is_none_or(str::is_empty);
    let missing = ["apiVersion", "kind"].into_iter().filter(absent);
    let mut errors: Vec<FieldError> = missing.map(|name| FieldError::required(format!("{path}.{name}"), "")).collect();
    errors.extend(names::common_errors(&object["metadata"]).into_iter().map(|error| {
        let field = format!("{path}.{}", error.field);
        FieldError { field, ..error }
    }));
    errors
}
