//! Tests of [`super`].
use super::*;
use k8s_openapi::api::core::v1::{NodeAddress, NodeSpec, NodeStatus};

fn node(name: &str, address: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    node.spec = Some(NodeSpec { pod_cidr: Some("10.244.1.0/24".to_owned()), ..NodeSpec::default() });
    let address = NodeAddress { address: address.to_owned(), type_: "InternalIP".to_owned() };
    node.status = Some(NodeStatus { addresses: Some(vec![address]), ..NodeStatus::default() });
    node
}

/// Regression: the routes to all other nodes went away from the first event of a list until its last.
#[test]
fn nothing_follows_from_a_list_that_is_not_complete() {
    let mut nodes = Nodes::default();
    assert!(!nodes.take(watcher::Event::Init));
    assert!(!nodes.take(watcher::Event::InitApply(node("a", "172.18.0.3"))));
    assert!(nodes.take(watcher::Event::InitDone));
    assert_eq!(nodes.all.len(), 1);
    assert!(!nodes.take(watcher::Event::Init), "nor from one that begins again");
    assert_eq!(nodes.all.len(), 1);
}

#[test]
fn heartbeats_change_nothing_and_addresses_do() {
    let mut nodes = Nodes::default();
    assert!(nodes.take(watcher::Event::Apply(node("a", "172.18.0.3"))));
    assert!(!nodes.take(watcher::Event::Apply(node("a", "172.18.0.3"))));
    assert!(nodes.take(watcher::Event::Apply(node("a", "172.18.0.9"))));
    assert!(nodes.take(watcher::Event::Delete(node("a", "172.18.0.9"))));
    assert!(!nodes.take(watcher::Event::Delete(node("a", "172.18.0.9"))));
}
