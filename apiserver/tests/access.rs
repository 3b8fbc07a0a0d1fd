//! Who may what: roles, nodes, tokens. In process, with a clock that is moved by hand.

#![allow(clippy::unwrap_used, reason = "test code")]

mod inside;

use std::time::Duration;

use apiserver::controllers::{self, Controller, ControllerOptions, ControllerSelection};
use apiserver::testing::settle;
use apiserver::{AuthOptions, Options};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use inside::{Answer, As, Inside};
use serde_json::{Value, json};

const CORE: &str = "/api/v1/namespaces/default";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn roles() -> String {
    format!("{RBAC}/namespaces/default/roles")
}

fn bindings() -> String {
    format!("{RBAC}/namespaces/default/rolebindings")
}

fn role(name: &str, rule: Value) -> Value {
    json!({"metadata": {"name": name}, "rules": [rule]})
}

fn binding(name: &str, role: &str, user: &str) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({"metadata": {"name": name}, "roleRef": {"apiGroup": group, "kind": "Role", "name": role},
        "subjects": [{"kind": "User", "apiGroup": group, "name": user}]})
}

fn pod(name: &str, node: &str, secret: &str) -> Value {
    let volumes = match secret {
        "" => json!([]),
        secret => json!([{"name": "s", "secret": {"secretName": secret}}]),
    };
    json!({"metadata": {"name": name}, "spec": {"nodeName": node, "serviceAccountName": "robot", "volumes": volumes,
        "containers": [{"name": "a", "image": "i"}]}})
}

#[tokio::test]
async fn roles_hold_for_whom_they_name_and_only_while_they_are_bound() {
    let inside = Inside::start(Options::default());
    let jane = As::named("jane", &[]);
    let map = json!({"metadata": {"name": "one"}});
    inside.must(201, "POST", &format!("{CORE}/configmaps"), &map).await;
    let one = format!("{CORE}/configmaps/one");
    let denied = inside.ask(&jane, "GET", &one, &Value::Null).await;
    let words = "configmaps \"one\" is forbidden: User \"jane\" cannot get resource \"configmaps\" in API group \"\" in \
                 the namespace \"default\"";
    assert_eq!((denied.code, denied.message()), (403, words));
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["one"]});
    inside.must(201, "POST", &roles(), &role("reader", rule)).await;
    assert_eq!(inside.ask(&jane, "GET", &one, &Value::Null).await.code, 403, "a role that is not bound");
    inside.must(201, "POST", &bindings(), &binding("b", "reader", "jane")).await;
    assert_eq!(inside.ask(&jane, "GET", &one, &Value::Null).await.code, 200);
    let others = [
        ("GET", format!("{CORE}/configmaps")),
        ("GET", format!("{CORE}/configmaps/two")),
        ("DELETE", one.clone()),
        ("GET", format!("{CORE}/secrets/one")),
        ("GET", "/api/v1/namespaces/kube-system/configmaps/one".to_owned()),
    ];
    for (method, path) in others {
        assert_eq!(inside.ask(&jane, method, &path, &Value::Null).await.code, 403, "{method} {path}");
    }
    assert_eq!(inside.ask(&As::named("john", &[]), "GET", &one, &Value::Null).await.code, 403);
    inside.must(200, "DELETE", &format!("{}/b", bindings()), &Value::Null).await;
    assert_eq!(inside.ask(&jane, "GET", &one, &Value::Null).await.code, 403, "the binding is gone");
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_have() {
    let inside = Inside::start(Options::default());
    let jane = As::named("jane", &[]);
    let group = "rbac.authorization.k8s.io";
    let writer = json!({"apiGroups": [group], "resources": ["roles", "rolebindings"], "verbs": ["create", "update"]});
    let reader = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    inside.must(201, "POST", &roles(), &json!({"metadata": {"name": "w"}, "rules": [writer, reader]})).await;
    inside.must(201, "POST", &bindings(), &binding("w", "w", "jane")).await;
    let secrets = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]});
    inside.must(201, "POST", &roles(), &role("secrets", secrets.clone())).await;
    let more = inside.ask(&jane, "POST", &roles(), &role("more", secrets)).await;
    assert_eq!(more.code, 403, "{}", more.body);
    assert!(more.message().contains("attempting to grant RBAC permissions not currently held"), "{}", more.message());
    let bind = inside.ask(&jane, "POST", &bindings(), &binding("more", "secrets", "jane")).await;
    assert_eq!(bind.code, 403, "{}", bind.body);
    // What she has, she may give.
    assert_eq!(inside.ask(&jane, "POST", &roles(), &role("same", reader)).await.code, 201);
    assert_eq!(inside.ask(&jane, "POST", &bindings(), &binding("same", "same", "john")).await.code, 201);
}

