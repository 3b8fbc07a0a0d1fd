//! Answers: what is told, as JSON, YAML or text, and with which headers.

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;

use super::Body;
use crate::audit::Said;
use crate::body::order;
use crate::failure::Failure;
use crate::request::{Accepted, Form, Query, negotiate};
use crate::watch::Watch;

pub(super) fn answer(code: u16, kind: &'static str, body: Bytes) -> Response<Body> {
    let full = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(full);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

pub(super) fn json_answer(code: u16, body: &Value) -> Response<Body> {
    let mut text = order::text(body);
    text.push('\n');
    answer(code, "application/json", Bytes::from(text))
}

pub(super) fn encode(code: u16, body: &Value, accepted: Accepted) -> Response<Body> {
    if accepted.yaml {
        return answer(code, "application/yaml", Bytes::from(crate::yaml::print(body)));
    }
    json_answer(code, body)
}

/// Whether an object may be answered as JSON.
pub(super) fn plain_json(headers: &HeaderMap) -> bool {
    negotiate(headers, |form| form == Form::Object).is_ok_and(|accepted| !accepted.yaml)
}

/// Whether JSON is to be spread over lines: if the query says so, or else for programs that people use by hand.
pub(super) fn for_people(parts: &http::request::Parts) -> bool {
    pub(super) const PROGRAMS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];
    if parts.uri.path().starts_with("/openapi/") {
        return false;
    }
    match Query::parse(parts.uri.query()).get("pretty") {
        "" => {
            let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
            parts.uri.path() == "/version" || PROGRAMS.iter().any(|program| agent.starts_with(program))
        }
        asked => matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

pub(super) async fn spread(answer: Response<Body>) -> Response<Body> {
    let (head, body) = answer.into_parts();
    let text = body.collect().await.map(|body| body.to_bytes()).unwrap_or_else(|never| match never {});
    let spread = order::indented(&String::from_utf8_lossy(&text));
    Response::from_parts(head, Full::new(Bytes::from(spread)).map_err(|never| match never {}).boxed_unsync())
}

/// A 404 that says no more.
pub(super) fn nothing() -> Response<Body> {
    let mut nothing = Response::new(Full::default().boxed_unsync());
    *nothing.status_mut() = StatusCode::NOT_FOUND;
    nothing
}

pub(super) fn text(code: StatusCode, body: &'static str) -> Response<Body> {
    answer(code.as_u16(), "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

pub(super) fn failed(failure: &Failure) -> Response<Body> {
    let status = failure.status();
    let mut answer = json_answer(failure.code, &status);
    answer.extensions_mut().insert(Said(status));
    failure.warnings.iter().for_each(|warning| warn(&mut answer, warning));
    if let Some(seconds) = failure.retry_after() {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// An error for a client that reads YAML.
pub(super) fn in_yaml(mut answer: Response<Body>) -> Response<Body> {
    if let Some(Said(status)) = answer.extensions().get::<Said>() {
        let text = crate::yaml::print(status);
        *answer.body_mut() = Full::new(Bytes::from(text)).boxed_unsync();
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    }
    answer
}

pub(super) fn stream(watch: Watch) -> Response<Body> {
    let frames = watch.lines().map(|line| Ok(http_body::Frame::data(line)));
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Warns of the resource before anything is said of the object.
pub(super) fn warn_first(answer: &mut Response<Body>, warning: &str) {
    let others: Vec<HeaderValue> = answer.headers().get_all(WARNING).iter().cloned().collect();
    answer.headers_mut().remove(WARNING);
    warn(answer, warning);
    for other in others {
        answer.headers_mut().append(WARNING, other);
    }
}

pub(super) fn warn(answer: &mut Response<Body>, warning: &str) {
    let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
    if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
        answer.headers_mut().append(WARNING, value);
    }
}
