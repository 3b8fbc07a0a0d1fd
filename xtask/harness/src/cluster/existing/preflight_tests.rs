//! Tests of [`super`].
use serde_json::json;

use super::*;

fn set(name: &str, ready: i32, wanted: i32) -> DaemonSet {
    let status = json!({"numberReady": ready, "desiredNumberScheduled": wanted, "currentNumberScheduled": wanted,
                        "numberMisscheduled": 0});
    serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
}

fn node(cidrs: &[&str]) -> Node {
    serde_json::from_value(json!({"metadata": {"name": "one"}, "spec": {"podCIDRs": cidrs}})).unwrap()
}

#[test]
fn a_cluster_with_portolan_alone_is_fit() {
    assert_eq!(objections(&[set("portolan", 3, 3)], &[node(&["10.244.0.0/24"])]), Vec::<String>::new());
}

#[test]
fn everything_that_stands_in_the_way_is_said_at_once() {
    let all = objections(&[set("kube-proxy", 3, 3), set("kindnet", 3, 3)], &[node(&["10.244.0.0/24", "fd00::/64"])]);
    let text = all.join("\n");
    for word in ["not installed", "kube-proxy runs", "kindnet", "only IPv4"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(
        objections(&[set("portolan", 2, 3), set("kube-proxy", 0, 0)], &[]),
        ["2 of 3 of portolan's agents are ready"]
    );
}

#[test]
fn only_a_clear_yes_is_one() {
    assert!(agrees("y\n") && agrees(" YES "));
    assert!(!agrees("") && !agrees("\n") && !agrees("no") && !agrees("yep"));
}