/// A cluster of two nodes; a pod with a secret on the first.
async fn two_nodes() -> Inside {
    let inside = Inside::start(Options::default().auth(AuthOptions::default().node_restriction(true)));
    for name in ["n1", "n2"] {
        inside.must(201, "POST", "/api/v1/nodes", &json!({"metadata": {"name": name}})).await;
    }
    inside.must(201, "POST", &format!("{CORE}/serviceaccounts"), &json!({"metadata": {"name": "robot"}})).await;
    for secret in ["used", "unused"] {
        inside.must(201, "POST", &format!("{CORE}/secrets"), &json!({"metadata": {"name": secret}})).await;
    }
    inside.must(201, "POST", &format!("{CORE}/pods"), &pod("p", "n1", "used")).await;
    inside
}

#[tokio::test]
async fn a_node_reads_what_its_pods_use_and_nothing_else() {
    let inside = two_nodes().await;
    let get = async |node: &str, path: &str| inside.ask(&As::node(node), "GET", path, &Value::Null).await.code;
    let used = format!("{CORE}/secrets/used");
    assert_eq!(get("n1", &used).await, 200);
    assert_eq!(get("n2", &used).await, 403, "the pod is on another node");
    assert_eq!(get("n1", &format!("{CORE}/secrets/unused")).await, 403);
    assert_eq!(get("n1", &format!("{CORE}/secrets")).await, 403);
    assert_eq!(get("n1", "/api/v1/pods").await, 403, "not all pods");
    assert_eq!(get("n1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2").await, 403, "not those of others");
    assert_eq!(get("n1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await, 200);
    assert_eq!(get("n1", "/api/v1/nodes/n2").await, 403);
    assert_eq!(get("n1", "/api/v1/nodes/n1").await, 200);
    assert_eq!(get("n1", "/api/v1/services").await, 200, "what every node may");
    // With the pod goes the right.
    inside.must(200, "DELETE", &format!("{CORE}/pods/p?gracePeriodSeconds=0"), &Value::Null).await;
    assert_eq!(get("n1", &used).await, 403);
    // A name alone makes no node.
    let impostor = As::named("system:node:n1", &[]);
    assert_eq!(inside.ask(&impostor, "GET", "/api/v1/nodes/n1", &Value::Null).await.code, 403);
}

#[tokio::test]
async fn a_node_changes_what_is_its_own() {
    let inside = two_nodes().await;
    let patch = async |node: &str, path: &str, body: Value| inside.ask(&As::node(node), "PATCH", path, &body).await;
    let ready = json!({"status": {"phase": "Running"}});
    let status = format!("{CORE}/pods/p/status");
    assert_eq!(patch("n1", &status, ready.clone()).await.code, 200);
    let other = patch("n2", &status, ready).await;
    assert_eq!(other.code, 403);
    assert!(other.message().contains("can only update pod status for pods with spec.nodeName set to itself"));
    let label = json!({"metadata": {"labels": {"example.com/rack": "7"}}});
    assert_eq!(patch("n1", "/api/v1/nodes/n1", label.clone()).await.code, 200);
    assert_eq!(patch("n1", "/api/v1/nodes/n2", label).await.code, 403);
    let reserved = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}});
    assert_eq!(patch("n1", "/api/v1/nodes/n1", reserved).await.code, 403);
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    assert_eq!(patch("n1", "/api/v1/nodes/n1", taint).await.code, 403);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"metadata": {"name": "n1"}});
    assert_eq!(inside.ask(&As::node("n2"), "POST", leases, &lease).await.code, 403);
    assert_eq!(inside.ask(&As::node("n1"), "POST", leases, &lease).await.code, 201);
    let bare = inside.ask(&As::node("n1"), "POST", &format!("{CORE}/pods"), &pod("q", "n1", "")).await;
    assert_eq!(bare.code, 403, "only mirrors of static pods: {}", bare.body);
}

