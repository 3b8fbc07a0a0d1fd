//! The test kit: what it does is what it says.

use std::time::Duration;

use http_body_util::BodyExt;

use super::*;
use crate::Options;
use crate::server::ApiServer;

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {on: {type: boolean}}}}}}
";

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn server() -> ApiServer {
    ApiServer::start(Options::default()).unwrap()
}

async fn get(server: &ApiServer, path: &str) -> (u16, Value) {
    ask(server.clone(), Method::GET, path, "application/json", &Value::Null).await
}

#[tokio::test]
async fn manifests_are_applied_definitions_and_namespaces_first() {
    let server = server();
    let text = format!(
        "# comment\n---\napiVersion: example.org/v1\nkind: Thing\nmetadata: {{name: t, namespace: a}}\nspec: {{on: yes}}\n\
         --- # a list\n{{kind: List, apiVersion: v1, items: [{{kind: ConfigMap, apiVersion: v1, metadata: {{name: m}}}}]}}\n\
         ---\nkind: Namespace\napiVersion: v1\nmetadata: {{name: a}}\n---\n{DEFINITION}"
    );
    let applied = apply(&server, &text).await.unwrap();
    let kinds: Vec<&str> = applied.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["CustomResourceDefinition", "Namespace", "Thing", "ConfigMap"]);
    let (code, thing) = get(&server, "/apis/example.org/v1/namespaces/a/things/t").await;
    assert_eq!((code, &thing["spec"]["on"]), (200, &Value::Bool(true)));
    assert_eq!(get(&server, &format!("{MAPS}/m")).await.0, 200);
    // Once more, they are as they were.
    let revision = server.revision();
    apply(&server, "kind: ConfigMap\napiVersion: v1\nmetadata: {name: m}").await.unwrap();
    apply(&server, DEFINITION).await.unwrap();
    assert_eq!(server.revision(), revision);
}

#[tokio::test]
async fn manifests_that_cannot_be_applied_say_why() {
    let server = server();
    for (text, want) in [
        ("a: [", "document 1: yaml"),
        ("kind: Pod\napiVersion: v1", "document 1: metadata/name is missing"),
        ("kind: Thing\napiVersion: example.org/v1\nmetadata: {name: t}", "this server has no Thing of example.org/v1"),
        ("kind: Pod\napiVersion: v1\nmetadata: {name: P}", "Pod P: 422: Pod \"P\" is invalid"),
    ] {
        let error = apply(&server, text).await.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    apply(&server, DEFINITION).await.unwrap();
    let rival = DEFINITION.replace("things.", "others.").replace("plural: things", "plural: others");
    let error = apply(&server, &rival).await.unwrap_err().to_string();
    assert!(error.contains("others.example.org is not established"), "{error}");
}

#[tokio::test]
async fn files_of_a_directory_are_taken_together() {
    let dir = std::env::temp_dir().join(format!("apiserver-manifests-{:016x}", fastrand::u64(..)));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("1.yaml"), "kind: Thing\napiVersion: example.org/v1\nmetadata: {name: t}").unwrap();
    std::fs::write(dir.join("2.yml"), DEFINITION).unwrap();
    std::fs::write(dir.join("README.md"), "not a manifest").unwrap();
    let applied = apply_path(&server(), &dir).await.unwrap();
    assert_eq!(applied.len(), 2);
    assert!(apply_path(&server(), dir.join("none.yaml")).await.unwrap_err().to_string().contains("none.yaml"));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test(start_paused = true)]
async fn faults_meet_what_they_are_about_as_often_as_they_should() {
    let (server, faults, writes) = (server(), Faults::new(), Writes::new());
    let client = writes.on(faults.on(server.clone()));
    let map = |name: &str| serde_json::json!({"metadata": {"name": name}});
    let create = async |name: &str| ask(client.clone(), Method::POST, MAPS, "application/json", &map(name)).await.0;
    faults.plant(Fault::refuse(503).retry_after(2).writes().resource("configmaps").after(1).times(2));
    let codes = [create("a").await, create("b").await, create("b").await, create("b").await];
    assert_eq!((codes, faults.met()), ([201, 503, 503, 201], 2));
    assert_eq!(writes.take().iter().map(|write| write.code).collect::<Vec<_>>(), codes);
    faults.clear();
    faults.plant(Fault::lose_answer().verbs(&["create"]).times(1));
    assert_eq!((create("c").await, create("c").await), (500, 409));
    assert_eq!(writes.all().len(), 1, "a write whose answer was lost has none");
    faults.plant(Fault::delay(Duration::from_secs(9)).verbs(&["get"]));
    let start = tokio::time::Instant::now();
    ask(client.clone(), Method::GET, &format!("{MAPS}/c"), "", &Value::Null).await;
    assert_eq!(start.elapsed(), Duration::from_secs(9));
    faults.plant(Fault::refuse(409).resource("deployments.apps"));
    assert_eq!(create("d").await, 201);
}

#[tokio::test(start_paused = true)]
async fn watches_are_cut_and_expire() {
    let (server, faults) = (server(), Faults::new());
    let open = || {
        let request = Request::builder().uri(format!("{MAPS}?watch=true&resourceVersion=0"));
        let parts = request.body(()).unwrap().into_parts().0;
        pass(faults.on(server.clone()), parts, Bytes::new())
    };
    let watch = open().await.unwrap();
    faults.cut_watches();
    assert!(watch.into_body().collect().await.unwrap().to_bytes().is_empty());
    let watch = open().await.unwrap();
    faults.expire_watches();
    let last: Value = serde_json::from_slice(&watch.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&last["type"], &last["object"]["code"]), (&"ERROR".into(), &410.into()));
}

