//! The audit log: one event for each request, whoever asked and whatever came of it.

#![allow(clippy::unwrap_used, reason = "test code")]

mod inside;

use std::io::Write;
use std::sync::{Arc, Mutex};

use apiserver::Options;
use http_body_util::BodyExt;
use inside::{As, Inside};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Kept {
    /// What was written since the last time; each line is an event.
    fn take(&self) -> Vec<Value> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn one(&self) -> Value {
        let events = self.take();
        assert_eq!(events.len(), 1, "{events:?}");
        events.into_iter().next().unwrap()
    }
}

fn audited() -> (Inside, Kept) {
    let kept = Kept::default();
    let inside = Inside::start(Options::default().audit_log(kept.clone()));
    (inside, kept)
}

#[tokio::test]
async fn an_event_says_who_did_what_to_what_and_what_came_of_it() {
    let (inside, kept) = audited();
    let made = inside.ask(&As::Admin, "POST", MAPS, &json!({"metadata": {"name": "m"}})).await;
    let event = kept.one();
    assert_eq!((&event["kind"], &event["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!((&event["level"], &event["stage"]), (&json!("Metadata"), &json!("ResponseComplete")));
    assert_eq!((&event["verb"], &event["requestURI"]), (&json!("create"), &json!(MAPS)));
    assert_eq!(event["objectRef"], json!({"resource": "configmaps", "namespace": "default", "apiVersion": "v1"}));
    assert_eq!(event["user"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!((&event["responseStatus"]["code"], made.code), (&json!(201), 201));
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(event["auditID"], made.audit_id.as_str());
    assert!(!made.audit_id.is_empty());
    assert_eq!(event["requestReceivedTimestamp"], "2030-03-17T17:46:40.000000Z");
    // The object itself is not in the log.
    assert!(event.get("requestObject").is_none() && event.get("responseObject").is_none());
    inside.ask(&As::Admin, "GET", &format!("{MAPS}/m?pretty=1"), &Value::Null).await;
    let event = kept.one();
    assert_eq!((&event["verb"], &event["objectRef"]["name"]), (&json!("get"), &json!("m")));
    inside.ask(&As::Admin, "GET", "/healthz", &Value::Null).await;
    let event = kept.one();
    assert_eq!((&event["verb"], event.get("objectRef")), (&json!("get"), None));
}

#[tokio::test]
async fn refusals_are_in_the_log_with_their_reason() {
    let (inside, kept) = audited();
    inside.ask(&As::named("jane", &["staff"]), "DELETE", &format!("{MAPS}/m"), &Value::Null).await;
    let event = kept.one();
    assert_eq!(event["user"]["username"], "jane");
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&event["responseStatus"]["code"], &event["responseStatus"]["reason"]),
        (&json!(403), &json!("Forbidden"))
    );
    inside.ask(&As::Token("nonsense".into()), "GET", MAPS, &Value::Null).await;
    let event = kept.one();
    assert_eq!((&event["responseStatus"]["code"], &event["user"]), (&json!(401), &json!({})));
    inside.ask(&As::Token(String::new()), "GET", MAPS, &Value::Null).await;
    let event = kept.one();
    assert_eq!(
        (&event["user"]["username"], &event["responseStatus"]["code"]),
        (&json!("system:anonymous"), &json!(403))
    );
    inside.ask(&As::Admin, "GET", &format!("{MAPS}/none"), &Value::Null).await;
    assert_eq!(kept.one()["responseStatus"]["code"], 404);
}

#[tokio::test]
async fn whoever_asks_in_anothers_name_is_named_too() {
    let (inside, kept) = audited();
    let mut request = Inside::request(&As::Admin, "GET", MAPS, &Value::Null);
    request.headers_mut().insert("impersonate-user", "jane".parse().unwrap());
    assert_eq!(inside.send(request).await.code, 403);
    let event = kept.one();
    assert_eq!(event["user"]["username"], "system:apiserver");
    assert_eq!(event["impersonatedUser"]["username"], "jane");
}

#[tokio::test]
async fn a_watch_is_in_the_log_when_it_ends() {
    let (inside, kept) = audited();
    let request = Inside::request(&As::Admin, "GET", &format!("{MAPS}?watch=1"), &Value::Null);
    let mut watch = inside.server.handle(request).await;
    inside.must(201, "POST", MAPS, &json!({"metadata": {"name": "m"}})).await;
    assert!(watch.body_mut().frame().await.unwrap().unwrap().is_data());
    assert_eq!(kept.one()["verb"], "create", "the watch goes on");
    drop(watch);
    let event = kept.one();
    assert_eq!((&event["verb"], &event["responseStatus"]["code"]), (&json!("watch"), &json!(200)));
}
