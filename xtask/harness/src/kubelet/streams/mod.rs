//! The streams of exec and attach, whatever carries them: what the client types, sizes of its terminal, what it is to be
//! shown, and how it ended.

mod spdy;
mod websocket;

use anyhow::{Context, Result, bail};
use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use nix::pty::Winsize;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::spdy::{Connection, PROTOCOL};

/// Pieces that wait in each direction.
const QUEUE: usize = 16;
/// Most that is read of a program's output at once.
const PIECE: usize = 16 << 10;
/// Versions of a protocol that the client can speak, and the one that was chosen.
const VERSION: &str = "x-stream-protocol-version";
/// Those that could have been.
const ACCEPTED: &str = "x-accepted-stream-protocol-versions";

/// Which streams a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Streams {
    /// From the query. The API server says `input` and `1`, as of old; others say `stdin` and `true`. A terminal has no
    /// stream of errors.
    pub(super) fn parse(options: &[(String, String)]) -> Self {
        let is = |names: [&str; 2]| {
            let asked = |(key, value): &(String, String)| {
                names.contains(&key.as_str()) && matches!(value.as_str(), "1" | "true")
            };
            options.iter().any(asked)
        };
        let tty = is(["tty", "tty"]);
        let stderr = is(["error", "stderr"]) && !tty;
        Self { stdin: is(["input", "stdin"]), stdout: is(["output", "stdout"]), stderr, tty }
    }
}

/// What is sent to a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Out(Bytes),
    Err(Bytes),
    /// The end: a Status object.
    Status(Value),
}

/// A client that is connected.
pub(super) struct Session {
    /// What the client types; ends with its standard input.
    pub(super) stdin: mpsc::Receiver<Bytes>,
    /// The newest size of the client's terminal.
    pub(super) sizes: watch::Receiver<Option<Winsize>>,
    /// To the client. Closed when the client has gone.
    pub(super) out: mpsc::Sender<Said>,
    carrier: JoinHandle<()>,
}

impl Session {
    /// Tells the end, and waits until the client has it or has gone.
    pub(super) async fn finish(self, status: Value) {
        let Self { stdin, sizes, out, carrier } = self;
        // Nobody reads them any more: what comes is dropped.
        drop((stdin, sizes));
        if out.send(Said::Status(status)).await.is_ok() {
            drop(out);
            // It panics nowhere, and an end is an end.
            let _ = carrier.await;
        }
    }
}

/// Status of a command that has ended.
pub(super) fn exited(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
           "message": format!("command terminated with non-zero exit code: {code}"),
           "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
}

/// Status of what could not be done.
pub(super) fn failed(error: &anyhow::Error) -> Value {
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": format!("{error:#}")})
}

/// Copies a program's output until it ends or the client has gone.
pub(super) async fn copy(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Said>, kind: fn(Bytes) -> Said) {
    let mut buffer = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.send(kind(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
            return;
        }
    }
}

/// Upgrades a request and gives `work` the session, whichever protocol the client speaks.
pub(super) async fn upgrade<F>(
    parts: &mut Parts,
    streams: Streams,
    work: impl FnOnce(Session) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    if !wants(parts, PROTOCOL) {
        let upgrade = match WebSocketUpgrade::from_request_parts(parts, &()).await {
            Ok(upgrade) => upgrade,
            Err(refused) => return refused.into_response(),
        };
        return upgrade.protocols(websocket::PROTOCOLS).on_upgrade(move |socket| work(websocket::session(socket)));
    }
    switch_to_spdy(parts, Some(spdy::VERSION), move |connection| async move {
        match spdy::session(connection, streams).await {
            Ok(session) => work(session).await,
            Err(error) => eprintln!("a client of exec or attach: {error:#}"),
        }
    })
}

/// Whether the client asks for a protocol.
pub(super) fn wants(parts: &Parts, protocol: &str) -> bool {
    let asked = parts.headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    asked.is_some_and(|asked| asked.eq_ignore_ascii_case(protocol))
}

/// Answers a request for SPDY, and gives `work` the connection. The client must speak `version`, if there is one.
pub(super) fn switch_to_spdy<F>(
    parts: &mut Parts,
    version: Option<&'static str>,
    work: impl FnOnce(Connection) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let offered: Vec<&str> = parts.headers.get_all(VERSION).iter().filter_map(|value| value.to_str().ok()).collect();
    let mut offered = offered.iter().flat_map(|list| list.split(',')).map(str::trim);
    if let Some(version) = version
        && !offered.any(|offered| offered == version)
    {
        let text = format!("the client speaks none of the protocols {version}");
        return (StatusCode::FORBIDDEN, [(ACCEPTED, version)], text).into_response();
    }
    let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
        return (StatusCode::BAD_REQUEST, "this connection cannot be upgraded").into_response();
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => work(Connection::start(TokioIo::new(upgraded))).await,
            Err(error) => eprintln!("an upgrade to {PROTOCOL}: {error}"),
        }
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    if let Some(version) = version {
        headers.insert(VERSION, HeaderValue::from_static(version));
    }
    answer
}

/// A size, as clients send it.
#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

fn size(data: &[u8]) -> Result<Winsize> {
    let Size { width, height } = serde_json::from_slice(data).context("the size of a terminal")?;
    if width == 0 || height == 0 {
        bail!("a terminal of {width} by {height}");
    }
    Ok(Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 })
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
