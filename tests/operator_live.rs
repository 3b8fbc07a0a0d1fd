//! Tier 2: the real operator against a real etcd and kube-apiserver (KUBEBUILDER_ASSETS), with its own service account and
//! no right more. What it must never do is watched in the order in which the API server saw it, and read from its audit log.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

mod live;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use live::{ApiServer, Monitor, Operator, assets, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ACCOUNT: &str = "portolan-operator";
/// A change is followed within this time.
const SOON: Duration = Duration::from_secs(15);
/// A lease that nobody renews is taken over within this time: 15 s, a request timeout of 5 s, a period of 2 s, and rounds.
const TAKEOVER: Duration = Duration::from_secs(40);
const SATISFIED: &str = "cilium.io/IPAMRequestSatisfied";

fn pools(server: &ApiServer, version: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("cilium.io", version, "CiliumLoadBalancerIPPool");
    Api::all_with(server.client.clone(), &ApiResource::from_gvk_with_plural(&kind, "ciliumloadbalancerippools"))
}

fn services(server: &ApiServer) -> Api<Service> {
    Api::namespaced(server.client.clone(), "default")
}

async fn put_pool(server: &ApiServer, version: &str, name: &str, spec: Value) -> kube::Result<DynamicObject> {
    let body = json!({"apiVersion": format!("cilium.io/{version}"), "kind": "CiliumLoadBalancerIPPool",
        "metadata": {"name": name}, "spec": spec});
    pools(server, version).create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await
}

async fn patch_pool(server: &ApiServer, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    pools(server, "v2").patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// A Service of type LoadBalancer with these labels and more spec.
async fn put_service(server: &ApiServer, name: &str, labels: Value, spec: Value) -> Service {
    let mut body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
        "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]}});
    body["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    services(server).create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap()
}

async fn patch_service(server: &ApiServer, name: &str, patch: Value) {
    services(server).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Address(es), joined, and the reason of the condition.
async fn state(server: &ApiServer, name: &str) -> (String, String) {
    let service = services(server).get(name).await.unwrap();
    let status = serde_json::to_value(service.status.unwrap_or_default()).unwrap();
    let ips = status["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    let ips: Vec<&str> = ips.iter().filter_map(|entry| entry["ip"].as_str()).collect();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let ours = conditions.iter().find(|condition| condition["type"] == SATISFIED);
    (ips.join(" "), ours.map_or("", |condition| condition["reason"].as_str().unwrap()).to_owned())
}

/// Waits until the Service's addresses begin as given and the condition's reason is this; returns the addresses.
async fn becomes(server: &ApiServer, name: &str, prefix: &str, reason: &str) -> String {
    eventually(&format!("service {name}: addresses {prefix:?}…, reason {reason:?}"), SOON, || async {
        let seen = state(server, name).await;
        let fits = seen.0.starts_with(prefix) && seen.0.is_empty() == prefix.is_empty() && seen.1 == reason;
        if fits { Ok(seen.0) } else { Err(format!("{seen:?}")) }
    })
    .await
}

async fn pool_condition(server: &ApiServer, name: &str, kind: &str) -> Value {
    let pool = pools(server, "v2").get(name).await.unwrap();
    let conditions = pool.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

async fn pool_becomes(server: &ApiServer, name: &str, kind: &str, field: &str, wanted: &str) {
    eventually(&format!("pool {name}: {kind}.{field} contains {wanted:?}"), SOON, || async {
        let seen = pool_condition(server, name, kind).await;
        if seen[field].as_str().is_some_and(|text| text.contains(wanted)) { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
}

fn start(name: &str) -> Option<(std::path::PathBuf, String)> {
    assets().map(|dir| (dir, name.to_owned()))
}

macro_rules! api_server {
    ($name:literal) => {{
        let Some((dir, name)) = start($name) else { return };
        ApiServer::start(&dir, &name).await
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_and_services_are_served_as_written() {
    let server = api_server!("pools");
    let operator = Operator::start(&server, "a", ACCOUNT).await;
    without_a_pool_nothing_is_touched(&server).await;
    both_versions_and_columns(&server).await;
    a_disabled_pool(&server).await;
    conflicts(&server).await;
    selectors(&server).await;
    families(&server).await;
    requests(&server).await;
    changes(&server).await;
    other_controllers(&server).await;
    a_planted_duplicate(&server).await;
    events(&server).await;
    assert_eq!(server.forbidden(), Vec::<String>::new(), "the operator's rights are enough");
    assert!(!operator.log().contains("ERROR") && !operator.log().contains("panicked"), "{}", operator.log());
    operator.stop();
}

async fn without_a_pool_nothing_is_touched(server: &ApiServer) {
    let before = put_service(server, "waiting", json!({}), json!({})).await;
    // What is written for a pool is written after everything that could have been for the Service.
    put_pool(server, "v2", "none", json!({"serviceSelector": {"matchLabels": {"no": "body"}}})).await.unwrap();
    becomes(server, "waiting", "", "no_pool").await;
    let writes = services(server).get("waiting").await.unwrap();
    assert_eq!(writes.uid(), before.uid());
    pools(server, "v2").delete("none", &Default::default()).await.unwrap();
    services(server).delete("waiting", &Default::default()).await.unwrap();
}

async fn both_versions_and_columns(server: &ApiServer) {
    let selecting = |color: &str| json!({"matchLabels": {"color": color}});
    put_pool(
        server,
        "v2alpha1",
        "blue",
        json!({"cidrs": [{"cidr": "198.18.1.0/24"}], "serviceSelector": selecting("blue")}),
    )
    .await
    .unwrap();
    put_pool(
        server,
        "v2",
        "red",
        json!({"blocks": [{"start": "198.18.2.10", "stop": "198.18.2.19"}], "serviceSelector": selecting("red")}),
    )
    .await
    .unwrap();
    for version in ["v2", "v2alpha1"] {
        let all = pools(server, version).list(&ListParams::default()).await.unwrap();
        assert_eq!(all.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["blue", "red"], "{version}");
        assert_eq!(all.items[0].data["spec"]["cidrs"][0]["cidr"], "198.18.1.0/24", "{version} loses no field");
        let bad =
            json!({"serviceSelector": {"matchExpressions": [{"key": "a", "operator": "Equals", "values": ["b"]}]}});
        let error = put_pool(server, version, "bad", bad).await.unwrap_err().to_string();
        assert!(error.contains("Unsupported value") && error.contains("DoesNotExist"), "{version}: {error}");
        let error = put_pool(server, version, "bad", json!({"allowFirstLastIPs": "no"})).await.unwrap_err().to_string();
        assert!(error.contains("Unsupported value"), "{version}: {error}");
    }
    put_service(server, "blue", json!({"color": "blue"}), json!({})).await;
    becomes(server, "blue", "198.18.1.", "satisfied").await;
    pool_becomes(server, "blue", "cilium.io/IPsAvailable", "message", "253").await;
    pool_becomes(server, "red", "cilium.io/IPsAvailable", "message", "10").await;
    let table = server.kubectl(&["get", "ippools"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0].join(" "), "NAME DISABLED CONFLICTING IPS AVAILABLE AGE");
    assert_eq!(rows[1][..4], ["blue", "false", "False", "253"]);
    assert_eq!(rows[2][..4], ["red", "false", "False", "10"]);
}

async fn a_disabled_pool(server: &ApiServer) {
    let held = state(server, "blue").await.0;
    patch_pool(server, "blue", json!({"disabled": true})).await;
    put_service(server, "blue2", json!({"color": "blue"}), json!({})).await;
    becomes(server, "blue2", "", "no_pool").await;
    assert_eq!(state(server, "blue").await.0, held, "a disabled pool takes nothing back");
    patch_pool(server, "blue", json!({"disabled": false})).await;
    becomes(server, "blue2", "198.18.1.", "satisfied").await;
}

async fn conflicts(server: &ApiServer) {
    let conflict = "cilium.io/PoolConflict";
    // The API server's clock counts seconds; of two pools of one second the name decides, and this one's comes later.
    let overlapping = json!({"blocks": [{"cidr": "198.18.1.128/25"}, {"cidr": "198.18.3.0/24"}],
        "serviceSelector": {"matchLabels": {"color": "green"}}});
    put_pool(server, "v2", "late", overlapping).await.unwrap();
    pool_becomes(server, "late", conflict, "message", "from IP Pool 'blue'").await;
    assert_eq!(pool_condition(server, "late", conflict).await["reason"], "cidr_overlap");
    assert_eq!(pool_condition(server, "blue", conflict).await["status"], "False");
    put_service(server, "green", json!({"color": "green"}), json!({})).await;
    becomes(server, "green", "", "no_pool").await;
    patch_pool(server, "late", json!({"blocks": [{"cidr": "198.18.3.0/24"}]})).await;
    pool_becomes(server, "late", conflict, "reason", "resolved").await;
    becomes(server, "green", "198.18.3.", "satisfied").await;
}

async fn selectors(server: &ApiServer) {
    let namespace = json!({"matchLabels": {"io.kubernetes.service.namespace": "kube-system"}});
    put_pool(server, "v2", "system", json!({"blocks": [{"cidr": "198.18.4.0/24"}], "serviceSelector": namespace}))
        .await
        .unwrap();
    put_service(server, "forged", json!({"io.kubernetes.service.namespace": "kube-system"}), json!({})).await;
    becomes(server, "forged", "", "no_pool").await;
    let expressions = json!({"matchExpressions": [
        {"key": "io.kubernetes.service.name", "operator": "In", "values": ["forged", "other"]},
        {"key": "color", "operator": "DoesNotExist"}, {"key": "tier", "operator": "NotIn", "values": ["test"]}]});
    put_pool(server, "v2", "named", json!({"blocks": [{"cidr": "198.18.5.0/24"}], "serviceSelector": expressions}))
        .await
        .unwrap();
    becomes(server, "forged", "198.18.5.", "satisfied").await;
    patch_service(server, "forged", json!({"metadata": {"labels": {"tier": "test"}}})).await;
    becomes(server, "forged", "", "no_pool").await;
}

async fn families(server: &ApiServer) {
    put_pool(
        server,
        "v2",
        "six",
        json!({"blocks": [{"cidr": "2001:db8::/64"}], "serviceSelector": {"matchLabels": {"six": "yes"}}}),
    )
    .await
    .unwrap();
    put_service(server, "six", json!({"six": "yes"}), json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}))
        .await;
    becomes(server, "six", "2001:db8::", "satisfied").await;
    pool_becomes(server, "six", "cilium.io/IPsAvailable", "message", "18446744073709551615").await;
    put_service(
        server,
        "dual",
        json!({"six": "yes"}),
        json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
    )
    .await;
    becomes(server, "dual", "2001:db8::", "no_pool").await;
    patch_service(server, "dual", json!({"metadata": {"labels": {"color": "red"}}})).await;
    let both = becomes(server, "dual", "2001:db8::", "satisfied").await;
    assert!(both.contains(" 198.18.2.1"), "{both}");
}

async fn requests(server: &ApiServer) {
    put_service(server, "asks", json!({"color": "red"}), json!({"loadBalancerIP": "198.18.2.15"})).await;
    becomes(server, "asks", "198.18.2.15", "satisfied").await;
    for (name, address, reason) in [
        ("taken", "198.18.2.15", "already_allocated"),
        ("elsewhere", "198.18.1.7", "pool_selector_mismatch"),
        ("nowhere", "198.18.99.1", "no_pool"),
        ("typo", "198.18.2", "invalid_request"),
    ] {
        put_service(server, name, json!({"color": "red"}), json!({})).await;
        becomes(server, name, "198.18.2.", "satisfied").await;
        patch_service(server, name, json!({"metadata": {"annotations": {"io.cilium/lb-ipam-ips": address}}})).await;
        if name == "typo" {
            // A typing error is no reason to take an address away.
            let seen = becomes(server, name, "198.18.2.", reason).await;
            assert!(!seen.is_empty());
        } else {
            becomes(server, name, "", reason).await;
        }
        services(server).delete(name, &Default::default()).await.unwrap();
    }
}

async fn changes(server: &ApiServer) {
    // The pool moves away under its Service.
    patch_pool(server, "late", json!({"blocks": [{"cidr": "198.18.6.0/24"}]})).await;
    becomes(server, "green", "198.18.6.", "satisfied").await;
    pools(server, "v2").delete("late", &Default::default()).await.unwrap();
    becomes(server, "green", "", "no_pool").await;
    // The Service is of another type.
    patch_service(server, "asks", json!({"spec": {"type": "ClusterIP", "allocateLoadBalancerNodePorts": null}})).await;
    becomes(server, "asks", "", "").await;
    put_service(server, "heir", json!({"color": "red"}), json!({"loadBalancerIP": "198.18.2.15"})).await;
    becomes(server, "heir", "198.18.2.15", "satisfied").await;
}

async fn other_controllers(server: &ApiServer) {
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.18.77.7"}]}}});
    let params = PatchParams { field_manager: Some("cloud".into()), ..PatchParams::default() };
    let spec = json!({"loadBalancerClass": "example.com/cloud"});
    put_service(server, "classed", json!({"color": "red"}), spec).await;
    put_service(server, "unselected", json!({"color": "none"}), json!({})).await;
    becomes(server, "unselected", "", "no_pool").await;
    let mut before = BTreeMap::new();
    for name in ["classed", "unselected"] {
        let written = services(server).patch_status(name, &params, &Patch::Merge(&status)).await.unwrap();
        before.insert(name, written.resource_version());
    }
    // Served after it has seen all of that.
    put_service(server, "barrier", json!({"color": "blue"}), json!({})).await;
    becomes(server, "barrier", "198.18.1.", "satisfied").await;
    for (name, version) in before {
        let now = services(server).get(name).await.unwrap();
        assert_eq!(now.resource_version(), version, "{name} was touched: {:?}", now.status);
    }
}

/// The fault: an address is written to a second Service from outside. Its holder keeps it, the other one is told.
async fn a_planted_duplicate(server: &ApiServer) {
    let monitor = Monitor::start(server.client.clone());
    eventually("the monitor sees all", SOON, || async {
        if monitor.look(|seen| seen.addresses.contains_key("barrier")) { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    let held = state(server, "barrier").await.0;
    // In the API server's record a second is the smallest step; the plant must be younger.
    let second = Timestamp::now().as_second();
    eventually("the next second", SOON, || async {
        if Timestamp::now().as_second() > second { Ok(()) } else { Err("the same".into()) }
    })
    .await;
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": held}]}}});
    services(server).patch_status("blue2", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    eventually("blue2 has another address again", SOON, || async {
        let seen = state(server, "blue2").await.0;
        if seen != held && seen.starts_with("198.18.1.") { Ok(()) } else { Err(seen) }
    })
    .await;
    assert_eq!(state(server, "barrier").await.0, held, "who had it first keeps it");
    eventually("the monitor catches it", SOON, || async {
        let caught = monitor.look(|seen| seen.duplicates.clone());
        if caught.iter().any(|text| text.contains(&held) && text.contains("blue2")) {
            Ok(())
        } else {
            Err(format!("{caught:?}"))
        }
    })
    .await;
}

async fn events(server: &ApiServer) {
    for (name, reason, text) in [
        ("blue", "IPAllocated", "from pool blue"),
        ("green", "IPAMFailed", "no_pool"),
        ("green", "IPReleased", "198.18.6."),
        ("blue2", "IPDuplicate", "service default/barrier had it first"),
    ] {
        eventually(&format!("Event {reason} about {name}"), SOON, || async {
            let all = server.kubectl(&["describe", "service", name]);
            if all.lines().any(|line| line.contains(reason) && line.contains(text)) { Ok(()) } else { Err(all) }
        })
        .await;
    }
}

/// An object from before the schema: it must not cost anybody an address, and must say what is wrong with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_the_schema_would_refuse_harms_nobody() {
    let server = api_server!("schema");
    put_pool(
        &server,
        "v2",
        "fine",
        json!({"blocks": [{"cidr": "198.18.1.0/24"}], "serviceSelector": {"matchLabels": {"a": "b"}}}),
    )
    .await
    .unwrap();
    put_pool(
        &server,
        "v2",
        "broken",
        json!({"blocks": [{"cidr": "198.18.2.0/24"}], "serviceSelector": {"matchLabels": {"c": "d"}}}),
    )
    .await
    .unwrap();
    let operator = Operator::start(&server, "a", ACCOUNT).await;
    put_service(&server, "first", json!({"a": "b"}), json!({})).await;
    put_service(&server, "second", json!({"c": "d"}), json!({})).await;
    let first = becomes(&server, "first", "198.18.1.", "satisfied").await;
    let second = becomes(&server, "second", "198.18.2.", "satisfied").await;
    let crd = server.kubectl(&["get", "crd", "ciliumloadbalancerippools.cilium.io", "-o", "json"]);
    let mut crd: Value = serde_json::from_str(&crd).unwrap();
    for version in crd["spec"]["versions"].as_array_mut().unwrap() {
        let operator = version.pointer_mut("/schema/openAPIV3Schema/properties/spec/properties/serviceSelector/properties/matchExpressions/items/properties/operator");
        assert!(operator.unwrap().as_object_mut().unwrap().remove("enum").is_some());
    }
    let path = server.dir.join("lax.json");
    std::fs::write(&path, crd.to_string()).unwrap();
    server.kubectl(&["replace", "-f", &path.display().to_string()]);
    let equals = json!({"serviceSelector": {"matchLabels": null, "matchExpressions": [{"key": "c", "operator": "Equals", "values": ["d"]}]}});
    eventually("the API server forgets the enum", SOON, || async {
        let patch = Patch::Merge(json!({"spec": equals}));
        let answer = pools(&server, "v2").patch("broken", &PatchParams::default(), &patch).await;
        answer.map(drop).map_err(|error| error.to_string())
    })
    .await;
    pool_becomes(&server, "broken", "portolan.io/InvalidSpec", "message", "unknown operator \"Equals\"").await;
    put_service(&server, "third", json!({"a": "b"}), json!({})).await;
    becomes(&server, "third", "198.18.1.", "satisfied").await;
    assert_eq!(state(&server, "first").await.0, first);
    assert_eq!(state(&server, "second").await.0, second);
    // Also by an operator that never saw it whole.
    operator.stop();
    let operator = Operator::start(&server, "b", ACCOUNT).await;
    put_service(&server, "fourth", json!({"a": "b"}), json!({})).await;
    becomes(&server, "fourth", "198.18.1.", "satisfied").await;
    assert_eq!(state(&server, "second").await.0, second);
    operator.stop();
}

/// Makes Services `PREFIX-0`… at once.
async fn burst(server: &ApiServer, prefix: &str, count: usize) {
    let all = (0..count).map(|number| {
        let name = format!("{prefix}-{number}");
        async move { put_service(server, &name, json!({}), json!({})).await }
    });
    futures::future::join_all(all).await;
}

async fn all_served(server: &ApiServer, monitor: &Monitor, count: usize, limit: Duration) {
    eventually(&format!("{count} Services have an address"), limit, || async {
        let served = monitor.look(live::Seen::served);
        if served >= count { Ok(()) } else { Err(format!("{served}")) }
    })
    .await;
    assert_eq!(monitor.look(|seen| seen.duplicates.clone()), Vec::<String>::new(), "no moment with one address in two");
    pool_becomes(server, "p", "cilium.io/IPsUsed", "message", &count.to_string()).await;
}

/// Versions of all Services and pools.
async fn versions(server: &ApiServer) -> BTreeMap<String, Option<String>> {
    let pools = pools(server, "v2").list(&ListParams::default()).await.unwrap();
    let services = services(server).list(&ListParams::default()).await.unwrap();
    let pools = pools.items.iter().map(|pool| (format!("pool {}", pool.name_any()), pool.resource_version()));
    let services = services.items.iter().map(|one| (format!("service {}", one.name_any()), one.resource_version()));
    pools.chain(services).collect()
}

/// Objects whose version differs.
fn touched(before: &BTreeMap<String, Option<String>>, after: &BTreeMap<String, Option<String>>) -> Vec<String> {
    after.iter().filter(|(name, version)| before.get(*name) != Some(*version)).map(|(name, _)| name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_served_once_and_a_restart_writes_nothing() {
    let server = api_server!("burst");
    let monitor = Monitor::start(server.client.clone());
    put_pool(&server, "v2", "p", json!({"blocks": [{"cidr": "198.18.0.0/24"}]})).await.unwrap();
    let operator = Operator::start(&server, "a", ACCOUNT).await;
    burst(&server, "s", 200).await;
    all_served(&server, &monitor, 200, Duration::from_secs(60)).await;
    operator.stop();

    let before = versions(&server).await;
    let since = Timestamp::now();
    let operator = Operator::start(&server, "a", ACCOUNT).await;
    // Another controller's Service is the planted fault here: the comparison must see one more write, and no other.
    put_service(&server, "barrier", json!({}), json!({})).await;
    becomes(&server, "barrier", "198.18.0.", "satisfied").await;
    pool_becomes(&server, "p", "cilium.io/IPsUsed", "message", "201").await;
    assert_eq!(touched(&before, &versions(&server).await), ["pool p", "service barrier"]);
    let writes = server.writes_since(ACCOUNT, since);
    assert_eq!(writes.len(), 2, "not even a write that changes nothing is sent: {writes:?}");
    patch_service(&server, "s-7", json!({"metadata": {"labels": {"touched": "yes"}}})).await;
    assert_eq!(touched(&before, &versions(&server).await), ["pool p", "service barrier", "service s-7"]);
    operator.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_leaders_in_a_burst_gives_no_address_twice() {
    let server = api_server!("leaders");
    let monitor = Monitor::start(server.client.clone());
    put_pool(&server, "v2", "p", json!({"blocks": [{"cidr": "198.18.0.0/24"}]})).await.unwrap();
    let first = Operator::start(&server, "a", ACCOUNT).await;
    // One that does not lead is ready.
    let second = Operator::start(&server, "b", "second").await;
    let (_, ()) = tokio::join!(burst(&server, "s", 200), async {
        eventually("the burst is being served", SOON, || async {
            let served = monitor.look(live::Seen::served);
            if served >= 20 { Ok(()) } else { Err(format!("{served}")) }
        })
        .await;
        tokio::task::block_in_place(|| first.stop());
    });
    all_served(&server, &monitor, 200, TAKEOVER).await;
    assert!(second.log().contains("leading"), "{}", second.log());
    assert_ne!(server.writes_since("second", Timestamp::UNIX_EPOCH), Vec::<String>::new(), "the second one wrote too");
    assert_eq!(server.forbidden(), Vec::<String>::new());
    second.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_does_not_write_over_its_successor() {
    let server = api_server!("frozen");
    let monitor = Monitor::start(server.client.clone());
    put_pool(&server, "v2", "p", json!({"blocks": [{"cidr": "198.18.0.0/24"}]})).await.unwrap();
    let first = Operator::start(&server, "a", ACCOUNT).await;
    put_service(&server, "early", json!({}), json!({})).await;
    let freed = becomes(&server, "early", "198.18.0.", "satisfied").await;
    let second = Operator::start(&server, "b", "second").await;
    // It is frozen in the middle of its work.
    let (_, ()) = tokio::join!(burst(&server, "s", 100), async {
        eventually("the burst is being served", SOON, || async {
            let served = monitor.look(live::Seen::served);
            if served >= 10 { Ok(()) } else { Err(format!("{served}")) }
        })
        .await;
        first.signal(Signal::SIGSTOP);
    });
    // What it held for one Service goes to another meanwhile.
    services(&server).delete("early", &Default::default()).await.unwrap();
    put_service(&server, "heir", json!({}), json!({"loadBalancerIP": freed})).await;
    all_served(&server, &monitor, 101, TAKEOVER).await;
    assert_eq!(state(&server, "heir").await.0, freed);
    // It wakes while its successor works.
    let since = Timestamp::now();
    let (_, ()) = tokio::join!(burst(&server, "late", 50), async { first.signal(Signal::SIGCONT) });
    all_served(&server, &monitor, 151, SOON).await;
    eventually("the frozen one sees that it does not lead", SOON, || async {
        let log = first.log();
        if log.contains("not leading any more") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(server.writes_since(ACCOUNT, since), Vec::<String>::new(), "nothing of what it had in mind");
    assert_eq!(first.get("/readyz"), Ok(()), "one that does not lead is ready");
    // The planted fault: were it to write, the audit log would tell.
    assert_ne!(server.writes_since("second", since), Vec::<String>::new());
    second.stop();
    first.stop();
}

/// Most status writes that an operator has under way at a time (`operator::WRITES_MAX`).
const UNDER_WAY: usize = 32;

/// Here no resourceVersion has moved when the frozen leader wakes: only the fence keeps back what it had planned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_gives_up_what_it_had_planned() {
    let server = api_server!("planned");
    let monitor = Monitor::start(server.client.clone());
    put_pool(&server, "v2", "p", json!({"blocks": [{"cidr": "198.18.0.0/23"}], "disabled": true})).await.unwrap();
    let first = Operator::start(&server, "a", ACCOUNT).await;
    burst(&server, "s", 300).await;
    for number in 0..300 {
        becomes(&server, &format!("s-{number}"), "", "no_pool").await;
    }
    let second = Operator::start(&server, "b", "second").await;
    patch_pool(&server, "p", json!({"disabled": false})).await;
    eventually("the first ones are served", SOON, || async {
        let served = monitor.look(live::Seen::served);
        if served > 0 { Ok(()) } else { Err(format!("{served}")) }
    })
    .await;
    first.signal(Signal::SIGSTOP);
    patch_pool(&server, "p", json!({"disabled": true})).await;
    eventually("the other one leads", TAKEOVER, || async {
        if second.log().contains("leading") { Ok(()) } else { Err(second.log()) }
    })
    .await;
    let served = monitor.look(live::Seen::served);
    assert!(served < 250, "{served} of 300 were served before it froze: too little was left that it could write late");
    let since = Timestamp::now();
    first.signal(Signal::SIGCONT);
    eventually("the frozen one sees that it does not lead", SOON, || async {
        let log = first.log();
        if log.contains("not leading any more") { Ok(()) } else { Err(log) }
    })
    .await;
    // What was in its connection's hands when it froze goes out when it wakes, before anything can be asked; of what it had
    // still to begin, which is more than that, nothing does.
    let late = server.writes_since(ACCOUNT, since);
    assert!(late.len() <= UNDER_WAY, "{} writes of what it had in mind: {late:?}", late.len());
    second.stop();
    first.stop();
}
