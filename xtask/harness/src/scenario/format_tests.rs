//! Tests of [`super`].
use super::*;

const HEAD: &str = "apiVersion: e2e/v1\nkind: Scenario\nmetadata: {name: x}\nspec:\n  steps:\n";

#[test]
fn an_unknown_key_is_an_error_with_its_place() {
    let error = format!("{:#}", parse(&format!("{HEAD}  - id: a\n    asert: []\n"), "x.yaml").unwrap_err());
    assert!(error.contains("asert") && error.contains("line 7"), "{error}");
}

#[test]
fn only_the_walkthrough_may_name_public_pools() {
    let text = format!("{HEAD}  - id: a\n    create: [{{cidr: 20.0.10.0/24}}]\n");
    assert!(parse(&text, "walkthrough.yaml").is_ok());
    let error = format!("{:#}", parse(&text, "other.yaml").unwrap_err());
    assert!(error.contains("line 7") && error.contains("198.18.0.0/15"), "{error}");
}

#[test]
fn ids_are_unique() {
    assert!(parse(&format!("{HEAD}  - id: a\n  - id: a\n"), "x.yaml").is_err());
}

#[test]
fn a_worker_that_is_named_must_be_needed() {
    let text = "apiVersion: e2e/v1\nkind: Scenario\nmetadata: {name: x}\nspec:\n  needs: {workers: 2}\n  steps:\n";
    let step = |role: &str| format!("{text}  - {{id: a, create: [{{name: \"${{{role}}}\"}}]}}\n");
    assert!(parse(&step("worker2"), "x.yaml").is_ok());
    let error = format!("{:#}", parse(&step("worker3"), "x.yaml").unwrap_err());
    assert!(error.contains("worker3") && error.contains("needs.workers is 2"), "{error}");
}

#[test]
fn unmet_needs_have_a_reason() {
    let node = |role| NodeInfo {
        name: "n".into(),
        role,
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        device: "eth0".into(),
    };
    let cluster = [node(Role::ControlPlane), node(Role::Worker)];
    assert_eq!(Needs { workers: 1 }.unmet(&cluster), None);
    assert!(Needs { workers: 2 }.unmet(&cluster).is_some_and(|reason| reason.contains("needs 2 workers")));
}
