//! Commands in running containers, spoken over the WebSocket protocol of Kubernetes.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::server::{find, query};
use super::{Kubelet, container_pid};
use crate::cluster::enter;

/// Subprotocols of exec, the newest first; v5 can close standard input.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

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
    let argv: Vec<String> =
        query(raw).into_iter().filter(|(key, _)| key == "command").map(|(_, value)| value).collect();
    let pid = match container_pid(&id, &container) {
        Ok(pid) if !argv.is_empty() => pid,
        Ok(_) => return (StatusCode::BAD_REQUEST, "no command").into_response(),
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error:#}")).into_response(),
    };
    let cgroup = id.cgroup().join(&container);
    let command = enter::command("/proc/self/exe".as_ref(), pid, Some(&cgroup), "ipc,uts,net,pid,mnt", &argv);
    upgrade.protocols(PROTOCOLS).on_upgrade(move |socket| async move {
        if let Err(error) = converse(socket, command).await {
            eprintln!("exec: {error:#}");
        }
    })
}

/// Channels of the protocol: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 255 (v5) closes another.
async fn converse(socket: WebSocket, command: std::process::Command) -> Result<()> {
    let mut child = Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (mut sender, mut receiver) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<Vec<u8>>(16);
    let copies = [
        tokio::spawn(copy(1, child.stdout.take().context("no pipe")?, out.clone())),
        tokio::spawn(copy(2, child.stderr.take().context("no pipe")?, out.clone())),
    ];
    drop(out);
    let mut stdin = child.stdin.take();
    let input = tokio::spawn(async move {
        while let Some(Ok(message)) = receiver.next().await {
            match message {
                Message::Binary(data) if data.first() == Some(&0) => {
                    if let Some(pipe) = &mut stdin
                        && pipe.write_all(&data[1..]).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Message::Binary(data) if data.first() == Some(&255) => stdin = None,
                Message::Close(_) => return,
                _ => {}
            }
        }
    });
    while let Some(data) = outgoing.recv().await {
        if sender.send(Message::Binary(data.into())).await.is_err() {
            return Ok(());
        }
    }
    for copy in copies {
        copy.await?;
    }
    let code = crate::sys::exit_code(child.wait().await?);
    let status = if code == 0 {
        json!({"metadata": {}, "status": "Success"})
    } else {
        json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
               "message": format!("command terminated with non-zero exit code: {code}"),
               "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
    };
    let mut frame = vec![3];
    frame.extend(serde_json::to_vec(&status)?);
    sender.send(Message::Binary(frame.into())).await.context("sending the status")?;
    // kubectl takes anything but a normal closure for a broken connection.
    let closure = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    sender.send(Message::Close(Some(closure))).await.context("closing")?;
    input.abort();
    Ok(())
}

async fn copy(channel: u8, mut from: impl tokio::io::AsyncRead + Unpin, to: mpsc::Sender<Vec<u8>>) {
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
