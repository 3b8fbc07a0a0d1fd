//! Patches: each operation and directive, and how each fails.

use serde_json::{Value, json};

use super::strategic::strategic_merge;
use super::*;
use crate::schema::builtin::types;

fn json_patched(mut target: Value, operations: Value) -> Result<Value, Rejected> {
    json_patch(&mut target, operations.as_array().unwrap()).map(|()| target)
}

#[test]
fn json_patch_operations() {
    let object = || json!({"a": {"b": 1}, "l": [1, 2]});
    let cases = [
        (json!([{"op": "add", "path": "/l/1", "value": 9}]), json!({"a": {"b": 1}, "l": [1, 9, 2]})),
        (json!([{"op": "add", "path": "/l/-", "value": 9}]), json!({"a": {"b": 1}, "l": [1, 2, 9]})),
        (json!([{"op": "remove", "path": "/l/0"}]), json!({"a": {"b": 1}, "l": [2]})),
        (json!([{"op": "replace", "path": "/a/new", "value": 1}]), json!({"a": {"b": 1, "new": 1}, "l": [1, 2]})),
        (json!([{"op": "move", "from": "/a/b", "path": "/c"}]), json!({"a": {}, "c": 1, "l": [1, 2]})),
        (json!([{"op": "copy", "from": "/a", "path": "/x~1y"}]), json!({"a": {"b": 1}, "x/y": {"b": 1}, "l": [1, 2]})),
        (json!([{"op": "test", "path": "/none", "value": null}]), object()),
        (json!([{"op": "test", "path": "/a/b", "value": 1}]), object()),
    ];
    for (patch, want) in cases {
        assert_eq!(json_patched(object(), patch.clone()), Ok(want), "{patch}");
    }
    for patch in [
        json!([{"op": "test", "path": "/a/b", "value": 2}]),
        json!([{"op": "remove", "path": "/none"}]),
        json!([{"op": "add", "path": "/none/x", "value": 1}]),
        json!([{"op": "add", "path": "/l/7", "value": 1}]),
        json!([{"op": "jump", "path": "/a"}]),
        json!([{"op": "remove"}]),
        json!([{"op": "add", "path": "a", "value": 1}]),
    ] {
        assert_eq!(json_patched(object(), patch.clone()), Err(Rejected), "{patch}");
    }
}

#[test]
fn merge_patch_removes_by_null() {
    let mut target = json!({"a": {"b": 1, "c": 2}, "l": [1]});
    merge_patch(&mut target, &json!({"a": {"b": null, "d": {"x": null}}, "l": [2], "s": 1}));
    assert_eq!(target, json!({"a": {"c": 2, "d": {}}, "l": [2], "s": 1}));
}

fn service(ports: Value, patch: Value) -> Result<Value, String> {
    let mut target = json!({"spec": {"ports": ports, "selector": {"a": "b"}}, "metadata": {"finalizers": ["x", "y"]}});
    strategic_merge(&mut target, &patch, &types()["io.k8s.api.core.v1.Service"]).map(|()| target)
}

#[test]
fn strategic_lists() {
    let ports = || json!([{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]);
    let result = |patch| service(ports(), patch).unwrap()["spec"]["ports"].clone();
    assert_eq!(
        result(json!({"spec": {"ports": [{"port": 81, "targetPort": 1}]}})),
        json!([{"port": 80, "name": "a"}, {"port": 81, "name": "b", "targetPort": 1}])
    );
    let patch = json!({"spec": {"ports": [{"port": 82}], "$setElementOrder/ports": [{"port": 82}, {"port": 80}, {"port": 81}]}});
    assert_eq!(result(patch), json!([{"port": 82}, {"port": 80, "name": "a"}, {"port": 81, "name": "b"}]));
    assert_eq!(
        result(json!({"spec": {"ports": [{"port": 80, "$patch": "delete"}]}})),
        json!([{"port": 81, "name": "b"}])
    );
    assert_eq!(result(json!({"spec": {"ports": [{"$patch": "replace"}, {"port": 1}]}})), json!([{"port": 1}]));
}

#[test]
fn strategic_maps_and_scalars() {
    let result = |patch| service(json!([]), patch).unwrap();
    assert_eq!(
        result(json!({"spec": {"selector": {"$patch": "replace", "n": "1"}}}))["spec"]["selector"],
        json!({"n": "1"})
    );
    assert_eq!(result(json!({"spec": {"selector": null}}))["spec"].get("selector"), None);
    assert_eq!(
        result(json!({"metadata": {"finalizers": ["z", "x"]}}))["metadata"]["finalizers"],
        json!(["z", "x", "y"])
    );
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}});
    assert_eq!(result(patch)["metadata"]["finalizers"], json!(["y"]));
    let patch = json!({"spec": {"$retainKeys": ["selector"], "selector": {"c": "d"}}});
    assert_eq!(result(patch)["spec"], json!({"selector": {"a": "b", "c": "d"}}));
}

#[test]
fn strategic_complaints() {
    let error = |patch| service(json!([]), patch).unwrap_err();
    assert_eq!(
        error(json!({"spec": {"ports": [{"targetPort": 1}]}})),
        "map: map[targetPort:1] does not contain declared merge key: port"
    );
    assert_eq!(
        error(json!({"spec": {"ports": [{"port": 91, "$patch": "explode"}]}})),
        "unknown patch type: explode in map: map[$patch:explode port:91]"
    );
}
