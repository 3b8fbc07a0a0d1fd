//! Field sets, comparing and merging by schema, and the book of owners.

use serde_json::{Value, json};

use super::managed::{Manager, Write, apply, update};
use super::merge::merge;
use super::set::{Set, show};
use super::typed::{compare, fields, validate};
use crate::schema::Node;
use crate::schema::builtin::types;

fn service() -> &'static Node {
    &types()["io.k8s.api.core.v1.Service"]
}

#[test]
fn sets_round_trip_and_subtract() {
    let json = json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"v:\"x\"": {}}});
    let set = Set::from_json(&json);
    assert_eq!(set.to_json(), json);
    let shown: Vec<String> = set.paths().iter().map(|path| show(path)).collect();
    assert_eq!(shown, [".a", ".a.b", ".c[=\"x\"]"]);
    let rest = set.difference(&Set::from_json(&json!({"f:a": {}, "f:c": {"v:\"x\"": {}}})));
    assert_eq!(rest.to_json(), json!({"f:a": {"f:b": {}}}));
    assert!(set.difference(&set).is_empty());
    assert_eq!(set.intersection(&set), set);
}

#[test]
fn keys_take_the_default_of_the_schema() {
    let object = json!({"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    let want = json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:selector": {}}});
    assert_eq!(fields(&object, service()).to_json(), want);
}

