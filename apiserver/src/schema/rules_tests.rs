//! What rules say, where, and about which change.

use serde_json::{Value, json};

use super::*;

fn errors(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let verdict = Rules::compile(schema).unwrap().verdict(object, old);
    verdict.errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
}

fn with(rule: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": [rule], "properties": {
        "a": {"type": "integer"}, "b-c": {"type": "string"}, "list": {"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object", "properties": {"n": {"type": "string"},
        "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "may only grow"}]}}}}}}}})
}

#[test]
fn messages_reasons_and_places() {
    let of = |rule: Value| errors(&with(rule), &json!({"spec": {"a": 1, "b-c": "x"}}), None);
    assert_eq!(of(json!({"rule": "self.a > 1"})), ["spec: Invalid value: \"object\": failed rule: self.a > 1"]);
    assert_eq!(of(json!({"rule": "self.a > 1", "message": " no "})), ["spec: Invalid value: \"object\": no"]);
    let made = json!({"rule": "self.a > 1", "message": "m", "messageExpression": "'a is ' + string(self.a)"});
    assert_eq!(of(made), ["spec: Invalid value: \"object\": a is 1"]);
    let broken = json!({"rule": "self.a > 1", "message": "m", "messageExpression": "string(self.nothing)"});
    assert_eq!(of(broken), ["spec: Invalid value: \"object\": m"]);
    let placed = json!({"rule": "self.a > 1", "fieldPath": ".a", "reason": "FieldValueForbidden", "message": "m"});
    assert_eq!(of(placed), ["spec.a: Forbidden: m"]);
    assert!(of(json!({"rule": "self.b__dash__c == 'x'"})).is_empty());
    let missing = of(json!({"rule": "self.nothing > 1"}));
    assert_eq!(missing, ["spec: Invalid value: \"object\": no such key: nothing evaluating rule: self.nothing > 1"]);
}

#[test]
fn changes_are_followed_by_key() {
    let schema = with(json!({"rule": "!has(oldSelf.a) || self.a == oldSelf.a", "message": "a stays"}));
    let spec = |a: i64, list: Value| json!({"spec": {"a": a, "list": list}});
    let old = spec(1, json!([{"n": "x", "v": 5}, {"n": "y", "v": 1}]));
    assert!(errors(&schema, &old, None).is_empty(), "a change needs something that was before");
    let new = spec(2, json!([{"n": "y", "v": 2}, {"n": "x", "v": 4}, {"n": "z", "v": 0}]));
    let found = errors(&schema, &new, Some(&old));
    assert_eq!(
        found,
        ["spec: Invalid value: \"object\": a stays", "spec.list[1].v: Invalid value: \"integer\": may only grow"]
    );
}

#[test]
fn an_optional_old_self_is_asked_about_new_objects_too() {
    let rule = "oldSelf.hasValue() || self.a == 1";
    let schema = with(json!({"rule": rule, "optionalOldSelf": true, "message": "must begin with 1"}));
    let found = errors(&schema, &json!({"spec": {"a": 2}}), None);
    assert_eq!(found, ["spec: Invalid value: \"object\": must begin with 1"]);
    assert!(errors(&schema, &json!({"spec": {"a": 2}}), Some(&json!({"spec": {"a": 1}}))).is_empty());
}

#[test]
fn what_was_broken_before_is_only_warned_about() {
    let schema = with(json!({"rule": "self.a > 1"}));
    let object = json!({"spec": {"a": 1}});
    let verdict = Rules::compile(&schema).unwrap().verdict(&object, Some(&object));
    assert!(verdict.errors.is_empty());
    assert_eq!(verdict.warnings, ["spec: Invalid value: \"object\": failed rule: self.a > 1"]);
}
