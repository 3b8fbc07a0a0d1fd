//! Exec and attach over SPDY: a stream for each of standard input, output, errors, the final Status and the sizes of the
//! terminal, told apart by their header `streamType`.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::pty::Winsize;
use tokio::sync::{mpsc, watch};

use super::super::spdy::{Connection, Stream, Writer};
use super::{Bytes, QUEUE, Said, Session, Streams, size};

/// The version with a Status at the end. Older clients than those of Kubernetes 1.5 know none of it.
pub(super) const VERSION: &str = "v4.channel.k8s.io";
/// How long a client may take to open its streams (as the real kubelet).
const OPENING: Duration = Duration::from_secs(30);
/// Longest piece of text that can still become the size of a terminal.
const SIZE_MAX: usize = 4096;

/// Waits for the client's streams and begins to serve it.
///
/// # Errors
/// If it opens others, or not all in time.
pub(super) async fn session(mut connection: Connection, wanted: Streams) -> Result<Session> {
    let mut names = vec!["error"];
    for (name, asked) in
        [("stdin", wanted.stdin), ("stdout", wanted.stdout), ("stderr", wanted.stderr), ("resize", wanted.tty)]
    {
        names.extend(asked.then_some(name));
    }
    let opening = tokio::time::timeout(OPENING, open(&mut connection, &names)).await;
    let mut streams = opening.with_context(|| format!("the client did not open its streams ({names:?}) in time"))??;
    let (out, said) = mpsc::channel(QUEUE);
    let (resized, sizes) = watch::channel(None);
    let (none, mut stdin) = mpsc::channel(1);
    // Without a stream there is nothing to type, and its end comes at once.
    drop(none);
    if let Some(stream) = streams.get_mut("stdin") {
        std::mem::swap(&mut stdin, &mut stream.data);
    }
    if let Some(stream) = streams.remove("resize") {
        tokio::spawn(resize(stream.data, resized));
    }
    let mut writer = |name: &str| streams.remove(name).map(|stream| stream.writer);
    let to = Writers { out: writer("stdout"), err: writer("stderr"), status: writer("error") };
    let carrier = tokio::spawn(async move {
        tokio::select! {
            () = connection.gone() => return,
            () = tell(to, said) => {}
        }
        connection.close().await;
    });
    Ok(Session { stdin, sizes, out, carrier })
}

/// The client's streams by their names.
async fn open(connection: &mut Connection, names: &[&'static str]) -> Result<HashMap<&'static str, Stream>> {
    let mut streams = HashMap::new();
    while streams.len() < names.len() {
        let stream = connection.next().await.context("the client left before it had opened its streams")?;
        let kind = stream.headers.get("streamtype").map_or("", String::as_str);
        let Some(name) = names.iter().find(|name| **name == kind) else {
            bail!("the client opened a stream of type {kind:?}; asked for were {names:?}");
        };
        streams.insert(*name, stream);
    }
    Ok(streams)
}

/// Where things are said.
struct Writers {
    out: Option<Writer>,
    err: Option<Writer>,
    status: Option<Writer>,
}

/// Sends what is said to the client, up to the Status. What it did not ask for is not said.
async fn tell(to: Writers, mut said: mpsc::Receiver<Said>) {
    while let Some(piece) = said.recv().await {
        let sent = match (&piece, &to) {
            (Said::Out(data), Writers { out: Some(out), .. }) => out.send(data).await,
            (Said::Err(data), Writers { err: Some(err), .. }) => err.send(data).await,
            (Said::Status(status), Writers { status: Some(writer), .. }) => end(&to, writer, &status.to_string()).await,
            _ => Ok(()),
        };
        if sent.is_err() || matches!(piece, Said::Status(_)) {
            return;
        }
    }
}

/// The output ends before the Status does: a client that has read that reads no more.
async fn end(to: &Writers, writer: &Writer, status: &str) -> Result<()> {
    for output in [&to.out, &to.err].into_iter().flatten() {
        output.finish().await?;
    }
    writer.send(status.as_bytes()).await?;
    writer.finish().await
}

/// Sizes come as lines of JSON, in whatever pieces.
async fn resize(mut data: mpsc::Receiver<Bytes>, resized: watch::Sender<Option<Winsize>>) {
    let mut text = Vec::new();
    while let Some(piece) = data.recv().await {
        text.extend_from_slice(&piece);
        while let Some(end) = text.iter().position(|byte| *byte == b'}') {
            let one: Vec<u8> = text.drain(..=end).collect();
            match size(&one) {
                Ok(size) => drop(resized.send_replace(Some(size))),
                Err(error) => eprintln!("a client's terminal: {error:#}"),
            }
        }
        if text.len() > SIZE_MAX {
            return;
        }
    }
}
