//! Port-forward: for each connection that a client wants into a pod a pair of SPDY streams, one for its bytes and one for
//! what went wrong. Newer clients put the SPDY connection itself into a WebSocket, others have channels of one.

mod channels;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Kubelet;
use super::server::{find, query};
use super::spdy::{Connection, LINGER, PROTOCOL, Stream};
use super::streams::{switch_to_spdy, wants};

/// Version of the protocol within SPDY.
const VERSION: &str = "portforward.k8s.io";
/// The WebSocket that carries SPDY.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Longest time until a program in the pod has taken a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a client may go on sending to a program that has ended its side (as container runtimes do it).
const AFTER_END: Duration = Duration::from_secs(1);
/// Streams of a client whose other half has not come yet.
const HALVES: usize = 64;
/// Bytes that wait in a tunnel, and most that are read from the pod at once.
const BUFFER: usize = 64 << 10;

/// Where connections lead.
#[derive(Clone)]
struct Target {
    /// Network namespace of the pod; without one it is the node's.
    netns: Option<PathBuf>,
    pod: String,
}

/// `GET` or `POST /portForward/NAMESPACE/POD`, upgraded.
pub(super) async fn serve(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod)): Path<(String, String)>,
    request: Request,
) -> Response {
    let id = match find(&kubelet, &namespace, &pod).await {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let spec = kubelet.newest(&id.uid).and_then(|pod| pod.spec);
    let host = spec.is_some_and(|spec| spec.host_network == Some(true));
    let target = Target { netns: (!host).then(|| id.netns()), pod: format!("{namespace}/{pod}") };
    if let Some(netns) = target.netns.as_ref().filter(|netns| !netns.exists()) {
        let text = format!("pod {} does not run: there is no {}", target.pod, netns.display());
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let (mut parts, _) = request.into_parts();
    if wants(&parts, PROTOCOL) {
        return switch_to_spdy(&mut parts, Some(VERSION), move |connection| forward(connection, target));
    }
    let asked = query(parts.uri.query().map(str::to_owned));
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => by_socket(upgrade, &asked, target),
        Err(refused) => refused.into_response(),
    }
}

/// Serves a client that speaks one of the protocols of WebSockets.
fn by_socket(upgrade: WebSocketUpgrade, asked: &[(String, String)], target: Target) -> Response {
    let upgrade = upgrade.protocols([TUNNEL, channels::PROTOCOL]);
    if upgrade.selected_protocol().is_none_or(|chosen| chosen.as_bytes() != channels::PROTOCOL.as_bytes()) {
        return upgrade.on_upgrade(move |socket| async move {
            // Without its subprotocol a client speaks something else.
            if socket.protocol().is_some() {
                tunnel(socket, target).await;
            }
        });
    }
    match channels::ports(asked) {
        Ok(ports) => upgrade.on_upgrade(move |socket| channels::serve(socket, ports, target)),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

/// Serves SPDY out of a WebSocket.
async fn tunnel(socket: WebSocket, target: Target) {
    let (near, far) = tokio::io::duplex(BUFFER);
    tokio::join!(forward(Connection::start(near), target), carry(socket, far));
}

/// Carries bytes in binary messages until both sides have ended.
async fn carry(socket: WebSocket, bytes: DuplexStream) {
    let (mut sender, mut receiver) = socket.split();
    let (mut read, mut write) = tokio::io::split(bytes);
    let inward = async {
        while let Some(Ok(message)) = receiver.next().await {
            let goes_on = match message {
                Message::Binary(data) => write.write_all(&data).await.is_ok(),
                Message::Close(_) => false,
                _ => true,
            };
            if !goes_on {
                break;
            }
        }
        // The other end is in this process, and sees it.
        let _ = write.shutdown().await;
    };
    let outward = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            if sender.send(Message::Binary(buffer[..length].to_vec().into())).await.is_err() {
                return;
            }
        }
        let closure = CloseFrame { code: close_code::NORMAL, reason: "".into() };
        let _ = sender.send(Message::Close(Some(closure))).await;
    };
    tokio::pin!(inward);
    tokio::select! {
        () = &mut inward => {}
        () = outward => drop(tokio::time::timeout(LINGER, inward).await),
    }
}

/// One connection's streams, as far as they have come.
#[derive(Default)]
struct Pair {
    data: Option<Stream>,
    error: Option<Stream>,
}

/// Serves a client until it goes; its connections go with it.
async fn forward(mut connection: Connection, target: Target) {
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut tasks = JoinSet::new();
    while let Some(stream) = connection.next().await {
        while tasks.try_join_next().is_some() {}
        let header = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
        // Clients of old number nothing, and have one connection at a time to a port.
        let (kind, port) = (header("streamtype"), header("port"));
        let request = format!("{port} {}", header("requestid"));
        let pair = pairs.entry(request.clone()).or_default();
        match kind.as_str() {
            "data" => pair.data = Some(stream),
            "error" => pair.error = Some(stream),
            other => {
                eprintln!("port-forward to {}: a stream of type {other:?}", target.pod);
                break;
            }
        }
        if let Pair { data: Some(_), error: Some(_) } = pair
            && let Some(Pair { data: Some(data), error: Some(error) }) = pairs.remove(&request)
        {
            tasks.spawn(one(data, error, port, target.clone()));
        }
        if pairs.len() > HALVES {
            eprintln!("port-forward to {}: {} streams without their other half", target.pod, pairs.len());
            break;
        }
    }
    // The connection is closed when nobody can write to it any more.
    drop(pairs);
    tasks.shutdown().await;
    connection.close().await;
}

/// One connection into the pod.
async fn one(mut data: Stream, error: Stream, port: String, target: Target) {
    match dial(&target, &port).await {
        Ok(pod) => exchange(&mut data, pod).await,
        Err(failure) => {
            let text = format!("error forwarding port {port} to pod {}: {failure:#}", target.pod);
            // Whoever has gone needs no reason.
            let _ = error.writer.send(text.as_bytes()).await;
            let _ = data.writer.finish().await;
        }
    }
    let _ = error.writer.finish().await;
}

async fn dial(target: &Target, port: &str) -> Result<TcpStream> {
    let port: u16 = port.parse().with_context(|| format!("port {port:?}"))?;
    if port == 0 {
        bail!("port 0 is none");
    }
    let netns = target.netns.clone();
    let connected = tokio::task::spawn_blocking(move || match netns {
        Some(netns) => crate::sys::in_netns(File::open(netns)?, || connect(port)),
        None => connect(port),
    });
    let stream = connected.await?.with_context(|| format!("failed to connect to localhost:{port} inside the pod"))?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream)?)
}

