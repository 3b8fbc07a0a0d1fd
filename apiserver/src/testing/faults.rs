//! What goes wrong between a client and the server, as a layer before it.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower_layer::Layer;
use tower_service::Service;

use super::{BoxError, collected, pass};
use crate::auth::attributes::Attributes;
use crate::failure::{Failure, qualified};
use crate::request::Query;
use crate::server::Body;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Refuse { code: u16, retry_after: Option<u64> },
    Delay(Duration),
    LoseAnswer,
}

/// One thing that goes wrong: with every request if nothing else is said, as often as it is asked for.
#[derive(Clone, Debug)]
pub struct Fault {
    effect: Effect,
    verbs: Vec<&'static str>,
    resource: Option<String>,
    after: u32,
    times: Option<u32>,
}

impl Fault {
    fn new(effect: Effect) -> Self {
        Self { effect, verbs: Vec::new(), resource: None, after: 0, times: None }
    }

    /// The request does not reach the server, and is answered with this status: 409 is a conflict, 429 too many requests,
    /// 500 an internal error, 503 a server that is not there, 504 a timeout.
    pub fn refuse(code: u16) -> Self {
        Self::new(Effect::Refuse { code, retry_after: None })
    }

    /// The request takes longer.
    pub fn delay(by: Duration) -> Self {
        Self::new(Effect::Delay(by))
    }

    /// The request is carried out, but the connection breaks before the answer comes: a write was done, and nobody knows.
    pub fn lose_answer() -> Self {
        Self::new(Effect::LoseAnswer)
    }

    /// A refusal says after how many seconds the client may try again (`Retry-After`).
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        if let Effect::Refuse { retry_after, .. } = &mut self.effect {
            *retry_after = Some(seconds);
        }
        self
    }

    /// Only these verbs (`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`).
    #[must_use]
    pub fn verbs(mut self, verbs: &[&'static str]) -> Self {
        self.verbs = verbs.to_vec();
        self
    }

    /// Only what changes something.
    #[must_use]
    pub fn writes(self) -> Self {
        self.verbs(&["create", "update", "patch", "delete", "deletecollection"])
    }

    /// Only one resource, with its subresources, as `kubectl api-resources` names it: `configmaps`, `deployments.apps`.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// The first requests that it would meet are left alone.
    #[must_use]
    pub fn after(mut self, requests: u32) -> Self {
        self.after = requests;
        self
    }

    /// Only so often.
    #[must_use]
    pub fn times(mut self, requests: u32) -> Self {
        self.times = Some(requests);
        self
    }

    fn concerns(&self, asked: &Attributes) -> bool {
        let resource = self.resource.as_ref().is_none_or(|own| *own == qualified(&asked.resource, &asked.group));
        resource && (self.verbs.is_empty() || self.verbs.contains(&asked.verb.as_str()))
    }

    /// Whether it meets a request that it concerns.
    fn strikes(&mut self) -> bool {
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        match &mut self.times {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// How an open watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// As if the connection had been closed.
    Closed,
    /// With a 410, so that the client has to list again.
    Expired,
}

#[derive(Debug)]
struct Inner {
    planted: Mutex<Vec<Fault>>,
    met: Mutex<usize>,
    cuts: watch::Sender<Option<Cut>>,
}

/// Faults for one client or several: `kube::Client::new(faults.on(server), "default")`. Clones are the same faults; other
/// clients of the server do not meet them.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Inner>);

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(Inner { planted: Mutex::default(), met: Mutex::default(), cuts: watch::Sender::new(None) }))
    }
}

impl Faults {
    /// Nothing goes wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The server (or a layer before it) behind these faults.
    pub fn on<S>(&self, inner: S) -> Faulty<S> {
        Faulty { inner, faults: self.clone() }
    }

    /// From now on this goes wrong, too.
    pub fn plant(&self, fault: Fault) {
        lock(&self.0.planted).push(fault);
    }