#[test]
fn comparing_tells_added_removed_and_modified() {
    let old = json!({"spec": {"ports": [{"port": 80, "name": "a"}], "type": "NodePort", "selector": {"a": "b"}}});
    let new = json!({"spec": {"ports": [{"port": 80, "name": "b"}, {"port": 81}], "selector": {"a": "c"}}});
    let difference = compare(&old, &new, service());
    let modified =
        json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}}, "f:selector": {}}});
    assert_eq!(difference.modified.to_json(), modified);
    assert_eq!(difference.removed.to_json(), json!({"f:spec": {"f:type": {}}}));
    let added = json!({"f:spec": {"f:ports": {"k:{\"port\":81,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}});
    assert_eq!(difference.added.to_json(), added);
}

#[test]
fn merged_lists_keep_both_orders() {
    let ports =
        |numbers: &[i64]| json!({"spec": {"ports": numbers.iter().map(|n| json!({"port": n})).collect::<Vec<_>>()}});
    let merged = |live, config| {
        let out = merge(&ports(live), &ports(config), service());
        out["spec"]["ports"].as_array().unwrap().iter().map(|p| p["port"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(merged(&[1, 2], &[3]), [1, 2, 3]);
    assert_eq!(merged(&[1, 2, 3], &[3, 1]), [2, 3, 1]);
    assert_eq!(merged(&[1, 2], &[2, 1]), [2, 1]);
    assert_eq!(merged(&[], &[2, 1]), [2, 1]);
}

#[test]
fn what_does_not_fit_is_named() {
    let error = |object: Value| validate(&object, service()).unwrap_err();
    assert_eq!(error(json!({"bogus": 1})), ".bogus: field not declared in schema");
    assert_eq!(
        error(json!({"metadata": {"name": true}})),
        ".metadata.name: expected string, got &value.valueUnstructured{Value:true}"
    );
    let twice = json!({"spec": {"ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}]}});
    assert_eq!(error(twice), ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]");
}

fn write(name: &str, apply: bool) -> Write<'static> {
    let manager = Manager { name: name.into(), apply, api_version: "v1".into(), subresource: String::new() };
    Write { manager, node: service(), reset: &[], versions: None, now: format!("time-of-{name}") }
}

fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|e| (e["manager"].as_str().unwrap().to_owned(), e["fieldsV1"].clone())).collect()
}

fn live(spec: Value) -> Value {
    json!({"metadata": {"name": "s", "uid": "u"}, "spec": spec})
}

#[test]
fn shared_conflicting_forced_and_pruned() {
    let empty = json!({"metadata": {}});
    let mut first =
        apply(&empty, &live(json!({"type": "NodePort", "sessionAffinity": "None"})), &write("one", true), false)
            .unwrap();
    first["metadata"]["uid"] = json!("u");
    let config = |value: &str| json!({"metadata": {"name": "s"}, "spec": {"type": value}});
    // The same value is shared, another one a conflict.
    let shared = apply(&first, &config("NodePort"), &write("two", true), false).unwrap();
    assert_eq!(owners(&shared).len(), 2);
    let conflict = apply(&shared, &config("ClusterIP"), &write("two", true), false).unwrap_err();
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.type");
    let forced = apply(&shared, &config("ClusterIP"), &write("two", true), true).unwrap();
    let one = owners(&forced).into_iter().find(|(name, _)| name == "one").unwrap();
    assert_eq!(one.1, json!({"f:spec": {"f:sessionAffinity": {}}}));
    // Leaving out what only I own removes it; what others own stays.
    let pruned = apply(&forced, &json!({"metadata": {"name": "s"}}), &write("one", true), false).unwrap();
    assert_eq!(pruned["spec"], json!({"type": "ClusterIP"}));
    assert_eq!(owners(&pruned).len(), 1);
}

#[test]
fn an_update_takes_over_and_a_reset_forgets() {
    let empty = json!({"metadata": {}});
    let applied = apply(&empty, &live(json!({"type": "NodePort"})), &write("one", true), false).unwrap();
    let mut updated = applied.clone();
    updated["spec"]["type"] = json!("ClusterIP");
    update(&applied, &mut updated, &write("put", false), false);
    assert_eq!(owners(&updated), [("put".to_owned(), json!({"f:spec": {"f:type": {}}}))]);
    let mut reset = updated.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    update(&updated, &mut reset, &write("put", false), false);
    assert!(owners(&reset).is_empty());
    // Nobody is booked again by updates, and an apply finds what was there before it.
    let error = apply(&reset, &json!({"spec": {"type": "NodePort"}}), &write("one", true), false).unwrap_err();
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .spec.type"
    );
}

/// As recorded of a real server: `kubectl apply`, then `kubectl apply --server-side` of a changed file.
#[test]
fn what_kubectl_applied_by_itself_it_may_have_the_server_change() {
    let applied = r#"{"spec":{"type":"ClusterIP"}}"#;
    let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
    let mut object = live(json!({"type": "ClusterIP", "externalName": "e"}));
    object["metadata"]["annotations"] = annotations;
    update(&json!({}), &mut object, &write("kubectl-client-side-apply", false), true);
    let config = json!({"spec": {"type": "NodePort"}});
    let merged = apply(&object, &config, &write("kubectl", true), false).unwrap();
    assert_eq!(merged["spec"]["type"], "NodePort");
    let told = &merged["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(told, &json!("{\"spec\":{\"type\":\"NodePort\"}}\n"));
    assert!(apply(&object, &config, &write("other", true), false).is_err(), "only kubectl may");
    let config = json!({"spec": {"type": "NodePort", "externalName": "f"}});
    let error = apply(&object, &config, &write("kubectl", true), false).unwrap_err();
    assert!(error.message.contains("1 conflict") && error.message.ends_with(".spec.externalName"), "{}", error.message);
}

#[test]
fn many_updaters_are_folded() {
    let mut object = live(json!({}));
    update(&json!({}), &mut object, &write("create", false), true);
    for number in 0..14 {
        let mut next = object.clone();
        next["metadata"]["labels"][format!("l{number}")] = json!("x");
        update(&object, &mut next, &write(&format!("m{number:02}"), false), true);
        object = next;
    }
    let names: Vec<String> = owners(&object).into_iter().map(|(name, _)| name).collect();
    assert!(names.len() <= 11, "{names:?}");
    assert!(names.contains(&"ancient-changes".to_owned()), "{names:?}");
}
