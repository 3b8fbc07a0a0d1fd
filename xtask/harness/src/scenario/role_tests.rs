//! Tests of [`super`].
use super::*;

fn nodes() -> Vec<NodeInfo> {
    let node = |name: &str, role, last| NodeInfo {
        name: name.into(),
        role,
        address: std::net::Ipv4Addr::new(198, 18, 0, last).into(),
        device: "eth0".into(),
    };
    vec![node("x-control-plane", Role::ControlPlane, 2), node("x-w", Role::Worker, 3), node("x-w2", Role::Worker, 4)]
}

#[test]
fn roles_become_names_and_addresses_of_this_cluster() {
    let text = "a: \"${control-plane}\"\nb: [\"${worker2}\", \"${worker1.address}\"]\n";
    let expected = "a: \"x-control-plane\"\nb: [\"x-w2\", \"198.18.0.3\"]\n";
    assert_eq!(resolve(text, &nodes()).unwrap(), expected);
    assert_eq!(resolve("nothing $here {}", &nodes()).unwrap(), "nothing $here {}");
}

#[test]
fn what_is_no_role_is_an_error_with_its_line() {
    for (text, wrong) in [
        ("\n\n${master}", "${master}"),
        ("\n\n${worker0}", "${worker0}"),
        ("\n\nx: ${worker1.port}", "\"port\""),
        ("\n\n${worker1", "without }"),
        ("\n\n${worker3}", "no node of this cluster"),
    ] {
        let error = format!("{:#}", resolve(text, &nodes()).unwrap_err());
        assert!(error.contains(wrong) && error.contains("line 3"), "{text:?}: {error}");
    }
}

#[test]
fn the_workers_that_are_named_are_counted() {
    assert_eq!(workers("${worker1} ${worker3.address} ${control-plane}").unwrap(), 3);
    assert_eq!(workers("none").unwrap(), 0);
}
