//! Tests of [`super`].
use serde_json::json;

use super::*;

#[test]
fn fields_have_the_order_of_their_types() {
    let port = json!({"port": 80, "name": "a", "protocol": "TCP"});
    let service = json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": "ClusterIP", "ports": [port]},
        "metadata": {"uid": "u", "name": "n", "labels": {"b": "<", "a": "2"}}, "odd": 1});
    let expected = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"n","uid":"u","labels":{"a":"2","b":"\u003c"}},"spec":{"ports":[{"name":"a","protocol":"TCP","port":80}],"type":"ClusterIP"},"odd":1}"#;
    assert_eq!(text(&service), expected);
    let list = json!({"apiVersion": "v1", "kind": "ServiceList", "items": [{"spec": {}, "metadata": {}}], "metadata": {"resourceVersion": "1"}});
    let expected = r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{},"spec":{}}]}"#;
    assert_eq!(text(&list), expected);
}

#[test]
fn what_is_inlined_stands_in_its_place() {
    let volume = json!({"name": "v", "emptyDir": {}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [], "volumes": [volume]}});
    let expected =
        r#"{"kind":"Pod","apiVersion":"v1","spec":{"volumes":[{"name":"v","emptyDir":{}}],"containers":[]}}"#;
    assert_eq!(text(&pod), expected);
}

#[test]
fn custom_resources_are_in_the_order_of_names() {
    let object = json!({"kind": "Widget", "apiVersion": "ex.io/v1", "metadata": {"uid": "u", "name": "n"}});
    assert_eq!(text(&object), r#"{"apiVersion":"ex.io/v1","kind":"Widget","metadata":{"name":"n","uid":"u"}}"#);
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "details": {"uid": "u", "kind": "k"}});
    let expected =
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","details":{"kind":"k","uid":"u"},"code":404}"#;
    assert_eq!(text(&status), expected);
    assert_eq!(event("ADDED", &json!({})), r#"{"type":"ADDED","object":{}}"#);
}

#[test]
fn text_for_people_has_a_line_for_each_value() {
    let compact = r#"{"a":[1,{"b":"x{,\"]"}],"c":{},"d":[]}
"#;
    let expected = "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x{,\\\"]\"\n    }\n  ],\n  \"c\": {},\n  \"d\": []\n}";
    assert_eq!(indented(compact), expected);
}
