//! Commands in running containers, spoken over the WebSocket protocol of Kubernetes: channels 0 standard input, 1 output,
//! 2 errors, 3 the final Status, 4 the size of the terminal, 255 (v5) closes another.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::stream::SplitStream;
use futures::{SinkExt, StreamExt};
use nix::pty::Winsize;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::container::Task;
use super::inside::ExecSpec;
use super::server::{find, query};
use super::terminal::Terminal;
use super::{Kubelet, PodId, container_pid, launch};

/// Subprotocols of exec, the newest first; v5 can close standard input.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// How long the first size of a terminal is waited for.
const SIZE_WAIT: Duration = Duration::from_secs(1);

/// A command in a container that runs, as its user and with its environment; with a terminal, standard input is to be one.
///
/// # Errors
/// If the container does not run.
pub(super) fn command(id: &PodId, container: &str, argv: &[String], terminal: Option<&Terminal>) -> Result<Command> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let pid = container_pid(id, container)?;
    let current = launch::current(id, container);
    let text = std::fs::read(&current).with_context(|| format!("reading {}", current.display()))?;
    let Task::Run(spec) = serde_json::from_slice(&text)? else { bail!("{} is no container", current.display()) };
    let mut env = spec.env;
    if terminal.is_some() {
        env.entry("TERM".into()).or_insert_with(|| "xterm".into());
    }
    let task = Task::Exec(ExecSpec {
        pid,
        cgroup: id.cgroup().join(container),
        argv: argv.to_vec(),
        env,
        cwd: spec.cwd,
        privileges: spec.privileges,
        terminal: terminal.is_some(),
    });
    // Removed by the process that reads it.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path: PathBuf = id.dir().join("containers").join(container).join(format!("exec-{number}.json"));
    std::fs::write(&path, serde_json::to_vec(&task)?).with_context(|| format!("writing {}", path.display()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("container-init").arg(path);
    Ok(command)
}

/// What is asked for.
struct Wanted {
    id: PodId,
    container: String,
    argv: Vec<String>,
    stdin: bool,
    terminal: bool,
}

/// `GET /exec/NAMESPACE/POD/CONTAINER`, upgraded to a WebSocket.
pub(super) async fn serve(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let id = match find(&kubelet, &namespace, &pod).await {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let options = query(raw);
    // The API server says `input` and `1`, as of old; others say `stdin` and `true`.
    let is = |names: [&str; 2]| {
        options.iter().any(|(key, value)| names.contains(&key.as_str()) && matches!(value.as_str(), "1" | "true"))
    };
    let (stdin, terminal) = (is(["input", "stdin"]), is(["tty", "tty"]));
    let argv: Vec<String> =
        options.iter().filter(|(key, _)| key == "command").map(|(_, value)| value.clone()).collect();
    if argv.is_empty() {
        return (StatusCode::BAD_REQUEST, "no command").into_response();
    }
    if let Err(error) = container_pid(&id, &container) {
        return (StatusCode::BAD_REQUEST, format!("{error:#}")).into_response();
    }
    let wanted = Wanted { id, container, argv, stdin, terminal };
    upgrade.protocols(PROTOCOLS).on_upgrade(move |socket| async move {
        if let Err(error) = converse(socket, wanted).await {
            eprintln!("exec: {error:#}");
        }
    })
}

/// Starts the command, copies its streams until all have ended, and tells how it ended.
async fn converse(socket: WebSocket, wanted: Wanted) -> Result<()> {
    let (mut sender, mut receiver) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<Vec<u8>>(16);
    let begun = if wanted.terminal {
        let size = first_size(&mut receiver).await;
        on_terminal(&wanted, size, out).await
    } else {
        on_pipes(&wanted, out)
    };
    let (mut child, stdin) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let status = json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                                "message": format!("{error:#}")});
            sender.send(frame(3, &serde_json::to_vec(&status)?)).await.context("sending the status")?;
            return close(&mut sender).await;
        }
    };
    let mut input = tokio::spawn(feed(receiver, stdin));
    loop {
        tokio::select! {
            data = outgoing.recv() => match data {
                Some(data) => sender.send(Message::Binary(data.into())).await.context("the client has gone")?,
                None => break,
            },
            // Nobody listens any more; the command goes with this function.
            _ = &mut input => return Ok(()),
        }
    }
    let code = crate::sys::exit_code(child.wait().await?);
    let status = if code == 0 {
        json!({"metadata": {}, "status": "Success"})
    } else {
        json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
               "message": format!("command terminated with non-zero exit code: {code}"),
               "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
    };
    sender.send(frame(3, &serde_json::to_vec(&status)?)).await.context("sending the status")?;
    let closed = close(&mut sender).await;
    input.abort();
    closed
}

