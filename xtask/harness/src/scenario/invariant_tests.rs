//! Tests of [`super`]: each invariant meets a planted fault.
use super::*;
use serde_json::json;

fn pool(used: &str) -> Value {
    let condition = |kind: &str, message: &str| json!({"type": kind, "message": message});
    json!({"metadata": {"name": "p"}, "spec": {"cidrs": [{"cidr": "198.18.0.0/24"}]}, "status": {"conditions": [
        condition("cilium.io/IPsTotal", "254"), condition("cilium.io/IPsUsed", used), condition("cilium.io/IPsAvailable", "253")]}})
}

#[test]
fn addresses_and_counts() {
    let holders = |address: &str, names: &[&str]| {
        BTreeMap::from([(address.to_owned(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())])
    };
    assert!(address_violations(&holders("198.18.0.7", &["a"]), &[pool("1")]).is_empty());
    assert!(address_violations(&holders("198.18.0.7", &["a", "b"]), &[pool("1")])[0].contains("a and b"));
    assert!(address_violations(&holders("198.18.9.7", &["a"]), &[pool("1")])[0].contains("no pool"));
    assert!(address_violations(&BTreeMap::new(), &[pool("2")])[0].contains("is not 254"));
}

#[test]
fn denials_and_internal_errors_of_our_users() {
    let event =
        |user: &str, code: u64| json!({"user": {"username": user}, "responseStatus": {"code": code}, "verb": "get"});
    let agent = "system:serviceaccount:kube-system:portolan-agent";
    assert!(audit_violation(&event(agent, 403)).is_some());
    assert!(audit_violation(&event(agent, 500)).is_some());
    assert!(audit_violation(&event("system:kube-scheduler", 403)).is_none());
    let mut hung_up = event(agent, 500);
    hung_up["responseStatus"]["message"] = json!("context canceled");
    assert!(audit_violation(&hung_up).is_none());
    hung_up["responseStatus"]["code"] = json!(503);
    assert!(audit_violation(&hung_up).is_some());
    assert!(audit_violation(&event(agent, 200)).is_none() && audit_violation(&event(agent, 409)).is_none());
}

#[test]
fn errors_and_panics_in_logs() {
    assert!(log_violation("2026-01-01T00:00:00Z ERROR portolan: x"));
    assert!(log_violation("thread 'main' panicked at src/a.rs:1:1:"));
    assert!(!log_violation("2026-01-01T00:00:00Z  INFO portolan: no ERROR"));
}

#[test]
fn packets_that_the_fence_stopped_since_the_last_look() {
    assert_eq!(fence_violation(3, 3), None);
    assert!(fence_violation(3, 5).is_some_and(|text| text.starts_with("2 packets")));
}
