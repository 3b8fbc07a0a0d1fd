//! Port-forward as `kube` and other clients without SPDY ask for it: two channels of a WebSocket for each port, one for
//! bytes and one for what went wrong. Each begins with the port's number. Nobody can end one direction only.

use anyhow::{Result, ensure};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{AFTER_END, BUFFER, Target, dial};

/// The subprotocol.
pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";
/// Channels are numbered by a byte, and a port takes two.
const PORTS_MOST: usize = 127;
/// Messages that wait for a slow reader.
const WAITING: usize = 16;

/// The ports that a query asks for. kube-apiserver joins them by commas (seen with v1.34.4).
///
/// # Errors
/// There are none, or too many, or one that is no port.
pub(super) fn ports(query: &[(String, String)]) -> Result<Vec<u16>> {
    let asked = query.iter().filter(|(name, _)| name == "port");
    let asked: Vec<&str> = asked.flat_map(|(_, ports)| ports.split(',')).collect();
    ensure!(!asked.is_empty(), "query parameter \"port\" is required");
    ensure!(asked.len() <= PORTS_MOST, "no more than {PORTS_MOST} ports at once");
    asked
        .into_iter()
        .map(|port| port.parse().map_err(|_| anyhow::anyhow!("unable to parse {port:?} as a port")))
        .collect()
}

/// Serves a client until it goes, or all its connections have ended.
pub(super) async fn serve(socket: WebSocket, ports: Vec<u16>, target: Target) {
    let (mut sender, receiver) = socket.split();
    let (out, mut queue) = mpsc::channel(WAITING);
    let messages = receiver.filter_map(|message| {
        futures::future::ready(match message {
            Ok(Message::Binary(data)) => Some(data.to_vec()),
            _ => None,
        })
    });
    let outward = async {
        while let Some(frame) = queue.recv().await {
            if sender.send(Message::Binary(Vec::into(frame))).await.is_err() {
                return;
            }
        }
        let closure = CloseFrame { code: close_code::NORMAL, reason: "".into() };
        // Whoever has gone needs no end.
        let _ = sender.send(Message::Close(Some(closure))).await;
    };
    tokio::join!(exchange(messages, out, ports, target), outward);
}

/// Carries messages between a client and the programs behind the ports.
async fn exchange(messages: impl Stream<Item = Vec<u8>>, out: mpsc::Sender<Vec<u8>>, ports: Vec<u16>, target: Target) {
    let (mut inputs, mut connections) = (Vec::new(), JoinSet::new());
    for (channel, port) in (0_u8..).step_by(2).zip(ports) {
        let (input, pieces) = mpsc::channel(WAITING);
        inputs.push(input);
        connections.spawn(one(channel, port, pieces, out.clone(), target.clone()));
    }
    let inward = async {
        tokio::pin!(messages);
        while let Some(message) = messages.next().await {
            // Clients have nothing to say on the channels of errors.
            if let Some((channel, piece)) = message.split_first().filter(|(channel, _)| *channel % 2 == 0)
                && let Some(input) = inputs.get(usize::from(channel / 2))
            {
                // A program that has ended takes no more, which is no fault of the others.
                let _ = input.send(piece.to_vec()).await;
            }
        }
    };
    tokio::select! {
        () = inward => connections.shutdown().await,
        () = async { while connections.join_next().await.is_some() {} } => {}
    }
}

/// One connection into the pod: bytes on `channel`, errors on the next.
async fn one(channel: u8, port: u16, mut pieces: mpsc::Receiver<Vec<u8>>, out: mpsc::Sender<Vec<u8>>, target: Target) {
    let frame = |channel: u8, content: &[u8]| [&[channel], content].concat();
    for channel in [channel, channel + 1] {
        if out.send(frame(channel, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    let mut pod = match dial(&target, &port.to_string()).await {
        Ok(pod) => pod,
        Err(failure) => {
            let text = format!("error forwarding port {port} to pod {}: {failure:#}", target.pod);
            // Whoever has gone needs no reason.
            let _ = out.send(frame(channel + 1, text.as_bytes())).await;
            return;
        }
    };
    let (mut read, mut write) = pod.split();
    let up = async {
        while let Some(piece) = pieces.recv().await {
            if write.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            if out.send(frame(channel, &buffer[..length])).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut down => drop(tokio::time::timeout(AFTER_END, up).await),
        () = &mut up => down.await,
    }
}

#[cfg(test)]
#[path = "channels_tests.rs"]
mod tests;
