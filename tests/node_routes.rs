//! Tier 3: routes to other nodes' pods, in a namespace with a real routing table. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

mod support;

use std::net::Ipv4Addr;

use portolan::node::routes::{Peer, reconcile};
use portolan::sys::netlink::{Netlink, Route};
use support::world::{FAR, NODE, Ns};

const CIDR: Ipv4Addr = Ipv4Addr::new(10, 250, 2, 0);

fn peers(gateway: Ipv4Addr) -> Vec<Peer> {
    vec![Peer { name: "far".into(), address: gateway, pod_cidr: Some("10.250.2.0/24".parse().unwrap()) }]
}

fn route_to_pods(netlink: &mut Netlink) -> Option<Route> {
    netlink.routes().unwrap().into_iter().find(|route| route.destination == CIDR)
}

/// A namespace with `eth0` on the nodes' segment.
fn node() -> Option<(Ns, Ns)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    let (node, far) = (Ns::new(), Ns::new());
    support::world::wire(&node, &far, NODE);
    far.run(|| support::world::up(&mut Netlink::open().unwrap(), "eth0", &[FAR]));
    Some((node, far))
}

#[test]
fn a_route_that_went_with_its_link_comes_back() {
    let Some((node, _far)) = node() else { return };
    node.run(|| {
        let mut netlink = Netlink::open().unwrap();
        reconcile(&mut netlink, &peers(FAR)).unwrap();
        let made = route_to_pods(&mut netlink).expect("the route was made");
        let device = netlink.link("eth0").unwrap().unwrap().index;
        netlink.set_down(device).unwrap();
        assert_eq!(route_to_pods(&mut netlink), None, "the kernel takes routes away with their link");
        netlink.set_up(device).unwrap();
        reconcile(&mut netlink, &peers(FAR)).unwrap();
        assert_eq!(route_to_pods(&mut netlink), Some(made));
        let other = Ipv4Addr::new(172, 30, 0, 9);
        reconcile(&mut netlink, &peers(other)).unwrap();
        assert_eq!(route_to_pods(&mut netlink).unwrap().gateway, Some(other), "a node that moved");
        reconcile(&mut netlink, &[]).unwrap();
        assert_eq!(route_to_pods(&mut netlink), None, "a node that left");
    });
}

#[test]
fn somebody_elses_route_is_left_alone_and_named() {
    let Some((node, _far)) = node() else { return };
    node.run(|| {
        let mut netlink = Netlink::open().unwrap();
        let device = netlink.link("eth0").unwrap().unwrap().index;
        let gateway = Some(Ipv4Addr::new(172, 30, 0, 200));
        // RTPROT_STATIC: an administrator's.
        let foreign = Route { destination: CIDR, prefix: 24, gateway, device, protocol: 4 };
        netlink.put_route(&foreign).unwrap();
        let error = format!("{:#}", reconcile(&mut netlink, &peers(FAR)).unwrap_err());
        assert!(error.contains("10.250.2.0/24 via 172.30.0.200"), "{error}");
        assert_eq!(route_to_pods(&mut netlink), Some(foreign));
    });
}