#[tokio::test(start_paused = true)]
async fn writes_are_told_apart() {
    let (server, writes) = (server(), Writes::new());
    let client = writes.on(server);
    let (map, patch) = (serde_json::json!({"metadata": {"name": "m"}}), serde_json::json!({"data": {"k": "v"}}));
    ask(client.clone(), Method::POST, MAPS, "application/json", &map).await;
    ask(client.clone(), Method::GET, MAPS, "", &Value::Null).await;
    ask(client, Method::PATCH, &format!("{MAPS}/m"), "application/merge-patch+json", &patch).await;
    let all = writes.all();
    let told: Vec<_> =
        all.iter().map(|write| (&*write.verb, &*write.resource, &*write.name, &*write.namespace)).collect();
    assert_eq!(told, [("create", "configmaps", "", "default"), ("patch", "configmaps", "m", "default")]);
    assert_eq!((&all[1].body, &*all[1].media_type), (&patch, "application/merge-patch+json"));
}

#[tokio::test(start_paused = true)]
async fn pods_on_a_fake_node_run_end_and_go() {
    let server = server();
    let node = FakeNode::new("n1").label("zone", "a").start(&server).await.unwrap();
    apply(&server, "kind: ServiceAccount\napiVersion: v1\nmetadata: {name: default}").await.unwrap();
    let pod = |name: &str, more: &str| {
        format!(
            "kind: Pod\napiVersion: v1\nmetadata: {{name: {name}{more}}}\nspec: {{nodeName: n1, containers: [{{name: c, image: i}}]}}"
        )
    };
    let owner = ", ownerReferences: [{apiVersion: batch/v1, kind: Job, name: j, uid: u}]";
    apply(&server, &format!("{}\n---\n{}", pod("a", ""), pod("b", owner))).await.unwrap();
    settle(&server, Duration::from_secs(1)).await.unwrap();
    let (path, phase) = ("/api/v1/namespaces/default/pods", |pod: &Value| pod["status"]["phase"].clone());
    let (running, ended) = (get(&server, &format!("{path}/a")).await.1, get(&server, &format!("{path}/b")).await.1);
    assert_eq!((phase(&running), phase(&ended)), ("Running".into(), "Succeeded".into()));
    assert_ne!(running["status"]["podIP"], ended["status"]["podIP"]);
    ask(server.clone(), Method::DELETE, &format!("{path}/a"), "", &Value::Null).await;
    settle(&server, Duration::from_secs(1)).await.unwrap();
    assert_eq!(get(&server, &format!("{path}/a")).await.0, 404);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let first = get(&server, lease).await.1;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_ne!(get(&server, lease).await.1["spec"]["renewTime"], first["spec"]["renewTime"]);
    drop(node);
}

#[tokio::test(start_paused = true)]
async fn what_never_settles_is_named() {
    let server = server();
    let writer = server.clone();
    let writing = tokio::spawn(async move {
        for number in 0.. {
            let map = serde_json::json!({"metadata": {"name": format!("m{number}")}});
            ask(writer.clone(), Method::POST, "/api/v1/namespaces/default/configmaps", "application/json", &map).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let error = settle(&server, Duration::from_secs(1)).await.unwrap_err().to_string();
    assert!(error.starts_with("/configmaps default/m"), "{error}");
    writing.abort();
    settle(&server, Duration::from_secs(1)).await.unwrap();
}

#[test]
fn a_manual_clock_stands_until_it_is_moved() {
    let clock = ManualClock::new(jiff::Timestamp::UNIX_EPOCH);
    clock.advance(Duration::from_secs(60));
    assert_eq!(crate::clock::Clock::now(&clock).as_second(), 60);
}

#[tokio::test]
async fn history_is_told_by_group_and_plural() {
    let server = server();
    let revision = server.revision();
    let error = server.history("example.org", "things", 0).unwrap_err().to_string();
    assert_eq!(error, "no resource things.example.org is served");
    apply(&server, DEFINITION).await.unwrap();
    apply(&server, "kind: Thing\napiVersion: example.org/v1\nmetadata: {name: t}").await.unwrap();
    apply(&server, "kind: ConfigMap\napiVersion: v1\nmetadata: {name: m}").await.unwrap();
    for (group, plural, name) in [("example.org", "things", "t"), ("", "configmaps", "m")] {
        let events = server.history(group, plural, revision).unwrap();
        assert_eq!(events.iter().map(|event| event.key.name.as_str()).collect::<Vec<_>>(), [name]);
        assert!(events[0].before.is_none() && events[0].after.is_some());
    }
    assert!(server.history("", "configmap", revision).is_err());
    server.compact(server.revision());
    let error = server.history("", "configmaps", revision).unwrap_err().to_string();
    assert!(error.contains("too old"), "{error}");
}

#[tokio::test]
async fn what_is_not_supported_says_where_it_is() {
    for (options, end) in [
        (Options::default(), "embedded API server; use a real kube-apiserver for it"),
        (Options::default().unsupported_hint("ask Jane"), "embedded API server; ask Jane"),
        (Options::default().unsupported_hint(""), "embedded API server"),
    ] {
        let server = ApiServer::start(options).unwrap();
        let (code, status) = get(&server, "/metrics").await;
        assert_eq!(code, 501);
        assert!(message(&status).ends_with(end), "{status}");
    }
}
