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
    let parallel = json!({"replicas": 3, "serviceName": "db", "podManagementPolicy": "Parallel"});
    cluster.create_workload("statefulsets", "db", parallel).await;
    cluster.settle().await;
    let ranges: Vec<String> =
        cluster.items("/api/v1/nodes").await.iter().map(|n| n["spec"]["podCIDR"].to_string()).collect();
    assert_eq!(ranges, ["\"10.244.0.0/24\"", "\"10.244.1.0/24\"", "\"10.244.2.0/24\""]);
    for app in ["web", "agent", "db"] {
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

#[tokio::test(start_paused = true)]
async fn a_claim_goes_with_the_last_pod_that_uses_it_and_a_volume_when_it_is_free() {
    let cluster = Cluster::start(1).await;
    cluster.add_node("n1").await;
    let (claims, volumes, pods) = (
        "/api/v1/namespaces/default/persistentvolumeclaims",
        "/api/v1/persistentvolumes",
        "/api/v1/namespaces/default/pods",
    );
    let modes = json!(["ReadWriteOnce"]);
    let wanted = json!({"accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}});
    cluster.create(claims, json!({"metadata": {"name": "c"}, "spec": wanted})).await;
    let disk = json!({"accessModes": modes, "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}});
    cluster.create(volumes, json!({"metadata": {"name": "v"}, "spec": disk})).await;
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
    let spec = json!({"nodeName": "n1", "containers": [{"name": "a", "image": "a"}], "volumes": [volume]});
    cluster.create(pods, json!({"metadata": {"name": "p"}, "spec": spec})).await;
    cluster.merge(&format!("{volumes}/v/status"), json!({"status": {"phase": "Bound"}})).await;
    cluster.settle().await;
    for path in [format!("{claims}/c"), format!("{volumes}/v")] {
        cluster.delete(&path, json!({})).await;
        cluster.settle().await;
        assert!(cluster.get(&path).await["metadata"]["deletionTimestamp"].is_string(), "{path} is in use");
    }
    cluster.delete(&format!("{pods}/p"), json!({"gracePeriodSeconds": 0})).await;
    cluster.merge(&format!("{volumes}/v/status"), json!({"status": {"phase": "Released"}})).await;
    cluster.settle().await;
    for path in [format!("{claims}/c"), format!("{volumes}/v")] {
        assert!(cluster.find(&path).await.is_none(), "{path} is free");
    }
}

/// A silent node is unknown after the grace, its pods are not ready and their endpoints neither, then they are evicted;
/// when it comes back its taints go.
#[tokio::test(start_paused = true)]
async fn a_node_is_lost_and_comes_back() {
    let cluster = Cluster::start(1).await;
    for name in ["n1", "n2", "n3"] {
        cluster.add_node(name).await;
    }
    cluster.create_workload("deployments", "web", json!({"replicas": 3})).await;
    cluster.create_service("web", "http").await;
    cluster.settle().await;
    cluster.run_pods().await;
    // n1 and n2 go on, n3 falls silent.
    for beat in 0..6 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        for name in ["n1", "n2"] {
            cluster.beat(name, beat).await;
        }
    }
    let node = cluster.get("/api/v1/nodes/n3").await;
    let ready = node["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("Unknown"), &json!("NodeStatusUnknown")));
    let taints: Vec<String> =
        node["spec"]["taints"].as_array().unwrap().iter().map(|t| format!("{}:{}", t["key"], t["effect"])).collect();
    let key = "\"node.kubernetes.io/unreachable\"";
    assert_eq!(taints, [format!("{key}:\"NoSchedule\""), format!("{key}:\"NoExecute\"")]);
    let ready = cluster.endpoints("web").await;
    assert_eq!(ready.iter().filter(|(_, ready)| *ready).count(), 2, "{ready:?}");
    // Five minutes are tolerated.
    for beat in 6..35 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        for name in ["n1", "n2"] {
            cluster.beat(name, beat).await;
        }
    }
    let pods = cluster.items("/api/v1/pods?fieldSelector=spec.nodeName%3Dn3").await;
    assert!(pods.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_string()), "{pods:?}");
    assert_eq!(cluster.items("/api/v1/pods").await.len(), 4, "there is another one in its place");
    cluster.beat("n3", 35).await;
    cluster.settle().await;
    assert!(cluster.get("/api/v1/nodes/n3").await["spec"]["taints"].is_null());
    // The node itself goes, and with it what nobody ends.
    cluster.delete("/api/v1/nodes/n3", json!({})).await;
    tokio::time::sleep(Duration::from_secs(41)).await;
    assert_eq!(cluster.items("/api/v1/pods").await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn owners_take_their_dependents_along_or_leave_them() {
    let cluster = Cluster::start(1).await;
    cluster.add_node("n1").await;
    for policy in ["Background", "Foreground", "Orphan"] {
        cluster.create_workload("deployments", "web", json!({"replicas": 1})).await;
        cluster.settle().await;
        let path = "/apis/apps/v1/namespaces/default/deployments/web";
        cluster.delete(path, json!({"propagationPolicy": policy})).await;
        cluster.settle().await;
        let (sets, pods) = (cluster.items("/apis/apps/v1/replicasets").await, cluster.items("/api/v1/pods").await);
        let present = cluster.find(path).await.is_some();
        match policy {
            // The pod has its grace, and in the foreground everybody waits for it.
            "Background" => assert_eq!((present, sets.len(), pods.len()), (false, 0, 1)),
            "Foreground" => assert_eq!((present, sets.len(), pods.len()), (true, 1, 1)),
            _ => {
                assert_eq!((present, sets.len(), pods.len()), (false, 1, 1));
                assert!(sets[0]["metadata"]["ownerReferences"].is_null());
                assert!(pods[0]["metadata"]["deletionTimestamp"].is_null());
                continue;
            }
        }
        assert!(pods[0]["metadata"]["deletionTimestamp"].is_string());
        let pod = pods[0]["metadata"]["name"].as_str().unwrap();
        cluster.delete(&format!("/api/v1/namespaces/default/pods/{pod}"), json!({"gracePeriodSeconds": 0})).await;
        cluster.settle().await;
        assert!(cluster.find(path).await.is_none(), "{policy}");
        assert!(cluster.items("/apis/apps/v1/replicasets").await.is_empty(), "{policy}");
    }
}

/// A custom resource owned by something that never was is deleted, one in the same namespace as its owner is not.
#[tokio::test(start_paused = true)]
async fn custom_resources_have_owners_too() {
    let cluster = Cluster::start(1).await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
    let names = json!({"plural": "things", "kind": "Thing"});
    let spec = json!({"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    cluster.create(path, json!({"metadata": {"name": "things.example.org"}, "spec": spec})).await;
    cluster.settle().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let owner = cluster.create(maps, json!({"metadata": {"name": "owner"}})).await;
    let things = "/apis/example.org/v1/namespaces/default/things";
    let thing = |name: &str, uid: &serde_json::Value| {
        let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid});
        json!({"apiVersion": "example.org/v1", "kind": "Thing",
            "metadata": {"name": name, "ownerReferences": [reference]}})
    };
    cluster.create(things, thing("owned", &owner["metadata"]["uid"])).await;
    cluster.create(things, thing("stray", &json!("4c9f1ff3-5b5f-4f0a-8a3c-000000000000"))).await;
    cluster.settle().await;
    let names: Vec<String> = cluster.items(things).await.iter().map(|t| t["metadata"]["name"].to_string()).collect();
    assert_eq!(names, ["\"owned\""]);
    cluster.delete(&format!("{maps}/owner"), json!({})).await;
    cluster.settle().await;
    assert!(cluster.items(things).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_without_a_gap() {
    let cluster = Cluster::start(1).await;
    cluster.add_node("n1").await;
    cluster.create_workload("deployments", "web", json!({"replicas": 4})).await;
    cluster.settle().await;
    cluster.run_pods().await;
    let path = "/apis/apps/v1/namespaces/default/deployments/web";
    let containers = json!([{"name": "c", "image": "i:2"}]);
    cluster.merge(path, json!({"spec": {"template": {"spec": {"containers": containers}}}})).await;
    for round in 0.. {
        cluster.settle().await;
        let status = cluster.get(path).await["status"].clone();
        assert!(status["availableReplicas"].as_i64().unwrap_or(0) >= 3, "{status}");
        assert!(status["replicas"].as_i64().unwrap_or(0) <= 5, "{status}");
        if status["updatedReplicas"] == 4 && status["availableReplicas"] == 4 && status["replicas"] == 4 {
            break;
        }
        assert!(round < 20, "it does not end: {status}");
        cluster.run_pods().await;
        cluster.end_pods().await;
    }
    let deployment = cluster.get(path).await;
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    let progressing = deployment["status"]["conditions"].as_array().unwrap();
    let progressing = progressing.iter().find(|condition| condition["type"] == "Progressing").unwrap();
    assert_eq!(progressing["reason"], "NewReplicaSetAvailable");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_rolls_node_by_node() {
    let cluster = Cluster::start(1).await;
    for name in ["n1", "n2", "n3"] {
        cluster.add_node(name).await;
    }
    cluster.create_workload("daemonsets", "agent", json!({})).await;
    cluster.settle().await;
    cluster.run_pods().await;
    let path = "/apis/apps/v1/namespaces/default/daemonsets/agent";
    let containers = json!([{"name": "c", "image": "i:2"}]);
    cluster.merge(path, json!({"spec": {"template": {"spec": {"containers": containers}}}})).await;
    for round in 0.. {
        cluster.settle().await;
        let status = cluster.get(path).await["status"].clone();
        assert!(status["numberAvailable"].as_i64().unwrap_or(0) >= 2, "{status}");
        if status["updatedNumberScheduled"] == 3 && status["numberAvailable"] == 3 {
            break;
        }
        assert!(round < 20, "it does not end: {status}");
        cluster.end_pods().await;
        cluster.settle().await;
        cluster.run_pods().await;
    }
    assert_eq!(cluster.items("/apis/apps/v1/controllerrevisions").await.len(), 2);
}

/// Pods that no Job counts may end: those that have been let go, and those that never had one.
#[tokio::test(start_paused = true)]
async fn pods_without_a_job_lose_its_finalizer() {
    let cluster = Cluster::start(1).await;
    cluster.add_node("n1").await;
    let (pods, finalizer) = ("/api/v1/namespaces/default/pods", json!(["batch.kubernetes.io/job-tracking"]));
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": spec}}});
    cluster.create("/apis/batch/v1/namespaces/default/jobs", job).await;
    cluster.settle().await;
    assert_eq!(cluster.items(pods).await[0]["metadata"]["finalizers"], finalizer);
    cluster.delete("/apis/batch/v1/namespaces/default/jobs/j", json!({"propagationPolicy": "Orphan"})).await;
    cluster.create(pods, json!({"metadata": {"name": "alone", "finalizers": finalizer}, "spec": spec})).await;
    cluster.settle().await;
    let found = cluster.items(pods).await;
    assert_eq!(found.len(), 2);
    for pod in found {
        let metadata = &pod["metadata"];
        assert_eq!((&metadata["finalizers"], &metadata["ownerReferences"]), (&json!(null), &json!(null)), "{pod}");
    }
}

/// What is said of an object again is counted, however the object has changed in the meantime.
#[tokio::test(start_paused = true)]
async fn events_are_counted_whatever_revision_they_are_about() {
    let cluster = Cluster::start(1).await;
    cluster.add_node("n1").await;
    cluster.create_workload("statefulsets", "db", json!({"replicas": 1, "serviceName": "db"})).await;
    cluster.settle().await;
    cluster.delete("/api/v1/namespaces/default/pods/db-0", json!({"gracePeriodSeconds": 0})).await;
    cluster.settle().await;
    let events = cluster.items("/api/v1/namespaces/default/events").await;
    let made: Vec<_> = events.iter().filter(|event| event["reason"] == "SuccessfulCreate").collect();
    let said = "create Pod db-0 in StatefulSet db successful";
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!((&made[0]["message"], &made[0]["count"]), (&json!(said), &json!(2)));
}
