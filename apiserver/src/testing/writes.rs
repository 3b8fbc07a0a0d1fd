//! What a client wrote.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use super::{BoxError, collected, pass};
use crate::auth::attributes::Attributes;
use crate::request::Query;
use crate::server::Body;

/// A write as it was sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Write {
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// API group, empty for core.
    pub group: String,
    /// Plural: `configmaps`.
    pub resource: String,
    /// `status` or the like; empty for the object itself.
    pub subresource: String,
    /// Namespace, empty if there is none.
    pub namespace: String,
    /// Name; empty for one that is created.
    pub name: String,
    /// Media type of the body, which tells the kinds of patches apart.
    pub media_type: String,
    /// The body; null if it is no JSON.
    pub body: Value,
    /// HTTP status of the answer.
    pub code: u16,
}

/// The writes of a client, a layer before the server: `kube::Client::new(writes.on(server), "default")`. Clones share what
/// they have seen. Reads are not kept.
#[derive(Clone, Debug, Default)]
pub struct Writes(Arc<Mutex<Vec<Write>>>);

impl Writes {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The server (or a layer before it), whose writes are kept here.
    pub fn on<S>(&self, inner: S) -> Recording<S> {
        Recording { inner, writes: self.clone() }
    }

    /// All of them, the oldest first.
    pub fn all(&self) -> Vec<Write> {
        self.kept().clone()
    }

    /// The same, and forgets them.
    pub fn take(&self) -> Vec<Write> {
        std::mem::take(&mut *self.kept())
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Write>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Layer<S> for Writes {
    type Service = Recording<S>;

    fn layer(&self, inner: S) -> Recording<S> {
        self.on(inner)
    }
}

/// A service whose writes are kept.
#[derive(Clone, Debug)]
pub struct Recording<S> {
    inner: S,
    writes: Writes,
}

impl<S, B> Service<Request<B>> for Recording<S>
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
        let (inner, writes) = (self.inner.clone(), self.writes.clone());
        Box::pin(async move {
            let (parts, body) = collected(request).await?;
            let asked = Attributes::of(&parts.method, parts.uri.path(), &Query::parse(parts.uri.query()));
            if asked.reads() || asked.resource.is_empty() {
                return pass(inner, parts, body).await;
            }
            let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let media_type = media_type.to_owned();
            let answer = pass(inner, parts, body.clone()).await?;
            writes.kept().push(Write {
                verb: asked.verb,
                group: asked.group,
                resource: asked.resource,
                subresource: asked.subresource,
                namespace: asked.namespace,
                name: asked.name,
                media_type,
                body: serde_json::from_slice(&body).unwrap_or_default(),
                code: answer.status().as_u16(),
            });
            Ok(answer)
        })
    }
}
