//! Exec and attach over WebSocket: channel 0 is standard input, 1 output, 2 errors, 3 the final Status, 4 the size of the
//! terminal, and 255 (v5) closes another.

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use nix::pty::Winsize;
use tokio::sync::{mpsc, watch};

use super::super::spdy::LINGER;
use super::{Bytes, QUEUE, Said, Session, size};

/// Subprotocols, the newest first; v5 can close standard input.
pub(super) const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// Begins to serve a client.
pub(super) fn session(socket: WebSocket) -> Session {
    let (sender, receiver) = socket.split();
    let (out, said) = mpsc::channel(QUEUE);
    let (typed, stdin) = mpsc::channel(QUEUE);
    let (resized, sizes) = watch::channel(None);
    let carrier = tokio::spawn(async move {
        let hearing = hear(receiver, typed, resized);
        tokio::pin!(hearing);
        tokio::select! {
            // The client has gone.
            () = &mut hearing => {}
            () = tell(sender, said) => drop(tokio::time::timeout(LINGER, hearing).await),
        }
    });
    Session { stdin, sizes, out, carrier }
}

/// Hands on what the client sends; ends when the client has gone.
async fn hear(
    mut receiver: SplitStream<WebSocket>,
    typed: mpsc::Sender<Bytes>,
    resized: watch::Sender<Option<Winsize>>,
) {
    let mut typed = Some(typed);
    while let Some(Ok(message)) = receiver.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Close(_) => return,
            _ => continue,
        };
        match data.first() {
            Some(0) => {
                if let Some(to) = &typed
                    && to.send(data.slice(1..)).await.is_err()
                {
                    typed = None;
                }
            }
            Some(4) => match size(&data[1..]) {
                Ok(size) => drop(resized.send_replace(Some(size))),
                Err(error) => eprintln!("a client's terminal: {error:#}"),
            },
            Some(255) if data.get(1) == Some(&0) => typed = None,
            _ => {}
        }
    }
}

/// Sends what is said to the client, up to the Status.
async fn tell(mut sender: SplitSink<WebSocket, Message>, mut said: mpsc::Receiver<Said>) {
    while let Some(piece) = said.recv().await {
        let (frame, last) = match piece {
            Said::Out(data) => (frame(1, &data), false),
            Said::Err(data) => (frame(2, &data), false),
            Said::Status(status) => (frame(3, status.to_string().as_bytes()), true),
        };
        if sender.send(frame).await.is_err() {
            return;
        }
        if last {
            break;
        }
    }
    // kubectl takes anything but a normal closure for a broken connection. One that has gone needs none.
    let closure = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    let _ = sender.send(Message::Close(Some(closure))).await;
}

fn frame(channel: u8, data: &[u8]) -> Message {
    Message::Binary([&[channel], data].concat().into())
}
