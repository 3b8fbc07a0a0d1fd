//! A server in process, asked as anybody, with a clock that is moved by hand.

#![allow(clippy::unwrap_used, reason = "test code")]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::sync::Arc;
use std::time::Duration;

use apiserver::testing::ManualClock;
use apiserver::{ApiServer, Credentials, Options, User};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::Value;

/// Who asks.
#[derive(Clone)]
pub(crate) enum As {
    Admin,
    User(User),
    /// Over the network, with this bearer token (none if empty).
    Token(String),
}

impl As {
    pub(crate) fn named(name: &str, groups: &[&str]) -> Self {
        Self::User(User::new(name, groups))
    }

    pub(crate) fn node(name: &str) -> Self {
        Self::named(&format!("system:node:{name}"), &["system:nodes"])
    }
}

/// The server and its clock.
pub(crate) struct Inside {
    pub(crate) server: ApiServer,
    clock: Arc<ManualClock>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) audit_id: String,
}

impl Answer {
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

impl Inside {
    pub(crate) fn start(options: Options) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_900_000_000).unwrap()));
        let server = ApiServer::start(options.seed(3).clock(clock.clone())).unwrap();
        Self { server, clock }
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn request(who: &As, method: &str, path: &str, body: &Value) -> Request<Full<Bytes>> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = Request::builder().method(method).uri(path).header("content-type", kind);
        request = match who {
            As::Admin => request,
            As::User(user) => request.extension(user.clone()),
            As::Token(token) if token.is_empty() => request.extension(Credentials::default()),
            As::Token(token) => {
                request.extension(Credentials::default()).header("authorization", format!("Bearer {token}"))
            }
        };
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        request.body(Full::new(bytes)).unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let answer = self.server.handle(request).await;
        let code = answer.status().as_u16();
        let audit_id = answer.headers().get("audit-id").map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Answer { code, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()), audit_id }
    }

    pub(crate) async fn ask(&self, who: &As, method: &str, path: &str, body: &Value) -> Answer {
        self.send(Self::request(who, method, path, body)).await
    }

    /// As the administrator; what is not answered with `code` ends the test.
    pub(crate) async fn must(&self, code: u16, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(&As::Admin, method, path, body).await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.body);
        answer.body
    }
}
