//! Commands in running containers.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use nix::pty::Winsize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::container::Task;
use super::inside::ExecSpec;
use super::server::{find, query};
use super::streams::{self, Said, Session, Streams};
use super::terminal::Terminal;
use super::{Kubelet, PodId, container_pid, launch};

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
    streams: Streams,
}

/// `GET` or `POST /exec/NAMESPACE/POD/CONTAINER`, upgraded.
pub(super) async fn serve(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let id = match find(&kubelet, &namespace, &pod).await {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let options = query(request.uri().query().map(str::to_owned));
    let streams = Streams::parse(&options);
    let argv: Vec<String> =
        options.iter().filter(|(key, _)| key == "command").map(|(_, value)| value.clone()).collect();
    if argv.is_empty() {
        return (StatusCode::BAD_REQUEST, "no command").into_response();
    }
    if let Err(error) = container_pid(&id, &container) {
        return (StatusCode::BAD_REQUEST, format!("{error:#}")).into_response();
    }
    let wanted = Wanted { id, container, argv, streams };
    let (mut parts, _) = request.into_parts();
    streams::upgrade(&mut parts, streams, move |session| async move { converse(session, wanted).await }).await
}

/// Starts the command, copies its streams until all have ended, and tells how it ended.
async fn converse(mut session: Session, wanted: Wanted) {
    let gone = session.out.clone();
    let done = tokio::select! {
        // Nobody listens any more; the command goes with this future.
        () = gone.closed() => return,
        done = run(&mut session, &wanted) => done,
    };
    drop(gone);
    let status = match done {
        Ok(code) => streams::exited(code),
        Err(error) => streams::failed(&error),
    };
    session.finish(status).await;
}

/// Runs the command to its end and returns its exit code.
async fn run(session: &mut Session, wanted: &Wanted) -> Result<i32> {
    // Ends all copying with this function.
    let mut tasks = JoinSet::new();
    let stdin = std::mem::replace(&mut session.stdin, mpsc::channel(1).1);
    let mut child = if wanted.streams.tty {
        let terminal = terminal(wanted, &mut session.sizes).await?;
        let child = on_terminal(wanted, &terminal)?;
        let ours = terminal.ours()?;
        tasks.spawn(follow_size(session.sizes.clone(), ours.size));
        if wanted.streams.stdin {
            tasks.spawn(feed(stdin, ours.write));
        }
        streams::copy(ours.read, session.out.clone(), Said::Out).await;
        child
    } else {
        let mut child = on_pipes(wanted)?;
        if let Some(pipe) = child.stdin.take() {
            tasks.spawn(feed(stdin, pipe));
        }
        let (stdout, stderr) = (child.stdout.take().context("no pipe")?, child.stderr.take().context("no pipe")?);
        tokio::join!(
            streams::copy(stdout, session.out.clone(), Said::Out),
            streams::copy(stderr, session.out.clone(), Said::Err),
        );
        child
    };
    Ok(crate::sys::exit_code(child.wait().await?))
}

fn on_pipes(wanted: &Wanted) -> Result<Child> {
    let mut command = command(&wanted.id, &wanted.container, &wanted.argv, None)?;
    let stdin = if wanted.streams.stdin { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().context("starting the command")
}

/// A terminal of the client's size: clients with a terminal tell its size before anything else; one without has none to tell.
async fn terminal(wanted: &Wanted, sizes: &mut watch::Receiver<Option<Winsize>>) -> Result<Terminal> {
    let pid = container_pid(&wanted.id, &wanted.container)?;
    let size = match tokio::time::timeout(SIZE_WAIT, sizes.wait_for(Option::is_some)).await {
        Ok(Ok(size)) => *size,
        _ => None,
    };
    Terminal::open(pid, size).await.context("opening a terminal in the container")
}

fn on_terminal(wanted: &Wanted, terminal: &Terminal) -> Result<Child> {
    let mut command = command(&wanted.id, &wanted.container, &wanted.argv, Some(terminal))?;
    let side = || terminal.side().map(Stdio::from);
    command.stdin(side()?).stdout(side()?).stderr(side()?).kill_on_drop(true);
    command.spawn().context("starting the command")
}

/// Lets a terminal have the size of the client's.
pub(super) async fn follow_size(mut sizes: watch::Receiver<Option<Winsize>>, terminal: std::os::fd::OwnedFd) {
    while sizes.changed().await.is_ok() {
        let newest = *sizes.borrow_and_update();
        if let Some(size) = newest
            && let Err(error) = crate::sys::set_terminal_size(&terminal, &size)
        {
            eprintln!("the size of a terminal: {error}");
        }
    }
}

/// Hands on what the client types; its end ends the command's standard input, and a command that reads no more is no error.
async fn feed(mut typed: mpsc::Receiver<Bytes>, mut to: impl AsyncWrite + Unpin) {
    while let Some(piece) = typed.recv().await {
        if to.write_all(&piece).await.and(to.flush().await).is_err() {
            return;
        }
    }
}
