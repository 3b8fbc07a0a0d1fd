//! Attaching to the program of a container that runs: its output from now on, and its standard input or terminal if it
//! has one.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll, ready};

use anyhow::{Context, Result, bail};
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

use super::server::{find, query};
use super::streams::{self, Said, Session, Streams};
use super::{Kubelet, PodId, exec};

/// Pieces of output that an attached client may lie behind. One that is slower is told so instead of being shown a part.
const BEHIND: usize = 4096;

/// Where the output of a program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Out,
    Err,
}

/// What a program reads from.
pub(super) struct Input {
    /// None once it has been closed.
    pub(super) write: tokio::sync::Mutex<Option<Box<dyn AsyncWrite + Send + Unpin>>>,
    /// It is closed when the first client that was attached to it closes its own.
    pub(super) once: bool,
    /// The terminal, if it is one.
    pub(super) terminal: Option<OwnedFd>,
}

impl Input {
    /// A client types no more. A terminal has no end: whoever types there says it by Ctrl-D.
    async fn left(&self) {
        if self.once && self.terminal.is_none() {
            *self.write.lock().await = None;
        }
    }
}

/// The streams of a running program; they live as long as its output is copied.
pub(super) struct Stdio {
    output: broadcast::Sender<(Source, Bytes)>,
    input: Option<Arc<Input>>,
}

/// The programs that run, by the pod's uid and the container.
#[derive(Default)]
pub(crate) struct Running(Mutex<HashMap<(String, String), Weak<Stdio>>>);

impl Running {
    /// A program has been started.
    pub(super) fn add(&self, id: &PodId, container: &str, input: Option<Input>) -> Arc<Stdio> {
        let stdio = Arc::new(Stdio { output: broadcast::channel(BEHIND).0, input: input.map(Arc::new) });
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, stdio| stdio.strong_count() > 0);
        running.insert((id.uid.clone(), container.to_owned()), Arc::downgrade(&stdio));
        stdio
    }

    fn find(&self, id: &PodId, container: &str) -> Option<Arc<Stdio>> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(&(id.uid.clone(), container.to_owned()))?.upgrade()
    }
}

/// A program's output, which attached clients see as it is read.
pub(super) struct Shown<R> {
    from: R,
    source: Source,
    stdio: Arc<Stdio>,
}

impl<R> Shown<R> {
    pub(super) fn new(from: R, source: Source, stdio: Arc<Stdio>) -> Self {
        Self { from, source, stdio }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Shown<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.from).poll_read(task, buffer))?;
        let fresh = &buffer.filled()[before..];
        if !fresh.is_empty() && self.stdio.output.receiver_count() > 0 {
            // The last client may have gone in the meantime.
            let _ = self.stdio.output.send((self.source, Bytes::copy_from_slice(fresh)));
        }
        Poll::Ready(Ok(()))
    }
}

/// `GET` or `POST /attach/NAMESPACE/POD/CONTAINER`, upgraded.
pub(super) async fn serve(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let id = match find(&kubelet, &namespace, &pod).await {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let Some(stdio) = kubelet.running.find(&id, &container) else {
        let text = format!("container {container} of {namespace}/{pod} does not run");
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    let wanted = Streams::parse(&query(request.uri().query().map(str::to_owned)));
    // From here on nothing of the output is missed; the program's end is seen by the end of this.
    let output = stdio.output.subscribe();
    let input = stdio.input.clone().filter(|_| wanted.stdin || wanted.tty);
    drop(stdio);
    let (mut parts, _) = request.into_parts();
    streams::upgrade(&mut parts, wanted, move |session| converse(session, wanted, output, input)).await
}

async fn converse(
    mut session: Session,
    wanted: Streams,
    output: broadcast::Receiver<(Source, Bytes)>,
    input: Option<Arc<Input>>,
) {
    let mut tasks = JoinSet::new();
    if let Some(input) = &input {
        let terminal = input.terminal.as_ref().map(OwnedFd::try_clone);
        if let Some(Ok(terminal)) = terminal {
            let mut sizes = session.sizes.clone();
            sizes.mark_changed();
            tasks.spawn(exec::follow_size(sizes, terminal));
        }
        if wanted.stdin {
            let typed = std::mem::replace(&mut session.stdin, mpsc::channel(1).1);
            tasks.spawn(feed(typed, input.clone()));
        }
    }
    let shown = show(&session, wanted, output).await;
    tasks.shutdown().await;
    if let Some(input) = input.filter(|_| wanted.stdin) {
        input.left().await;
    }
    match shown {
        Ok(true) => session.finish(streams::exited(0)).await,
        Ok(false) => {}
        Err(error) => session.finish(streams::failed(&error)).await,
    }
}

/// Shows the output until the program has ended, or, with `false`, the client has gone.
async fn show(session: &Session, wanted: Streams, mut output: broadcast::Receiver<(Source, Bytes)>) -> Result<bool> {
    loop {
        let piece = tokio::select! {
            piece = output.recv() => piece,
            () = session.out.closed() => return Ok(false),
        };
        let said = match piece {
            Ok((Source::Out, data)) if wanted.stdout => Said::Out(data),
            Ok((Source::Err, data)) if wanted.stderr => Said::Err(data),
            Ok(_) => continue,
            Err(RecvError::Closed) => return Ok(true),
            Err(RecvError::Lagged(lost)) => {
                bail!("the client was too slow: {lost} pieces of output are lost; the container's log has them");
            }
        };
        if session.out.send(said).await.is_err() {
            return Ok(false);
        }
    }
}

/// Hands on what the client types.
async fn feed(mut typed: mpsc::Receiver<Bytes>, input: Arc<Input>) {
    while let Some(piece) = typed.recv().await {
        let mut write = input.write.lock().await;
        let Some(to) = write.as_mut() else { return };
        if to.write_all(&piece).await.and(to.flush().await).is_err() {
            *write = None;
        }
    }
    input.left().await;
}

/// What a started container has sent of its standard input: the other end of a pipe, or of its terminal.
///
/// # Errors
/// If there are no descriptors left.
pub(super) fn input(sent: OwnedFd, tty: bool, once: bool) -> Result<(Input, Option<tokio::fs::File>)> {
    if tty {
        let ours = super::terminal::Ours::of(sent)?;
        let write = tokio::sync::Mutex::new(Some(Box::new(ours.write) as Box<dyn AsyncWrite + Send + Unpin>));
        return Ok((Input { write, once, terminal: Some(ours.size) }, Some(ours.read)));
    }
    let pipe = tokio::net::unix::pipe::Sender::from_owned_fd(sent).context("the container's standard input")?;
    let write = tokio::sync::Mutex::new(Some(Box::new(pipe) as Box<dyn AsyncWrite + Send + Unpin>));
    Ok((Input { write, once, terminal: None }, None))
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
