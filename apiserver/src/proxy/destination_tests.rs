//! Tests of [`super`].
use serde_json::json;

use super::*;

#[test]
fn the_only_container_is_meant_and_others_are_named() {
    let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
    let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}],
        "initContainers": [{"name": "i"}]}});
    assert_eq!(container(&one, "").unwrap(), "a");
    assert_eq!(container(&two, "i").unwrap(), "i");
    assert_eq!(
        container(&two, "").unwrap_err().message,
        "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
    );
    assert_eq!(container(&one, "z").unwrap_err().message, "container z is not valid for pod p");
}

#[test]
fn options_are_checked_and_translated() {
    let query = |text| Query::parse(Some(text));
    let log = query("container=a&follow=true&tailLines=5&timestamps=false&x=y");
    assert_eq!(log_options(&log, "p").unwrap(), "?follow=true&tailLines=5");
    assert_eq!(log_options(&query(""), "p").unwrap(), "");
    let wrong = log_options(&query("tailLines=-1"), "p").unwrap_err();
    assert_eq!(
        wrong.message,
        "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
    );
    let exec = query("command=sh&command=-c&command=a+b%26c&stdin=true&stdout=true&container=a");
    assert_eq!(streams(&exec), "?input=1&output=1&command=sh&command=-c&command=a+b%26c");
}

#[test]
fn the_preferred_address_wins_and_the_node_names_the_port() {
    let types = ["InternalIP".to_owned(), "Hostname".to_owned()];
    let node = json!({"metadata": {"name": "n"}, "status": {"addresses": [{"type": "Hostname", "address": "n"},
        {"type": "InternalIP", "address": "10.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 1025}}}});
    assert_eq!(address(&node, &types).unwrap(), ("10.0.0.1".into(), 1025));
    assert!(address(&json!({"metadata": {"name": "n"}}), &types).unwrap_err().message.contains("InternalIP, Hostname"));
}

#[test]
fn what_follows_proxy_is_passed_on_as_it_was_sent() {
    let uri = |text: &str| text.parse::<http::Uri>().unwrap();
    assert_eq!(beyond_proxy(&uri("/api/v1/nodes/n/proxy/pods?a=b%20c")), "/pods?a=b%20c");
    assert_eq!(beyond_proxy(&uri("/api/v1/nodes/n/proxy")), "/");
}