/// Of the two addresses of `localhost` that which answers; of two failures the first tells more.
fn connect(port: u16) -> io::Result<StdStream> {
    let addresses: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    StdStream::connect_timeout(&addresses[0], CONNECT)
        .or_else(|error| StdStream::connect_timeout(&addresses[1], CONNECT).map_err(|_| error))
}

/// Copies both ways; each end ends its own direction, and soon after the program's own, or when the client wants no more,
/// both end.
async fn exchange(data: &mut Stream, mut pod: TcpStream) {
    let Stream { data: incoming, reset, writer, .. } = data;
    let (mut read, mut write) = pod.split();
    let up = async {
        while let Some(piece) = incoming.recv().await {
            if write.write_all(&piece).await.is_err() {
                return;
            }
        }
        // A connection that is broken already needs no end.
        let _ = write.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            if writer.send(&buffer[..length]).await.is_err() {
                return;
            }
        }
        let _ = writer.finish().await;
    };
    let both = async {
        tokio::pin!(up, down);
        tokio::select! {
            // kubectl before 1.30 closes neither its side nor its own client before it hears that all has ended.
            () = &mut down => drop(tokio::time::timeout(AFTER_END, up).await),
            () = &mut up => down.await,
        }
    };
    tokio::select! {
        _ = reset => {}
        () = both => {}
    }
}

#[cfg(test)]
#[path = "port_forward_tests.rs"]
mod tests;
