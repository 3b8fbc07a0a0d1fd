//! Tests of [`super`].
use super::*;

const NOTHING: Caps = Caps { faults: false, settings: false, fenced: false };

fn step(yaml: &str) -> Step {
    serde_yaml::from_str(&format!("id: one\n{yaml}")).unwrap()
}

#[test]
fn what_a_cluster_of_somebody_elses_cannot_give_is_named() {
    let why = |yaml: &str| step_unmet(&step(yaml), NOTHING, false, false).unwrap_or_default();
    assert_eq!(why("matrix: {service: web, socketLb: true}"), "");
    assert!(why("socketLb: false").contains("changes settings"));
    assert!(why("leastPrivilege: true").contains("changes settings"));
    assert!(why("node: {name: n, action: restart}").contains("changes settings"));
    assert!(why("agentRestart: {service: web, away: 1}").contains("changes settings"));
    assert!(why("plant: {wipeMap: {map: a, node: b}}\ncaughtBy: x").contains("plants a fault"));
    let own = Caps { faults: true, settings: true, fenced: true };
    assert!(step_unmet(&step("agentRestart: {service: web, away: 1}"), own, false, true).unwrap().contains("outside"));
    assert!(step_unmet(&step("leastPrivilege: true"), own, true, false).unwrap().contains("audit"));
    assert_eq!(step_unmet(&step("leastPrivilege: true"), own, true, true), None);
}

#[test]
fn a_pool_of_public_addresses_is_seen_in_whatever_form_it_is_written() {
    let why = |spec: &str| {
        let yaml = format!("create: [{{kind: CiliumLoadBalancerIPPool, metadata: {{name: p}}, spec: {spec}}}]");
        public_pool(&step(&yaml), Path::new("/")).unwrap()
    };
    assert_eq!(why("{blocks: [{cidr: 198.18.1.0/24}, {start: 10.0.0.1, stop: 10.0.0.9}]}"), None);
    assert!(why("{blocks: [{cidr: 20.0.10.0/24}]}").unwrap().contains("20.0.10.0/24"));
    assert!(why("{cidrs: [{cidr: 30.0.10.0/24}]}").unwrap().contains("30.0.10.0/24"));
    assert!(why("{blocks: [{start: 10.255.255.254, stop: 11.0.0.3}]}").unwrap().contains("11.0.0.3"));
    assert!(why("{blocks: [{cidr: 2a00::/64}]}").is_some());
}
