//! Tests of [`super`].
use super::*;
use serde_json::json;

fn service(managed: &serde_json::Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "s", "namespace": "default", "managedFields": managed},
        "status": {
            "loadBalancer": {"ingress": [{"ip": "198.18.9.9"}]},
            "conditions": [{"type": CONDITION_SATISFIED, "status": "False", "reason": "no_pool", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    }))
    .unwrap()
}

#[test]
fn an_address_is_ours_if_we_wrote_it_last() {
    let entry = |manager: &str, fields: &serde_json::Value| json!({"manager": manager, "operation": "Update", "fieldsV1": fields});
    let ingress = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
    let conditions = json!({"f:status": {"f:conditions": {}}});
    for (managed, ours) in [
        (json!([entry(FIELD_MANAGER, &ingress)]), true),
        (json!([entry(FIELD_MANAGER, &conditions), entry("cloud", &ingress)]), false),
        (json!([entry("cloud", &ingress)]), false),
        // The record was cleared: the condition decides.
        (json!([]), true),
    ] {
        assert_eq!(owns_ingress(&service(&managed)), ours, "{managed}");
    }
}

fn spec(spec: &serde_json::Value, annotations: &serde_json::Value) -> Service {
    let metadata = json!({"name": "s", "namespace": "default", "annotations": annotations});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

#[test]
fn requests_come_from_the_field_and_from_either_annotation() {
    let new = "lbipam.cilium.io/ips";
    let old = "io.cilium/lb-ipam-ips";
    for (field, annotations, addresses, unreadable) in [
        ("", json!({}), vec![], vec![]),
        (
            "198.18.0.1",
            json!({new: "198.18.0.2, 2001:db8::1 ,198.18.0.1"}),
            vec!["198.18.0.1", "198.18.0.2", "2001:db8::1"],
            vec![],
        ),
        ("", json!({old: "198.18.0.2"}), vec!["198.18.0.2"], vec![]),
        ("", json!({new: "", old: "198.18.0.2"}), vec![], vec![]),
        ("", json!({new: "198.18.0.2/32,web"}), vec![], vec!["198.18.0.2/32", "web"]),
    ] {
        let (asked, not) = requests(&spec(&json!({"loadBalancerIP": field}), &annotations));
        let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
        assert_eq!(
            (asked, not),
            (addresses.iter().map(|a| (*a).to_owned()).collect(), unreadable.iter().map(|a| (*a).to_owned()).collect()),
            "{field} {annotations}"
        );
    }
}

#[test]
fn families() {
    for (policy, listed, v4, v6) in [
        (json!(null), json!(null), true, false),
        (json!(null), json!(["IPv6"]), false, true),
        (json!("SingleStack"), json!(["IPv6", "IPv4"]), false, true),
        (json!("PreferDualStack"), json!(["IPv4"]), true, false),
        (json!("PreferDualStack"), json!(null), true, true),
        (json!("PreferDualStack"), json!(["IPv6", "IPv4"]), true, true),
        (json!("RequireDualStack"), json!(["IPv4"]), true, true),
    ] {
        let families = super::families(&spec(&json!({"ipFamilyPolicy": policy, "ipFamilies": listed}), &json!({})));
        assert_eq!((families.contains(&Family::V4), families.contains(&Family::V6)), (v4, v6), "{policy} {listed}");
    }
}

#[test]
fn what_the_selector_says_about_name_and_namespace_cannot_be_forged() {
    let mut service = spec(&json!({"type": "LoadBalancer"}), &json!({}));
    service.metadata.labels = Some(BTreeMap::from([(SELECTOR_NAMESPACE.to_owned(), "forged".to_owned())]));
    let input = service_input(&service_name(&service), &service);
    assert_eq!(input.labels[SELECTOR_NAMESPACE], "default");
    assert_eq!(input.labels[SELECTOR_NAME], "s");
}

#[test]
fn addresses_are_held_since_they_were_written() {
    let entry = |time: &str, fields: &serde_json::Value| json!({"manager": FIELD_MANAGER, "operation": "Update", "time": time, "fieldsV1": fields});
    let ingress = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
    let conditions = json!({"f:status": {"f:conditions": {}}});
    let managed = json!([entry("1970-01-01T00:00:05Z", &conditions), entry("1970-01-01T00:00:09Z", &ingress)]);
    assert_eq!(held_since(&service(&managed)), 9);
    assert_eq!(held_since(&service(&json!([]))), 0, "without a record the Service's age counts");
}

#[test]
fn an_old_event_does_not_undo_what_was_read() {
    let at = |uid: &str, version: u32| -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "default", "uid": uid,
            "resourceVersion": version.to_string()}}))
        .unwrap()
    };
    let name = service_name(&at("", 0));
    let mut index = Index::default();
    let take = |index: &mut Index, event| index.take(Event::Service(event));
    take(&mut index, watcher::Event::Apply(at("a", 5)));
    index.listed(Vec::new(), vec![at("b", 9)]);
    // What happened before the list still comes by the watch.
    take(&mut index, watcher::Event::Apply(at("a", 6)));
    take(&mut index, watcher::Event::Delete(at("a", 7)));
    assert_eq!(index.services.all[&name].resource_version().as_deref(), Some("9"));
    take(&mut index, watcher::Event::InitApply(at("b", 8)));
    take(&mut index, watcher::Event::InitDone);
    assert_eq!(index.services.all[&name].resource_version().as_deref(), Some("9"), "nor does a list that came late");
    take(&mut index, watcher::Event::Delete(at("b", 10)));
    assert!(index.services.all.is_empty());
    index.read(&name, Some(at("c", 12)));
    index.read(&name, None);
    assert!(index.services.all.is_empty());
}
