//! Tests of [`super`].
use super::*;

fn connected(destination: &str, prefix: u8, device: u32) -> Route {
    Route { destination: destination.parse().unwrap(), prefix, gateway: None, device, protocol: 2 }
}

fn peer(address: &str, cidr: Option<&str>) -> Peer {
    Peer { name: address.into(), address: address.parse().unwrap(), pod_cidr: cidr.map(|cidr| cidr.parse().unwrap()) }
}

#[test]
fn only_peers_on_a_connected_network_with_a_pod_cidr_get_a_route() {
    let present = [connected("172.18.0.0", 16, 2), connected("10.244.0.5", 32, 9)];
    let peers = [
        peer("172.18.0.3", Some("10.244.1.0/24")),
        peer("172.18.0.4", None),
        peer("192.168.7.1", Some("10.244.3.0/24")),
    ];
    let routes = desired(&peers, &present);
    assert_eq!(routes.len(), 1);
    assert_eq!(routes[0].gateway, Some("172.18.0.3".parse().unwrap()));
    assert_eq!((routes[0].destination, routes[0].prefix, routes[0].device), ("10.244.1.0".parse().unwrap(), 24, 2));
}
