//! A client of the server in this process: requests as they come over the wire, without the wire. What a write answers
//! goes into the shared cache at once, so a controller never acts on a state older than its own last write.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::cache::Cache;
use super::kind::Kind;
use super::object::{is_terminating, name, namespace};
use crate::auth::User;
use crate::server::{ApiServer, Body};
use crate::verbs::update::ready_to_go;

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{code} {reason}: {message}")]
pub(crate) struct Refused {
    /// HTTP status.
    pub(crate) code: u16,
    /// Machine-readable reason.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
}

impl Refused {
    /// The object, or its namespace, is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Somebody else was faster.
    pub(crate) fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// The name is taken.
    pub(crate) fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// Nothing is made in a namespace that ends.
    pub(crate) fn is_namespace_terminating(&self) -> bool {
        self.code == 403 && self.message.contains("it is being terminated")
    }

    fn of(code: u16, status: &Value) -> Self {
        let text = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
        Self { code, reason: text("reason"), message: text("message") }
    }
}

/// A patch's media type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PatchType {
    /// RFC 7386.
    Merge,
    /// Lists by their keys.
    Strategic,
}

/// How an object is deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    /// `Background`, `Foreground` or `Orphan`; the kind's default if empty.
    pub(crate) policy: &'static str,
    /// Only the object with this uid.
    pub(crate) uid: String,
    /// Only the object at this revision.
    pub(crate) revision: String,
    /// Seconds to end in.
    pub(crate) grace: Option<u64>,
}

/// One user of the server.
#[derive(Clone)]
pub(crate) struct Client {
    server: ApiServer,
    cache: Arc<Cache>,
    user: Arc<User>,
    agent: HeaderValue,
}

impl Client {
    /// A client that is known to the server as `user`, of the program `program`.
    pub(crate) fn new(server: ApiServer, cache: Arc<Cache>, program: &str, user: User) -> Self {
        let agent = format!("{program}/{} (linux/amd64) kubernetes/{}", env!("CARGO_PKG_VERSION"), user.name);
        let agent = HeaderValue::from_str(&agent).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { server, cache, user: Arc::new(user), agent }
    }

    /// One object as it is now, not as the cache has it.
    ///
    /// # Errors
    /// The server's refusal; so for all requests.
    pub(crate) async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value, Refused> {
        self.send(Method::GET, &kind.path(namespace, name, ""), None).await
    }

    /// Any document below a path.
    pub(crate) async fn document(&self, path: &str, accept: &'static str) -> Result<Value, Refused> {
        read(self.open(Method::GET, path, None, accept).await).await
    }

    /// Makes an object, in the namespace that it names.
    pub(crate) async fn create(&self, kind: &Kind, object: &Value) -> Result<Arc<Value>, Refused> {
        let path = kind.path(namespace(object), "", "");
        let made = self.send(Method::POST, &path, Some(("application/json", object))).await?;
        Ok(self.cache.written(kind, made))
    }

    /// Posts to a subresource; the answer is not an object of the kind.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Refused> {
        self.send(Method::POST, path, Some(("application/json", body))).await
    }

    /// Replaces an object, or a subresource of it.
    pub(crate) async fn update(&self, kind: &Kind, subresource: &str, object: &Value) -> Result<Arc<Value>, Refused> {
        let path = kind.path(namespace(object), name(object), subresource);
        let updated = self.send(Method::PUT, &path, Some(("application/json", object))).await?;
        Ok(self.known(kind, updated))
    }

    /// Patches `object` (its name is read, nothing else), or a subresource of it.
    pub(crate) async fn patch(
        &self,
        kind: &Kind,
        object: &Value,
        subresource: &str,
        type_: PatchType,
        patch: &Value,
    ) -> Result<Arc<Value>, Refused> {
        let path = kind.path(namespace(object), name(object), subresource);
        let media = match type_ {
            PatchType::Merge => "application/merge-patch+json",
            PatchType::Strategic => "application/strategic-merge-patch+json",
        };
        let patched = self.send(Method::PATCH, &path, Some((media, patch))).await?;
        Ok(self.known(kind, patched))
    }

    /// What a change was answered is known at once. Who takes the last finalizer from an object that ends is answered with
    /// the object at its old revision, as the real server does, and it is gone: held on to until the watch tells of it, it
    /// would have the finalizer still, and a pod of a Job be counted twice.
    fn known(&self, kind: &Kind, answer: Value) -> Arc<Value> {
        if ready_to_go(&answer) {
            self.cache.deleted(kind, &answer);
            return Arc::new(answer);
        }
        self.cache.written(kind, answer)
    }

    /// Deletes an object; one that is gone already is no error.
    pub(crate) async fn delete(&self, kind: &Kind, object: &Value, options: &DeleteOptions) -> Result<(), Refused> {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if !options.policy.is_empty() {
            body["propagationPolicy"] = json!(options.policy);
        }
        if !options.uid.is_empty() {
            body["preconditions"]["uid"] = json!(options.uid);
        }
        if !options.revision.is_empty() {
            body["preconditions"]["resourceVersion"] = json!(options.revision);
        }
        if let Some(grace) = options.grace {
            body["gracePeriodSeconds"] = json!(grace);
        }
        let path = kind.path(namespace(object), name(object), "");
        match self.send(Method::DELETE, &path, Some(("application/json", &body))).await {
            // Still there: it has a finalizer, or time to end in.
            Ok(answer) if answer["kind"] == kind.name.as_ref() && is_terminating(&answer) => {
                self.cache.written(kind, answer);
                Ok(())
            }
            Ok(_) => {
                self.cache.deleted(kind, object);
                Ok(())
            }
            Err(refused) if refused.is_not_found() => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    /// Deletes all objects of a kind in a namespace.
    pub(crate) async fn delete_collection(&self, kind: &Kind, namespace: &str) -> Result<(), Refused> {
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        let path = kind.path(namespace, "", "");
        self.send(Method::DELETE, &path, Some(("application/json", &body))).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, body: Option<(&'static str, &Value)>) -> Result<Value, Refused> {
        read(self.open(method, path, body, "application/json").await).await
    }

    /// Sends a request; the answer's body may be a stream.
    pub(super) async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, &Value)>,
        accept: &'static str,
    ) -> Response<Body> {
        let mut request = Request::new(Full::new(Bytes::from(body.map(|(_, v)| v.to_string()).unwrap_or_default())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(USER_AGENT, self.agent.clone());
        if let Some((media, _)) = body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        }
        request.extensions_mut().insert(User::clone(&self.user));
        self.server.handle(request).await
    }
}

/// The whole body, as JSON; refusals as errors.
async fn read(response: Response<Body>) -> Result<Value, Refused> {
    let (parts, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(never) => match never {},
    };
    let code = parts.status.as_u16();
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) if parts.status.is_success() => Ok(value),
        Ok(status) => Err(Refused::of(code, &status)),
        Err(_) => {
            let message = String::from_utf8_lossy(&bytes).trim().to_owned();
            Err(Refused { code, reason: String::new(), message })
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
