//! Answering the CNI plugin and `portolan status` on a Unix socket: one JSON line each way per connection.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Shared, status};
use crate::cni::client::{Answer, LINE_MAX, Request};
use crate::node::endpoint::{Attachment, Device};

/// Requests at a time; more wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 64;
/// A client that does not send its line within this time is dropped.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the socket; a stale one of a former agent is replaced.
pub(super) fn listen(path: &Path) -> Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("restricting {}", path.display()))?;
    Ok(listener)
}

/// Serves until the listener fails.
pub(super) async fn run(shared: Arc<Shared>, listener: UnixListener) -> Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = slots.clone().acquire_owned().await?;
        let (stream, _) = listener.accept().await.context("accepting on the CNI socket")?;
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Ok(Err(error)) = tokio::time::timeout(TIMEOUT, serve(&shared, stream)).await {
                tracing::warn!(error = format!("{error:#}"), "CNI connection");
            }
            drop(slot);
        });
    }
}

async fn serve(shared: &Shared, mut stream: UnixStream) -> Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    BufReader::new(reader.take(LINE_MAX)).read_line(&mut line).await.context("reading the request")?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => match handle(shared, request.clone()).await {
            Ok(value) => Answer::Ok(value),
            Err(error) => {
                tracing::warn!(?request, error = format!("{error:#}"), "refused");
                Answer::Error(format!("{error:#}"))
            }
        },
        Err(error) => Answer::Error(format!("the request cannot be understood: {error}")),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    writer.write_all(&line).await.context("writing the answer")
}

async fn handle(shared: &Shared, request: Request) -> Result<Value> {
    match request {
        Request::Ping => Ok(Value::Null),
        Request::Status => Ok(serde_json::to_value(status::measure(shared).await?)?),
        Request::Allocate { container_id, ifname, namespace, pod } => {
            let attachment = Attachment { container_id, ifname };
            let allocated = shared.endpoints.lock().await.allocate(attachment, namespace, pod)?;
            Ok(serde_json::to_value(allocated)?)
        }
        Request::Attach { container_id, ifname, ifindex, pod_mac, host_mac } => {
            let attachment = Attachment { container_id, ifname };
            let device = Device { ifindex, pod_mac, host_mac };
            let mut endpoints = shared.endpoints.lock().await;
            endpoints.attach(&mut *shared.datapath.lock().await, &attachment, device)?;
            Ok(Value::Null)
        }
        Request::Retain { valid } => {
            let mut endpoints = shared.endpoints.lock().await;
            endpoints.retain(&mut *shared.datapath.lock().await, &valid)?;
            Ok(Value::Null)
        }
        Request::Release { container_id, ifname } => {
            let attachment = Attachment { container_id, ifname };
            let mut endpoints = shared.endpoints.lock().await;
            endpoints.release(&mut *shared.datapath.lock().await, &attachment)?;
            Ok(json!(null))
        }
    }
}