/// Asks for a token of the account `robot`.
#[tokio::test]
async fn an_eviction_that_a_node_may_not_make_changes_nothing() {
    let inside = two_nodes().await;
    let path = format!("{CORE}/pods/p");
    let before = inside.must(200, "GET", &path, &Value::Null).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let refused = inside.ask(&As::node("n2"), "POST", &format!("{path}/eviction"), &eviction).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    assert_eq!(inside.must(200, "GET", &path, &Value::Null).await, before);
    let done = inside.ask(&As::node("n1"), "POST", &format!("{path}/eviction"), &eviction).await;
    assert_eq!(done.code, 201, "{}", done.body);
}

async fn token(inside: &Inside, who: &As, spec: Value) -> Answer {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    inside.ask(who, "POST", &format!("{CORE}/serviceaccounts/robot/token"), &request).await
}

async fn good_token(inside: &Inside, spec: Value) -> String {
    let answer = token(inside, &As::Admin, spec).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer.body["status"]["token"].as_str().unwrap().to_owned()
}

/// Whom a token makes of a request; nobody if it is refused.
async fn bearer(inside: &Inside, token: &str) -> Option<String> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = inside.ask(&As::Token(token.to_owned()), "POST", path, &review).await;
    match answer.code {
        401 => None,
        201 => Some(answer.body["status"]["userInfo"]["username"].as_str().unwrap().to_owned()),
        code => panic!("{code}: {}", answer.body),
    }
}

async fn with_account() -> Inside {
    let inside = Inside::start(Options::default());
    inside.must(201, "POST", &format!("{CORE}/serviceaccounts"), &json!({"metadata": {"name": "robot"}})).await;
    inside
}

const ROBOT: &str = "system:serviceaccount:default:robot";

#[tokio::test]
async fn a_token_ends_with_its_time() {
    let inside = with_account().await;
    let token = good_token(&inside, json!({"expirationSeconds": 600})).await;
    inside.pass(599);
    assert_eq!(bearer(&inside, &token).await.as_deref(), Some(ROBOT));
    inside.pass(1);
    assert_eq!(bearer(&inside, &token).await, None);
}

#[tokio::test]
async fn a_token_is_for_its_audience() {
    let inside = with_account().await;
    let token = good_token(&inside, json!({"audiences": ["vault"]})).await;
    assert_eq!(bearer(&inside, &token).await, None, "not for this server");
    let review = async |audiences: Value| {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences}});
        inside.must(201, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", &body).await["status"].clone()
    };
    let vault = review(json!(["vault", "other"])).await;
    assert_eq!((&vault["authenticated"], &vault["audiences"]), (&json!(true), &json!(["vault"])));
    let other = review(json!(["other"])).await;
    assert_ne!(other["authenticated"], json!(true));
    assert!(other["error"].as_str().unwrap().contains("invalid for the target audiences"), "{other}");
}

