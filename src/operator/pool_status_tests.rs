//! Tests of [`super`].
use super::*;
use crate::operator::index::{Event, Index};
use kube::runtime::watcher;
use portolan_core::ipam::plan;

/// The conditions that a pool with this spec gets, on top of those that stand.
fn conditions(spec: &Value, present: &Value) -> Vec<Condition> {
    let object: CiliumLoadBalancerIPPool = serde_json::from_value(json!({
        "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumLoadBalancerIPPool",
        "metadata": {"name": "p", "generation": 3, "resourceVersion": "7"},
        "spec": spec, "status": {"conditions": present},
    }))
    .unwrap();
    let mut index = Index::default();
    index.take(Event::Pool(watcher::Event::Apply(object.clone())));
    let world = index.world();
    match needed(&object, &world.pools["p"], &plan(&world).pools["p"], Timestamp::UNIX_EPOCH) {
        None => Vec::new(),
        Some(body) => {
            assert_eq!(body["metadata"]["resourceVersion"], "7", "a stale write must not win");
            serde_json::from_value(body["status"]["conditions"].clone()).unwrap()
        }
    }
}

fn message<'a>(conditions: &'a [Condition], kind: &str) -> (&'a str, &'a str, &'a str) {
    let one = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&one.status, &one.reason, &one.message)
}

#[test]
fn a_pool_counts_and_settles() {
    let spec = json!({"blocks": [{"cidr": "198.18.0.0/24"}]});
    let first = conditions(&spec, &json!([]));
    assert_eq!(message(&first, names::CONDITION_CONFLICT), ("False", "resolved", ""));
    for kind in [names::CONDITION_TOTAL, names::CONDITION_AVAILABLE] {
        assert_eq!(message(&first, kind), ("Unknown", "noreason", "256"));
    }
    assert_eq!(message(&first, names::CONDITION_USED), ("Unknown", "noreason", "0"));
    assert_eq!(first.len(), 4);
    let mut present = json!(first);
    present.as_array_mut().unwrap().push(json!({"type": "example.com/Other", "status": "True", "reason": "x",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}));
    assert_eq!(conditions(&spec, &present), vec![], "nothing changed, so nothing is written");
}

#[test]
fn what_cannot_be_understood_is_said_and_taken_back() {
    let bad = json!({
        "blocks": [{"cidr": "198.18.0.0/33"}, {"start": "198.18.0.9", "stop": "198.18.0.1"}, {"stop": "198.18.0.1"}],
        "allowFirstLastIPs": "no",
        "serviceSelector": {"matchExpressions": [{"key": "color", "operator": "Equals", "values": ["red"]}]},
    });
    let first = conditions(&bad, &json!([]));
    let (status, reason, text) = message(&first, names::CONDITION_INVALID);
    assert_eq!((status, reason), ("True", "invalid_spec"));
    for part in ["\"color\"", "\"Equals\"", "\"no\"", "block 0", "198.18.0.0/33", "block 1", "block 2"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let good = conditions(&json!({"blocks": []}), &json!(first));
    assert_eq!(message(&good, names::CONDITION_INVALID), ("False", "resolved", ""));
    assert_eq!(conditions(&json!({"blocks": []}), &json!(good)), vec![]);
}
