//! Tests of [`super`].
use super::*;
use serde_json::json;

fn index(pool: &str, services: &[Value]) -> Index {
    let mut index = Index::default();
    let pool = json!({"metadata": {"name": "p"}, "spec": {"blocks": [{"cidr": pool}]}});
    index.take(Event::Pool(watcher::Event::Apply(serde_json::from_value(pool).unwrap())));
    for service in services {
        index.take(Event::Service(watcher::Event::Apply(serde_json::from_value(service.clone()).unwrap())));
    }
    index
}

/// A Service that has these addresses from us and asks for others.
fn service(name: &str, version: u32, has: &[&str], asks: &str) -> Value {
    let list: Vec<Value> = has.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string(),
            "annotations": {"lbipam.cilium.io/ips": asks}},
        "spec": {"type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": list}},
    })
}

/// What each Service has after the writes that are sent, and whether more wait.
fn sent(index: &Index, in_doubt: bool) -> (Vec<(String, Value)>, bool) {
    let (writes, waiting) = safe(index, Timestamp::UNIX_EPOCH, in_doubt);
    let ingress = |write| match write {
        Write::Service(name, change) => Some((name.name, change.body["status"]["loadBalancer"]["ingress"].clone())),
        Write::Pool(..) => None,
    };
    (writes.into_iter().filter_map(ingress).collect(), waiting)
}

#[test]
fn an_address_is_given_only_after_it_was_taken() {
    let moving = service("a", 1, &["198.18.0.1"], "198.18.0.2");
    let waiting = service("b", 2, &[], "198.18.0.1");
    let (first, more) = sent(&index("198.18.0.0/30", &[moving, waiting.clone()]), false);
    assert_eq!(first, [("a".to_owned(), json!([{"ip": "198.18.0.2"}]))]);
    assert!(more);
    let moved = service("a", 3, &["198.18.0.2"], "198.18.0.2");
    let (second, more) = sent(&index("198.18.0.0/30", &[moved, waiting]), false);
    assert!(second.contains(&("b".to_owned(), json!([{"ip": "198.18.0.1"}]))) && !more, "{second:?}");
}

#[test]
fn two_that_swap_addresses_both_let_go_first() {
    let a = service("a", 1, &["198.18.0.1"], "198.18.0.2");
    let b = service("b", 2, &["198.18.0.2"], "198.18.0.1");
    let (first, more) = sent(&index("198.18.0.0/30", &[a, b]), false);
    assert_eq!(first, [("a".to_owned(), json!([])), ("b".to_owned(), json!([]))]);
    assert!(more);
}

#[test]
fn nothing_is_given_out_while_it_is_not_known_what_came_of_a_write() {
    let index = index("198.18.0.0/30", &[service("a", 1, &[], ""), service("b", 2, &["203.0.113.1"], "198.18.0.9")]);
    let (writes, more) = sent(&index, true);
    assert_eq!(writes, [("b".to_owned(), json!([]))], "what is taken away is no harm");
    assert!(more);
    assert!(sent(&index, false).0.iter().any(|(name, ingress)| name == "a" && ingress.is_array()));
}