/// kubectl takes anything but a normal closure for a broken connection.
async fn close(sender: &mut (impl futures::Sink<Message, Error = axum::Error> + Unpin)) -> Result<()> {
    let closure = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    sender.send(Message::Close(Some(closure))).await.context("closing")
}

fn frame(channel: u8, data: &[u8]) -> Message {
    let mut frame = vec![channel];
    frame.extend_from_slice(data);
    Message::Binary(frame.into())
}

type Input = Option<Box<dyn AsyncWrite + Unpin + Send>>;

fn on_pipes(wanted: &Wanted, out: mpsc::Sender<Vec<u8>>) -> Result<(Child, Input)> {
    let mut command = command(&wanted.id, &wanted.container, &wanted.argv, None)?;
    let stdin = if wanted.stdin { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    tokio::spawn(copy(1, child.stdout.take().context("no pipe")?, out.clone()));
    tokio::spawn(copy(2, child.stderr.take().context("no pipe")?, out));
    let stdin = child.stdin.take().map(|pipe| Box::new(pipe) as Box<dyn AsyncWrite + Unpin + Send>);
    Ok((child, stdin))
}

async fn on_terminal(wanted: &Wanted, size: Option<Winsize>, out: mpsc::Sender<Vec<u8>>) -> Result<(Child, Input)> {
    let pid = container_pid(&wanted.id, &wanted.container)?;
    let terminal = Terminal::open(pid, size).await.context("opening a terminal in the container")?;
    let mut command = command(&wanted.id, &wanted.container, &wanted.argv, Some(&terminal))?;
    let side = || terminal.side().map(Stdio::from);
    let child = command.stdin(side()?).stdout(side()?).stderr(side()?).kill_on_drop(true).spawn()?;
    drop(command);
    let (read, write) = terminal.streams()?;
    tokio::spawn(copy(1, read, out));
    let write: Input = if wanted.stdin { Some(Box::new(write)) } else { None };
    Ok((child, write))
}

/// A size, as clients send it.
#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

fn size(data: &[u8]) -> Option<Winsize> {
    let size: Size = serde_json::from_slice(data).ok()?;
    Some(Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 })
}

/// Clients with a terminal tell its size before anything else; one without has none to tell.
async fn first_size(receiver: &mut SplitStream<WebSocket>) -> Option<Winsize> {
    let first = tokio::time::timeout(SIZE_WAIT, async {
        while let Some(Ok(message)) = receiver.next().await {
            if let Message::Binary(data) = message
                && data.first() == Some(&4)
            {
                return size(&data[1..]);
            }
        }
        None
    });
    first.await.ok().flatten()
}

/// Hands on what the client sends; ends when the client has gone.
async fn feed(mut receiver: SplitStream<WebSocket>, mut stdin: Input) {
    while let Some(Ok(message)) = receiver.next().await {
        match message {
            Message::Binary(data) if data.first() == Some(&0) => {
                if let Some(pipe) = &mut stdin {
                    let written = pipe.write_all(&data[1..]).await.and(pipe.flush().await);
                    if written.is_err() {
                        stdin = None;
                    }
                }
            }
            Message::Binary(data) if data.first() == Some(&255) && data.get(1) == Some(&0) => stdin = None,
            Message::Close(_) => return,
            _ => {}
        }
    }
}

async fn copy(channel: u8, mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        let mut frame = vec![channel];
        frame.extend_from_slice(&buffer[..length]);
        if to.send(frame).await.is_err() {
            return;
        }
    }
}
