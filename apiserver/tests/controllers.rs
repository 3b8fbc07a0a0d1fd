//! The controllers as a whole: in process, under paused time, as a client sees them.

#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "controllers/cluster.rs"]
mod cluster;

use std::time::Duration;

use cluster::Cluster;
use serde_json::json;

/// Every new cluster has these within no time at all.
#[tokio::test(start_paused = true)]
async fn namespaces_get_an_account_and_the_authority() {
    let cluster = Cluster::start(1).await;
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "fresh"}})).await;
    cluster.settle().await;
    for namespace in ["default", "fresh", "kube-system"] {
        cluster.get(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/default")).await;
        let map = cluster.get(&format!("/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt")).await;
        assert_eq!(map["data"]["ca.crt"], "CA");
    }
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    assert_eq!(cluster.get(slice).await["endpoints"][0]["addresses"][0], "172.18.0.1");
}

#[tokio::test(start_paused = true)]
async fn nodes_get_ranges_and_pods_get_nodes() {
    let cluster = Cluster::start(1).await;
    for name in ["n1", "n2", "n3"] {
        cluster.add_node(name).await;
    }
    cluster.create_workload("deployments", "web", json!({"replicas": 3})).await;
    cluster.create_workload("daemonsets", "agent", json!({})).await;
    cluster.settle().await;
    let ranges: Vec<String> =
        cluster.items("/api/v1/nodes").await.iter().map(|n| n["spec"]["podCIDR"].to_string()).collect();
    assert_eq!(ranges, ["\"10.244.0.0/24\"", "\"10.244.1.0/24\"", "\"10.244.2.0/24\""]);
    for app in ["web", "agent"] {
        let pods = cluster.items(&format!("/api/v1/pods?labelSelector=app%3D{app}")).await;
        let mut nodes: Vec<&str> = pods.iter().map(|pod| pod["spec"]["nodeName"].as_str().unwrap()).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, ["n1", "n2", "n3"], "{app}");
    }
    let set = cluster.get("/apis/apps/v1/namespaces/default/daemonsets/agent").await;
    assert_eq!((&set["status"]["desiredNumberScheduled"], &set["status"]["numberUnavailable"]), (&json!(3), &json!(3)));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_its_content_and_waits_for_finalizers() {
    let cluster = Cluster::start(1).await;
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "doomed"}})).await;
    let map = json!({"metadata": {"name": "held", "finalizers": ["example.org/hold"]}});
    cluster.create("/api/v1/namespaces/doomed/configmaps", map).await;
    cluster.delete("/api/v1/namespaces/doomed", json!({})).await;
    cluster.settle().await;
    let namespace = cluster.get("/api/v1/namespaces/doomed").await;
    let messages: Vec<&str> =
        namespace["status"]["conditions"].as_array().unwrap().iter().map(|c| c["message"].as_str().unwrap()).collect();
    assert!(messages.contains(&"Some resources are remaining: configmaps. has 1 resource instances"), "{messages:?}");
    let path = "/api/v1/namespaces/doomed/configmaps/held";
    cluster.merge(path, json!({"metadata": {"finalizers": null}})).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(cluster.find("/api/v1/namespaces/doomed").await.is_none(), "it goes as soon as nothing is left");
}
