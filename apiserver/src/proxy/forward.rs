//! Asking a kubelet and handing on what it answers.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::KubeletOptions;
use super::destination::Destination;
use crate::failure::{Failure, Outcome};
use crate::server::Body;

/// Longest time until a kubelet's connection is ready.
const CONNECT: Duration = Duration::from_secs(10);
/// Most of an error's text that is kept.
const ERROR_MAX: usize = 64 << 10;

/// Sends one request on a connection of its own.
async fn ask(
    way: &KubeletOptions,
    place: &Destination,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, String> {
    let Destination { host, port, path } = place;
    let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let connecting = tokio::time::timeout(CONNECT, way.dialer.connect(&place.host, *port));
    let stream = match connecting.await {
        Ok(connected) => connected.map_err(|error| format!("dial tcp {host}: {error}"))?,
        Err(_) => return Err(format!("dial tcp {host}: no connection within {CONNECT:?}")),
    };
    let said = |error: hyper::Error| format!("kubelet at {host}: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    // Ends when the answer has been read, or with the upgraded connection.
    tokio::spawn(connection.with_upgrades());
    *request.uri_mut() = path.parse().map_err(|error| format!("{path}: {error}"))?;
    if let Ok(value) = HeaderValue::from_str(&host) {
        request.headers_mut().insert(HOST, value);
    }
    sender.send_request(request).await.map_err(said)
}

/// The client's headers without its credentials, and without those that belong to the connection.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    for name in [AUTHORIZATION, HOST, CONTENT_LENGTH, TRANSFER_ENCODING] {
        passed.remove(name);
    }
    let impersonating: Vec<_> =
        passed.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonating {
        passed.remove(name);
    }
    passed
}

/// The answer as it comes; a connection that breaks ends it.
fn streamed(body: Incoming) -> Body {
    let frames = BodyStream::new(body).take_while(|frame| futures::future::ready(frame.is_ok()));
    let frames = frames.filter_map(|frame| futures::future::ready(frame.ok().and_then(|frame| frame.into_data().ok())));
    StreamBody::new(frames.map(|data| Ok(Frame::data(data)))).boxed_unsync()
}

async fn error_text(answer: Response<Incoming>) -> String {
    let body = Limited::new(answer.into_body(), ERROR_MAX).collect().await;
    body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default()
}

/// A container's log, as it is written if that was asked for.
pub(super) async fn log(way: &KubeletOptions, place: &Destination) -> Outcome<Response<Body>> {
    let answer = ask(way, place, Request::new(Full::default())).await;
    let url = format!("https://{}:{}{}", place.host, place.port, place.path);
    let answer = answer.map_err(|error| Failure::plain(format!("Get \"{url}\": {error}")))?;
    if answer.status() != StatusCode::OK {
        let code = answer.status().as_u16();
        let text = error_text(answer).await;
        return Err(match code {
            400..=499 => Failure::bad_request(text),
            _ => Failure::internal(&format!(
                "an error on the server ({text:?}) has prevented the request from succeeding"
            )),
        });
    }
    let mut log = Response::new(streamed(answer.into_body()));
    log.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(log)
}

/// Any request of `nodes/proxy`.
pub(super) async fn plain(
    way: &KubeletOptions,
    place: &Destination,
    parts: &Parts,
    body: &Bytes,
) -> Outcome<Response<Body>> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = parts.method.clone();
    *request.headers_mut() = passed_on(&parts.headers);
    request.headers_mut().remove(http::header::UPGRADE);
    request.headers_mut().remove(http::header::CONNECTION);
    let answer = ask(way, place, request).await.map_err(|error| Failure::unavailable(dialing(&error)))?;
    let (mut head, body) = answer.into_parts();
    head.headers.remove(TRANSFER_ENCODING);
    Ok(Response::from_parts(head, streamed(body)))
}

fn dialing(error: &str) -> String {
    format!("error dialing backend: {error}")
}

/// Hands the client's upgrade to the kubelet, and then every byte in both directions.
pub(super) async fn upgrade(
    way: &KubeletOptions,
    place: &Destination,
    parts: &Parts,
    client: OnUpgrade,
) -> Outcome<Response<Body>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = parts.method.clone();
    *request.headers_mut() = passed_on(&parts.headers);
    if parts.method == Method::POST {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut answer = ask(way, place, request).await.map_err(|error| Failure::plain(dialing(&error)))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = answer.status();
        let text = error_text(answer).await;
        return Err(match code.as_u16() {
            400..=499 => Failure::bad_request(format!("the kubelet refused the upgrade: {code}: {text}")),
            _ => Failure::internal(&format!("the kubelet refused the upgrade: {code}: {text}")),
        });
    }
    let kubelet = hyper::upgrade::on(&mut answer);
    let mut switched = Response::new(Body::default());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = answer.headers().clone();
    tokio::spawn(async move {
        // Either side may leave at any time: that ends the other, and there is nobody to tell.
        let Ok((client, kubelet)) = tokio::try_join!(client, kubelet) else { return };
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(kubelet)).await;
    });
    Ok(switched)
}
