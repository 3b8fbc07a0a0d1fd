//! The words of each complaint about a custom resource.

use serde_json::{Value, json};

use super::*;

fn schema() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", "properties": {
        "on": {"type": "boolean"}, "mode": {"type": "string", "enum": ["Yes", "No"]},
        "cidr": {"type": "string", "format": "cidr"}, "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^a"},
        "some": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "either": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}}}}})
}

fn texts(spec: Value) -> Vec<String> {
    let errors = validate(&json!({"spec": spec}), &schema(), None);
    errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
}

#[test]
fn words_of_each_error() {
    let missing = validate(&json!({}), &schema(), None);
    assert_eq!((missing.len(), missing[0].field.as_str()), (1, "spec"));
    let errors = texts(json!({"on": "no", "mode": "yes", "cidr": "x", "count": -1, "name": "abcde", "some": []}));
    for want in [
        "spec.on: Invalid value: \"string\": spec.on in body must be of type boolean: \"string\"",
        "spec.mode: Unsupported value: \"yes\": supported values: \"Yes\", \"No\"",
        "spec.cidr: Invalid value: \"x\": spec.cidr in body must be of type cidr: \"x\"",
        "spec.count: Invalid value: -1: spec.count in body should be greater than or equal to 0",
        "spec.name: Too long: may not be more than 4 bytes",
        "spec.some: Invalid value: 0: spec.some in body should have at least 1 items",
    ] {
        assert!(errors.iter().any(|error| error == want), "{want}\n{errors:#?}");
    }
    assert_eq!(errors.len(), 6, "{errors:#?}");
    assert_eq!(texts(json!({"some": ["a", "b", "c"]})), ["spec.some: Too many: 3: must have at most 2 items"]);
    assert_eq!(texts(json!({"tags": ["a", "a"]})), ["spec.tags[1]: Duplicate value: \"a\""]);
    assert!(texts(json!({"on": true, "mode": "No", "cidr": "10.0.0.0/8", "count": 0, "name": "ab"})).is_empty());
}

#[test]
fn one_of_says_how_many_fit() {
    let none = texts(json!({"either": {}}));
    assert_eq!(
        none[0],
        "<nil>: Invalid value: \"\": \"spec.either\" must validate one and only one schema (oneOf). Found none valid"
    );
    let both = texts(json!({"either": {"a": "", "b": ""}}));
    assert!(both[0].ends_with("Found 2 valid alternatives"), "{both:?}");
    assert!(texts(json!({"either": {"a": ""}})).is_empty());
}

#[test]
fn what_was_wrong_before_may_stay() {
    let old = json!({"spec": {"count": -1, "mode": "x"}});
    let new = json!({"spec": {"count": -1, "mode": "y"}});
    let errors = validate(&new, &schema(), Some(&old));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].field, "spec.mode");
}
