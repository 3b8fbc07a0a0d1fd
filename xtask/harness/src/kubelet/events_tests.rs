//! Tests of [`super`], against an API server of a few lines.
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::{Json, Router};
use serde_json::Value;

use super::*;

/// Keeps what it is asked; the first `gone` patches find nothing.
async fn server(asked: Arc<Mutex<Vec<(String, Value)>>>, gone: usize) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let missing = Arc::new(Mutex::new(gone));
    let app = Router::new().fallback(move |request: Request| {
        let (asked, missing) = (asked.clone(), missing.clone());
        async move {
            let method = request.method().to_string();
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            asked.lock().unwrap().push((method.clone(), body));
            let mut missing = missing.lock().unwrap();
            if method == "PATCH" && *missing > 0 {
                *missing -= 1;
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                    "code": 404, "reason": "NotFound", "message": "gone"});
                return (axum::http::StatusCode::NOT_FOUND, Json(status));
            }
            let event = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}, "involvedObject": {}});
            (axum::http::StatusCode::OK, Json(event))
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

fn event(action: &str, message: &str) -> Event {
    let about = ObjectReference { name: Some("p".into()), namespace: Some("n".into()), ..ObjectReference::default() };
    Event {
        reason: Some("Unhealthy".into()),
        action: Some(action.into()),
        message: Some(message.into()),
        involved_object: about,
        ..Event::default()
    }
}

#[tokio::test]
async fn the_same_again_is_counted_and_written_anew_when_it_is_gone() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let client = server(asked.clone(), 1).await;
    let mut written = HashMap::new();
    for (action, message) in [("Liveness", "a"), ("Readiness", "b"), ("Liveness", "c"), ("Liveness", "d")] {
        write(&client, "node", &mut written, event(action, message)).await.unwrap();
    }
    let asked = asked.lock().unwrap();
    let methods: Vec<&str> = asked.iter().map(|(method, _)| method.as_str()).collect();
    // Liveness and readiness; then a patch of what is gone, written anew, and counted.
    assert_eq!(methods, ["POST", "POST", "PATCH", "POST", "PATCH"]);
    assert_eq!((&asked[4].1["count"], &asked[4].1["message"]), (&json!(2), &json!("d")));
    assert_eq!(asked[0].1["source"], json!({"component": "kubelet", "host": "node"}));
}

#[test]
fn messages_are_cut_between_characters() {
    let cut = shortened("ä".repeat(900));
    assert!(cut.len() <= MESSAGE_MAX && cut.chars().all(|c| c == 'ä'), "{}", cut.len());
}
