//! Tests of [`super`].
use super::*;
use crate::operator::index::{Event, Index};
use kube::runtime::watcher;
use portolan_core::ipam::plan;

fn pool() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"blocks": [{"cidr": "198.18.0.0/24"}]}})
}

/// The change that a Service needs in a world with this pool.
fn change(pool: Value, service: Value) -> Option<Change> {
    let mut index = Index::default();
    index.take(Event::Pool(watcher::Event::Apply(serde_json::from_value(pool).unwrap())));
    let service: Service = serde_json::from_value(service).unwrap();
    index.take(Event::Service(watcher::Event::Apply(service.clone())));
    let world = index.world();
    let name = index.services.all.keys().next().unwrap();
    needed(&world, name, &service, plan(&world).services.get(name), Timestamp::UNIX_EPOCH)
}

fn balancer(spec: &Value, status: &Value) -> Value {
    let mut service = json!({
        "metadata": {"name": "s", "namespace": "default", "resourceVersion": "7"},
        "spec": {"type": "LoadBalancer"}, "status": status,
    });
    service["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    service
}

fn reasons(change: &Change) -> Vec<&str> {
    change.notes.iter().map(|note| note.reason).collect()
}

#[test]
fn a_service_gets_address_condition_and_event_and_then_rests() {
    let first = change(pool(), balancer(&json!({}), &json!({}))).unwrap();
    assert_eq!(first.body["metadata"]["resourceVersion"], "7", "a stale write must not win");
    let ip = first.body["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap();
    assert_eq!(reasons(&first), [names::EVENT_ALLOCATED]);
    assert_eq!(first.notes[0].text, format!("Assigned {ip} from pool p"));
    let condition = &first.body["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("satisfied")));
    assert_eq!(condition.get("observedGeneration"), None, "a Service without a generation has none observed");
    assert!(change(pool(), balancer(&json!({}), &first.body["status"])).is_none(), "nothing changed");
}

#[test]
fn a_refusal_is_told_once_with_the_peers_words() {
    let spec = json!({"loadBalancerIP": "198.18.7.7"});
    let first = change(pool(), balancer(&spec, &json!({}))).unwrap();
    assert_eq!(reasons(&first), [names::EVENT_FAILED]);
    let condition = &first.body["status"]["conditions"][0];
    assert_eq!(condition["reason"], "no_pool");
    assert_eq!(condition["message"], "No pool exists with a CIDR containing '198.18.7.7'");
    assert_eq!(first.body["status"].get("loadBalancer"), None, "addresses are not touched");
    assert!(change(pool(), balancer(&spec, &first.body["status"])).is_none());
    let none = json!({"loadBalancerIP": "example.com"});
    let refused = change(pool(), balancer(&none, &json!({}))).unwrap();
    assert_eq!(refused.body["status"]["conditions"][0]["reason"], "invalid_request");
}

#[test]
fn a_service_that_is_not_ours_any_more_loses_condition_and_address() {
    let served = change(pool(), balancer(&json!({}), &json!({}))).unwrap();
    for spec in [json!({"type": "ClusterIP"}), json!({"loadBalancerClass": "example.com/other"})] {
        let mut service = balancer(&spec, &served.body["status"]);
        let taken = change(pool(), service.clone()).unwrap();
        assert_eq!(taken.body["status"], json!({"conditions": [], "loadBalancer": {"ingress": null}}));
        assert_eq!(reasons(&taken), [names::EVENT_RELEASED]);
        // Since then another controller has written its own address.
        service["metadata"]["managedFields"] = json!([{"manager": "cloud", "operation": "Update",
            "fieldsV1": {"f:status": {"f:loadBalancer": {"f:ingress": {}}}}}]);
        assert_eq!(change(pool(), service).unwrap().body["status"], json!({"conditions": []}));
    }
    let foreign = balancer(&json!({"loadBalancerClass": "example.com/other"}), &json!({}));
    assert!(change(pool(), foreign).is_none());
}
