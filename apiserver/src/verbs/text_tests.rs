//! Tests of [`super`]: text is sent as the tree would have been.
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::Form;
use crate::verbs::locked;
use crate::{ApiServer, Options};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn ask(server: &ApiServer, method: &str, path: &str, accept: &str, body: &Value) -> (Option<u64>, String) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder().method(method).uri(path).header("accept", accept);
    let answer = server.handle(request.body(Full::<bytes::Bytes>::from(body)).unwrap()).await;
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    let told = http_body::Body::size_hint(answer.body()).exact();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (told, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn filled(count: usize) -> ApiServer {
    let server = ApiServer::start(Options { seed: 5, ..Options::default() }).unwrap();
    for number in 0..count {
        let labels = json!({"even": (number % 2 == 0).to_string()});
        // Some objects are larger than a piece.
        let data = json!({"k": "\u{e9}\"\\\n".repeat(number * 700)});
        let map = json!({"metadata": {"name": format!("m{number:03}"), "labels": labels}, "data": data});
        ask(&server, "POST", MAPS, "application/json", &map).await;
    }
    server
}

/// The tree is asked for by YAML, which is never sent as it is kept.
async fn both(server: &ApiServer, path: &str) -> Value {
    let (told, text) = ask(server, "GET", path, "application/json", &Value::Null).await;
    assert_eq!(told, Some(text.len() as u64), "{path}");
    let json: Value = serde_json::from_str(&text).unwrap();
    let (_, text) = ask(server, "GET", path, "application/yaml", &Value::Null).await;
    let yaml: Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(json, yaml, "{path}");
    json
}

#[tokio::test]
async fn lists_are_the_same_as_text_and_as_trees() {
    let server = filled(40).await;
    let all = both(&server, MAPS).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 40);
    assert!(all["items"][0].get("kind").is_none());
    let page = both(&server, &format!("{MAPS}?limit=7")).await;
    assert_eq!((page["items"].as_array().unwrap().len(), &page["metadata"]["remainingItemCount"]), (7, &json!(33)));
    let even = both(&server, &format!("{MAPS}?labelSelector=even%3Dtrue")).await;
    assert_eq!(even["items"].as_array().unwrap().len(), 20);
    assert_eq!(both(&server, "/api/v1/namespaces/kube-system/configmaps").await["items"], json!([]));
    for path in ["/apis/rbac.authorization.k8s.io/v1/clusterroles", "/api/v1/services", "/api/v1/namespaces"] {
        assert!(!both(&server, path).await["items"].as_array().unwrap().is_empty(), "{path}");
    }
}

/// Every kind that may be sent as it is kept is: none of them falls back to trees.
#[tokio::test]
async fn built_in_kinds_are_never_made_trees_of() {
    let server = filled(2).await;
    // Names that sort before those of type and version.
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [], "ports": []});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    ask(&server, "POST", slices, "application/json", &slice).await;
    let class = json!({"metadata": {"name": "c"}, "provisioner": "p", "allowVolumeExpansion": true});
    ask(&server, "POST", "/apis/storage.k8s.io/v1/storageclasses", "application/json", &class).await;
    both(&server, slices).await;
    let state = locked(&server.state);
    let mut kinds = 0;
    for resource in state.registry.all().iter().filter(|resource| resource.plural != "events") {
        let form = Form::of(resource).unwrap();
        let all: Vec<_> = state.store.list_stored(&resource.storage, "").collect();
        kinds += usize::from(!all.is_empty());
        for (key, stored) in all {
            assert!(form.object(stored).is_some(), "{key:?}: {}", stored.text);
            assert_eq!(*stored.text, crate::body::order::text(&stored.parse()), "{key:?}");
        }
    }
    assert!(kinds >= 8, "only {kinds} kinds have objects");
}

#[tokio::test]
async fn objects_are_the_same_as_text_and_as_trees() {
    let server = filled(3).await;
    for path in
        [&format!("{MAPS}/m002"), "/api/v1/namespaces/default", "/api/v1/namespaces/default/services/kubernetes"]
    {
        let object = both(&server, path).await;
        assert!(object["kind"].is_string() && object["metadata"]["uid"].is_string(), "{path}");
    }
}
