//! Tests of [`super`].
use super::*;

fn service(name: &str, version: u64, ip: Option<&str>) -> Service {
    let ingress: Vec<_> = ip.into_iter().map(|ip| serde_json::json!({"ip": ip})).collect();
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string()},
        "status": {"loadBalancer": {"ingress": ingress}},
    }))
    .unwrap()
}

#[test]
fn an_address_that_two_had_for_a_moment_is_remembered() {
    let mut holders = Holders::default();
    holders.take(watcher::Event::Apply(service("a", 1, Some("198.18.0.1"))));
    holders.take(watcher::Event::Apply(service("b", 2, Some("198.18.0.1"))));
    holders.take(watcher::Event::Apply(service("b", 3, Some("198.18.0.2"))));
    assert_eq!(
        holders.twice.iter().collect::<Vec<_>>(),
        ["198.18.0.1 was held by default/a and default/b at the same time"]
    );
    assert_eq!(holders.newest, 3);
}

#[test]
fn an_address_that_is_passed_on_is_held_once() {
    let mut holders = Holders::default();
    holders.take(watcher::Event::Apply(service("a", 1, Some("198.18.0.1"))));
    holders.take(watcher::Event::Delete(service("a", 2, Some("198.18.0.1"))));
    holders.take(watcher::Event::Apply(service("b", 3, Some("198.18.0.1"))));
    assert!(holders.twice.is_empty());
}

#[test]
fn a_new_list_replaces_the_old_one() {
    let mut holders = Holders::default();
    holders.take(watcher::Event::Apply(service("a", 1, Some("198.18.0.1"))));
    holders.take(watcher::Event::Init);
    holders.take(watcher::Event::InitApply(service("b", 5, Some("198.18.0.1"))));
    holders.take(watcher::Event::InitDone);
    assert!(holders.twice.is_empty(), "a is gone");
}
