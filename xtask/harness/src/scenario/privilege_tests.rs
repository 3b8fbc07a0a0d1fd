//! Tests of [`super`].
use super::*;

fn rules() -> Vec<PolicyRule> {
    serde_json::from_value(json!([
        {"apiGroups": [""], "resources": ["nodes", "services/status"], "verbs": ["list", "patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["one"], "verbs": ["get"]},
    ]))
    .unwrap()
}

#[test]
fn every_verb_on_every_resource_is_a_right_and_one_can_be_left_out() {
    let all = rights(&rules());
    let told: Vec<String> = all.iter().map(Right::to_string).collect();
    let expected = [
        "list nodes",
        "patch nodes",
        "list services/status",
        "patch services/status",
        "get leases.coordination.k8s.io",
    ];
    assert_eq!(told, expected);
    let left = rights(&without(&all, 2));
    assert_eq!(left, [&all[..2], &all[3..]].concat());
}

#[test]
fn only_this_denial_of_this_account_counts() {
    let right = &rights(&rules())[3];
    let event = |code: u16, user: &str, subresource: Value, verb: &str| {
        json!({"verb": verb, "responseStatus": {"code": code}, "objectRef": {"resource": "services", "subresource": subresource},
               "user": {"username": format!("system:serviceaccount:kube-system:{user}")}})
    };
    assert!(denies(&event(403, "portolan-operator", json!("status"), "patch"), "portolan-operator", right));
    assert!(!denies(&event(200, "portolan-operator", json!("status"), "patch"), "portolan-operator", right));
    assert!(!denies(&event(403, "portolan-agent", json!("status"), "patch"), "portolan-operator", right));
    assert!(!denies(&event(403, "portolan-operator", Value::Null, "patch"), "portolan-operator", right));
    assert!(!denies(&event(403, "portolan-operator", json!("status"), "list"), "portolan-operator", right));
}
