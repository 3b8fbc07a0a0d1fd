//! Tests of [`super`].
use super::*;

fn backend(node: &str, address: &str) -> Backend {
    Backend { pod: "p".into(), address: address.into(), node: node.into(), cookie: 1 }
}

fn entry(name: &str) -> Option<(String, String)> {
    Some((name.into(), "172.18.0.3".into()))
}

#[test]
fn a_remote_backend_sees_the_node_in_between_and_a_local_one_the_client() {
    let client = Client { address: Some("172.18.0.2".into()), entry: entry("w1"), ..Client::default() };
    assert!(client.admits("172.18.0.3", &backend("w2", "10.244.2.1")).is_ok());
    assert!(client.admits("172.18.0.2", &backend("w2", "10.244.2.1")).is_err());
    assert!(client.admits("172.18.0.2", &backend("w1", "10.244.1.1")).is_ok());
    assert!(client.admits("172.18.0.3", &backend("w1", "10.244.1.1")).is_err(), "SNAT that nothing asks for");
}

#[test]
fn a_client_outside_keeps_its_address_towards_a_local_backend() {
    let client = Client { entry: entry("w1"), nodes: vec!["172.18.0.3".into()], ..Client::default() };
    assert!(client.admits("192.168.7.2", &backend("w1", "10.244.1.1")).is_ok());
    assert!(client.admits("172.18.0.3", &backend("w1", "10.244.1.1")).is_err());
    assert!(client.admits("172.18.0.3", &backend("w2", "10.244.2.1")).is_ok());
}

#[test]
fn a_pod_that_reaches_itself_through_packets_sees_its_node() {
    let own = "10.244.1.1";
    let mut client = Client { address: Some(own.into()), hairpin: Some("172.18.0.3".into()), ..Client::default() };
    assert!(client.admits("172.18.0.3", &backend("w1", own)).is_ok());
    assert!(client.admits(own, &backend("w1", own)).is_err());
    assert!(client.admits(own, &backend("w2", "10.244.2.1")).is_ok());
    client.hairpin = None;
    assert!(client.admits(own, &backend("w1", own)).is_ok(), "socket LB connects it to itself");
}
