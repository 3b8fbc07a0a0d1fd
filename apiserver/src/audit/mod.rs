//! The audit log: one event for each request, written when its answer is complete (level Metadata), as kube-apiserver
//! writes it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::auth::attributes::Attributes;
use crate::auth::authorize::Decision;
use crate::auth::review::shown;
use crate::auth::{Credentials, User};
use crate::clock::Clock;
use crate::server::Body;

/// Where events go; a line each.
pub type Sink = Box<dyn std::io::Write + Send>;

/// The audit log.
pub struct Audit {
    sink: Mutex<Sink>,
    clock: Arc<dyn Clock>,
}

/// What an answer says of itself, for the log: the Status of a refusal.
#[derive(Clone)]
pub(crate) struct Said(pub(crate) Value);

/// What is known of a request so far.
pub struct Trail {
    audit: Arc<Audit>,
    event: Value,
}

impl Audit {
    /// Writes to `sink`.
    pub fn new(sink: Sink, clock: Arc<dyn Clock>) -> Self {
        Self { sink: Mutex::new(sink), clock }
    }

    /// Begins with a request; `id` identifies it.
    pub fn begin(self: &Arc<Self>, id: &str, request: &Parts, wanted: &Attributes) -> Trail {
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": id,
            "stage": "ResponseComplete", "requestURI": request.uri.path_and_query().map_or("/", |uri| uri.as_str()),
            "verb": wanted.verb, "user": {}, "requestReceivedTimestamp": self.now(),
        });
        if let Some(peer) = request.extensions.get::<Credentials>().and_then(|credentials| credentials.peer) {
            event["sourceIPs"] = json!([peer.to_string()]);
        }
        if let Some(agent) = request.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()) {
            event["userAgent"] = json!(agent);
        }
        if wanted.path.is_empty() {
            event["objectRef"] = reference(wanted);
        }
        Trail { audit: Arc::clone(self), event }
    }

    fn now(&self) -> String {
        micros(self.clock.now())
    }

    fn write(&self, mut event: Value) {
        event["stageTimestamp"] = json!(self.now());
        let mut line = event.to_string();
        line.push('\n');
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = sink.write_all(line.as_bytes()) {
            eprintln!("audit log: {error}: {}", line.trim_end());
        }
    }
}

/// Six digits after the point, as Kubernetes writes moments.
fn micros(time: jiff::Timestamp) -> String {
    format!("{time:.6}")
}

fn reference(wanted: &Attributes) -> Value {
    let fields = [
        ("resource", &wanted.resource),
        ("namespace", &wanted.namespace),
        ("name", &wanted.name),
        ("apiGroup", &wanted.group),
        ("apiVersion", &wanted.version),
        ("subresource", &wanted.subresource),
    ];
    let told = fields.into_iter().filter(|(_, value)| !value.is_empty());
    told.map(|(name, value)| (name.to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

impl Trail {
    /// Who asks.
    pub fn user(&mut self, user: &User) {
        self.event["user"] = shown(user);
    }

    /// For whom they ask.
    pub fn impersonated(&mut self, user: &User) {
        self.event["impersonatedUser"] = shown(user);
    }

    /// Whether they may.
    pub fn decided(&mut self, decision: &Decision) {
        let word = if decision.allowed { "allow" } else { "forbid" };
        self.event["annotations"] = json!({
            "authorization.k8s.io/decision": word, "authorization.k8s.io/reason": decision.reason,
        });
    }

    /// Ends with the answer; the event of a stream is written when that ends.
    pub fn end(mut self, mut answer: Response<Body>) -> Response<Body> {
        if let Ok(id) = HeaderValue::from_str(self.event["auditID"].as_str().unwrap_or_default()) {
            answer.headers_mut().insert("audit-id", id);
        }
        let mut status = match answer.extensions_mut().remove::<Said>() {
            Some(Said(status)) => status,
            None => json!({"metadata": {}}),
        };
        if let Some(status) = status.as_object_mut() {
            status.remove("kind");
            status.remove("apiVersion");
            status.insert("code".into(), json!(answer.status().as_u16()));
        }
        self.event["responseStatus"] = status;
        let (parts, body) = answer.into_parts();
        // A body of known length is as good as sent.
        if http_body::Body::size_hint(&body).exact().is_some() {
            self.audit.write(self.event);
            return Response::from_parts(parts, body);
        }
        Response::from_parts(parts, Followed { body, trail: Some(self) }.boxed_unsync())
    }
}

/// A body whose end is noted, be it that it is whole or that nobody wants it any longer.
struct Followed {
    body: Body,
    trail: Option<Trail>,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if let Some(trail) = self.trail.take() {
            trail.audit.write(trail.event);
        }
    }
}
