//! Tests of [`super`], by what a whole server answers.
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::registry::Registry;
use crate::schema::builtin;
use crate::{ApiServer, Options};

async fn ask(server: &ApiServer, method: &str, path: &str, body: &Value) -> (u16, String) {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let answer = server.handle(request.body(Full::new(body)).unwrap()).await;
    let code = answer.status().as_u16();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(text.to_vec()).unwrap())
}

fn server() -> ApiServer {
    ApiServer::start(Options { seed: 1, ..Options::default() }).unwrap()
}

#[test]
fn nothing_in_the_list_is_served() {
    let registry = Registry::builtin(|name| builtin::types().get(name).cloned()).unwrap();
    for (group, versions, plurals) in RESOURCES {
        for (version, plural) in versions.iter().flat_map(|version| plurals.iter().map(move |plural| (version, plural)))
        {
            assert!(
                registry.find(group, version, plural).is_none(),
                "{plural}.{group}/{version} is served: take it out"
            );
        }
    }
}

#[tokio::test]
async fn what_a_real_server_has_is_refused_with_the_way_out() {
    let server = server();
    let asked = [
        ("GET", "/apis/resource.k8s.io/v1/deviceclasses", "deviceclasses of resource.k8s.io/v1"),
        ("GET", "/apis/flowcontrol.apiserver.k8s.io/v1/watch/flowschemas", "flowschemas of flowcontrol"),
        ("DELETE", "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps", "apiservices of apiregistration"),
        ("GET", "/api/v1/componentstatuses", "componentstatuses of v1"),
        ("GET", "/apis/storage.k8s.io/v1/volumeattributesclasses/x", "volumeattributesclasses of storage.k8s.io/v1"),
        ("GET", "/apis/resource.k8s.io", "API group resource.k8s.io"),
        ("GET", "/apis/resource.k8s.io/v1", "API group resource.k8s.io/v1"),
        ("GET", "/metrics", "the path /metrics"),
    ];
    for (method, path, what) in asked {
        let (code, text) = ask(&server, method, path, &Value::Null).await;
        let status: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
        let message = status["message"].as_str().unwrap();
        assert_eq!((code, &status["reason"]), (501, &json!("NotImplemented")), "{path}: {text}");
        assert!(message.contains(what) && message.ends_with("; use a real kube-apiserver for it"), "{path}: {message}");
    }
}

#[tokio::test]
async fn what_no_server_has_is_not_found() {
    let server = server();
    let paths = [
        "/apis/nope.io",
        "/apis/nope.io/v1",
        "/apis/nope.io/v1/things",
        "/apis/resource.k8s.io/v1/things",
        "/apis/resource.k8s.io/v7",
        "/apis/resource.k8s.io/v7/deviceclasses",
        "/apis/apps/v1/things",
        "/api/v1/things",
        "/api/v1/namespaces/default/pods/p/things",
        "/metricsfoo",
    ];
    for path in paths {
        let (code, text) = ask(&server, "GET", path, &Value::Null).await;
        assert_eq!(code, 404, "{path}: {text}");
    }
}

#[tokio::test]
async fn a_definition_of_the_same_name_wins_while_it_is_there() {
    let server = server();
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "deviceclasses.resource.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/1"}},
        "spec": {"group": "resource.k8s.io", "scope": "Cluster", "names": {"plural": "deviceclasses", "kind": "Mine"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, text) = ask(&server, "POST", definitions, &definition).await;
    assert_eq!(code, 201, "{text}");
    let mine = json!({"apiVersion": "resource.k8s.io/v1", "kind": "Mine", "metadata": {"name": "m"}, "a": 1});
    let collection = "/apis/resource.k8s.io/v1/deviceclasses";
    let (code, text) = ask(&server, "POST", collection, &mine).await;
    assert_eq!(code, 201, "{text}");
    assert_eq!(ask(&server, "GET", "/apis/resource.k8s.io/v1", &Value::Null).await.0, 200);
    // Its neighbours are still what only a real server has.
    assert_eq!(ask(&server, "GET", "/apis/resource.k8s.io/v1/resourceslices", &Value::Null).await.0, 501);
    let name = format!("{definitions}/deviceclasses.resource.k8s.io");
    assert_eq!(ask(&server, "DELETE", &name, &Value::Null).await.0, 200);
    assert_eq!(ask(&server, "GET", collection, &Value::Null).await.0, 501);
}
