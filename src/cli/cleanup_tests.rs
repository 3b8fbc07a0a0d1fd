//! Tests of [`super`].
use std::net::Ipv4Addr;

use super::*;

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.into(), mac: [0; 6], up: true, mtu: 1500 }
}

#[test]
fn only_devices_that_the_agent_noted_or_routes_to_are_pods() {
    let links = [link(1, "lxc_health"), link(2, "lxc0123456789ab"), link(3, "lxcfedcba987654"), link(4, "eth0")];
    let to_pod = Route {
        destination: Ipv4Addr::new(10, 244, 1, 9),
        prefix: 32,
        gateway: None,
        device: 2,
        protocol: ROUTE_PROTOCOL,
    };
    let to_node = Route {
        destination: Ipv4Addr::new(10, 244, 2, 0),
        prefix: 24,
        gateway: Some(Ipv4Addr::new(172, 18, 0, 3)),
        device: 4,
        protocol: ROUTE_PROTOCOL,
    };
    let noted = BTreeSet::from(["lxcfedcba987654".to_owned(), "eth0".to_owned()]);
    assert_eq!(pod_devices(&links, &[to_pod, to_node], &noted), ["lxc0123456789ab", "lxcfedcba987654"]);
}