#[tokio::test]
async fn a_token_that_a_secret_holds_is_for_this_server() {
    let inside = with_account().await;
    let only = ControllerSelection::none().with(Controller::ServiceAccountToken);
    let mut running = controllers::start(inside.server.clone(), ControllerOptions::default().controllers(only));
    let secret = json!({"type": "kubernetes.io/service-account-token", "metadata": {"name": "held",
        "annotations": {"kubernetes.io/service-account.name": "robot"}}});
    inside.must(201, "POST", &format!("{CORE}/secrets"), &secret).await;
    running.during(settle(&inside.server, Duration::from_millis(200))).await.unwrap();
    let held = inside.must(200, "GET", &format!("{CORE}/secrets/held"), &Value::Null).await;
    let token = String::from_utf8(STANDARD.decode(held["data"]["token"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!(bearer(&inside, &token).await.as_deref(), Some(ROBOT));
    let review = async |audiences: Value| {
        let body = json!({"spec": {"token": token, "audiences": audiences}});
        inside.must(201, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", &body).await["status"].clone()
    };
    let own = review(json!([])).await;
    assert_eq!(own["authenticated"], json!(true), "{own}");
    let both = review(json!(["vault", own["audiences"][0]])).await;
    assert_eq!(both["audiences"], own["audiences"], "{both}");
    let other = review(json!(["vault"])).await;
    assert_ne!(other["authenticated"], json!(true), "{other}");
    assert!(other["error"].as_str().unwrap().contains("invalid for the target audiences"), "{other}");
}

#[tokio::test]
async fn a_token_ends_with_its_pod() {
    let inside = with_account().await;
    let made = inside.must(201, "POST", &format!("{CORE}/pods"), &pod("p", "n1", "")).await;
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": made["metadata"]["uid"]});
    let token = good_token(&inside, json!({"boundObjectRef": bound})).await;
    assert_eq!(bearer(&inside, &token).await.as_deref(), Some(ROBOT));
    let path = format!("{CORE}/pods/p");
    inside.must(200, "DELETE", &format!("{path}?gracePeriodSeconds=0"), &Value::Null).await;
    assert_eq!(bearer(&inside, &token).await, None);
    // Another pod of the same name is another pod.
    inside.must(201, "POST", &format!("{CORE}/pods"), &pod("p", "n1", "")).await;
    assert_eq!(bearer(&inside, &token).await, None);
    let stale = super_token(&inside, bound).await;
    assert_eq!(stale.code, 409, "{}", stale.body);
}

async fn super_token(inside: &Inside, bound: Value) -> Answer {
    token(inside, &As::Admin, json!({"boundObjectRef": bound})).await
}

#[tokio::test]
async fn a_token_ends_with_its_account() {
    let inside = with_account().await;
    let token = good_token(&inside, json!({})).await;
    assert_eq!(bearer(&inside, &token).await.as_deref(), Some(ROBOT));
    let accounts = format!("{CORE}/serviceaccounts");
    inside.must(200, "DELETE", &format!("{accounts}/robot"), &Value::Null).await;
    assert_eq!(bearer(&inside, &token).await, None);
    inside.must(201, "POST", &accounts, &json!({"metadata": {"name": "robot"}})).await;
    assert_eq!(bearer(&inside, &token).await, None, "another account of the same name");
}

#[tokio::test]
async fn a_forged_token_is_nobodys() {
    let inside = with_account().await;
    let token = good_token(&inside, json!({})).await;
    let (text, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = text.split_once('.').unwrap();
    let flip = |part: &str| {
        let middle = part.len() / 2;
        let other = if part.as_bytes()[middle] == b'A' { "B" } else { "A" };
        format!("{}{other}{}", &part[..middle], &part[middle + 1..])
    };
    // The same account in another cluster: the names are the same, the key is not.
    let elsewhere = with_account().await;
    let foreign = good_token(&elsewhere, json!({})).await;
    let forged = [
        format!("{header}.{}.{signature}", flip(claims)),
        format!("{header}.{claims}.{}", flip(signature)),
        format!("{header}.{claims}."),
        format!("{header}.{claims}"),
        foreign,
    ];
    for token in forged {
        assert_eq!(bearer(&inside, &token).await, None, "{token}");
    }
    assert_eq!(bearer(&inside, &token).await.as_deref(), Some(ROBOT));
}

#[tokio::test]
async fn a_node_asks_for_tokens_of_its_pods_only() {
    let inside = two_nodes().await;
    let uid = inside.must(200, "GET", &format!("{CORE}/pods/p"), &Value::Null).await["metadata"]["uid"].clone();
    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}});
    assert_eq!(token(&inside, &As::node("n1"), bound.clone()).await.code, 201);
    assert_eq!(token(&inside, &As::node("n2"), bound).await.code, 403);
    let unbound = token(&inside, &As::node("n1"), json!({})).await;
    assert_eq!(unbound.code, 403);
    assert!(unbound.message().contains("not bound to a pod"), "{}", unbound.message());
}
