//! What tests of controllers need beside a server: manifests ([`apply`]), nodes on which pods become ready ([`FakeNode`]),
//! faults between a client and the server ([`Faults`]), what a client wrote ([`Writes`]), and time that is moved by hand
//! ([`ManualClock`], [`settle`]).
//!
//! Everything here stands on the server from outside, as a client of it or as a layer before it; only what has to know which
//! kinds are served looks inside.

mod faults;
mod manifests;
mod node;
mod pod_status;
mod time;
mod writes;

use std::future::poll_fn;
use std::io;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower_service::Service;

use crate::server::Body;
pub use faults::{Fault, Faults, Faulty};
pub use manifests::{ManifestError, apply, apply_path};
pub use node::{FakeNode, PodFate, RunningNode};
pub use time::{ManualClock, Unsettled, settle};
pub use writes::{Recording, Write, Writes};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request whose body is here as a whole, so that it can be looked at and sent on.
async fn collected<B>(request: Request<B>) -> io::Result<(Parts, Bytes)>
where
    B: http_body::Body<Error: Into<BoxError>>,
{
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| io::Error::other(error.into()))?;
    Ok((parts, body.to_bytes()))
}

/// Sends it on.
async fn pass<S>(mut inner: S, parts: Parts, body: Bytes) -> io::Result<Response<Body>>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Body>, Error: Into<BoxError>>,
{
    let failed = |error: S::Error| io::Error::other(error.into());
    poll_fn(|context| inner.poll_ready(context)).await.map_err(failed)?;
    inner.call(Request::from_parts(parts, Full::new(body))).await.map_err(failed)
}

/// Asks a server in this process; code and body of the answer.
async fn ask<S>(service: S, method: Method, path: &str, media_type: &str, body: &Value) -> (u16, Value)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Body>, Error: Into<BoxError>>,
{
    let request = Request::builder().method(method).uri(path).header("content-type", media_type);
    let request = match request.header("user-agent", "apiserver-testing").body(()) {
        Ok(request) => request,
        Err(error) => return (400, serde_json::json!({"message": format!("{path}: {error}")})),
    };
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let answer = match pass(service, request.into_parts().0, body).await {
        Ok(answer) => answer,
        Err(error) => return (500, serde_json::json!({"message": error.to_string()})),
    };
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap_or_else(|never| match never {}).to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// What an answer says of its refusal.
fn message(answer: &Value) -> String {
    answer["message"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
#[path = "testing_tests.rs"]
mod tests;
