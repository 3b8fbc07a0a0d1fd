//! A health port: answers GET by path with 200 or 503, for the kubelet's probes and for other nodes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// A client has this long for its request and to take the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest request, in bytes.
const REQUEST_MAX: u64 = 8192;

/// What is known about a path: that all is well, or what is not. `None`: there is no such path.
pub type Answer = Option<Result<(), String>>;

/// Serves for ever. `ask` answers for a path.
///
/// # Errors
/// If the port accepts no more.
pub async fn serve(listener: TcpListener, ask: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Result<()> {
    let ask = Arc::new(ask);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = slots.clone().acquire_owned().await?;
        let (stream, _) = listener.accept().await.context("accepting on the health port")?;
        let ask = ask.clone();
        tokio::spawn(async move {
            let answered = tokio::time::timeout(TIMEOUT, exchange(stream, &*ask)).await;
            tracing::trace!(?answered, "health request");
            drop(slot);
        });
    }
}

async fn exchange(mut stream: TcpStream, ask: &(impl Fn(&str) -> Answer + Sync)) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader.take(REQUEST_MAX)).lines();
    let request = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    writer.write_all(response(&request, ask).as_bytes()).await
}

/// The whole response to a request line.
fn response(request: &str, ask: &impl Fn(&str) -> Answer) -> String {
    let mut words = request.split_whitespace();
    let path =
        (words.next() == Some("GET")).then(|| words.next()).flatten().and_then(|target| target.split('?').next());
    let (status, body) = match path.and_then(ask) {
        None => ("404 Not Found", "not found".to_owned()),
        Some(Ok(())) => ("200 OK", "ok".to_owned()),
        Some(Err(what)) => ("503 Service Unavailable", what),
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