    /// From now on nothing goes wrong.
    pub fn clear(&self) {
        lock(&self.0.planted).clear();
    }

    /// How many times something has gone wrong with a request: a test that counts on a fault makes sure that it was met.
    pub fn met(&self) -> usize {
        *lock(&self.0.met)
    }

    /// Open watches end, as if their connections had been closed.
    pub fn cut_watches(&self) {
        self.0.cuts.send_replace(Some(Cut::Closed));
    }

    /// Open watches end with a 410: their clients list again.
    pub fn expire_watches(&self) {
        self.0.cuts.send_replace(Some(Cut::Expired));
    }

    fn strike(&self, asked: &Attributes) -> Vec<Effect> {
        let mut planted = lock(&self.0.planted);
        let concerned = planted.iter_mut().filter(|fault| fault.concerns(asked));
        let effects: Vec<Effect> = concerned.filter_map(|fault| fault.strikes().then_some(fault.effect)).collect();
        *lock(&self.0.met) += effects.len();
        effects
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        self.on(inner)
    }
}

/// A service with which things go wrong.
#[derive(Clone, Debug)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S, B> Service<Request<B>> for Faulty<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Body>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (inner, faults) = (self.inner.clone(), self.faults.clone());
        Box::pin(async move {
            let (parts, body) = collected(request).await?;
            let asked = Attributes::of(&parts.method, parts.uri.path(), &Query::parse(parts.uri.query()));
            let effects = faults.strike(&asked);
            for effect in &effects {
                if let Effect::Delay(by) = effect {
                    tokio::time::sleep(*by).await;
                }
            }
            for effect in &effects {
                if let Effect::Refuse { code, retry_after } = effect {
                    return Ok(refusal(*code, *retry_after, &asked));
                }
            }
            let cuts = faults.0.cuts.subscribe();
            let answer = pass(inner, parts, body).await?;
            if effects.contains(&Effect::LoseAnswer) {
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the answer was lost (a planted fault)"));
            }
            match asked.verb == "watch" && answer.status().is_success() {
                true => Ok(answer.map(|body| until_cut(body, cuts))),
                false => Ok(answer),
            }
        })
    }
}

/// A refusal, in the real server's form.
fn refusal(code: u16, retry_after: Option<u64>, asked: &Attributes) -> Response<Body> {
    let (reason, message) = match code {
        400 => ("BadRequest", "a planted fault"),
        403 => ("Forbidden", "a planted fault"),
        404 => ("NotFound", "a planted fault"),
        410 => ("Expired", "The resourceVersion for the provided watch is too old."),
        429 => ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        _ => ("InternalError", "a planted fault"),
    };
    let mut status = match code {
        409 => Failure::modified(&asked.group, &asked.resource, &asked.name).status(),
        _ => json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "reason": reason, "message": message}),
    };
    if let Some(seconds) = retry_after {
        status["details"]["retryAfterSeconds"] = json!(seconds);
    }
    let mut answer = Response::new(Full::new(Bytes::from(status.to_string())).boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// A stream that ends when watches are cut.
fn until_cut(body: Body, mut cuts: watch::Receiver<Option<Cut>>) -> Body {
    let cut = Box::pin(async move {
        match cuts.changed().await {
            Ok(()) => *cuts.borrow(),
            // Nobody is left who could cut it.
            Err(_) => std::future::pending().await,
        }
    });
    Watched { body, cut, over: false }.boxed_unsync()
}

struct Watched {
    body: Body,
    cut: Pin<Box<dyn Future<Output = Option<Cut>> + Send>>,
    over: bool,
}

impl fmt::Debug for Watched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watched").field("over", &self.over).finish_non_exhaustive()
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(cut) = self.cut.as_mut().poll(context) {
            self.over = true;
            return Poll::Ready((cut == Some(Cut::Expired)).then(|| Ok(Frame::data(expired()))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}

/// The last line of a watch that is too old.
fn expired() -> Bytes {
    let status: Value = Failure::expired("too old resource version: a planted fault").status();
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})))
}
