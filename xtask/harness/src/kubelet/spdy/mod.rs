//! SPDY/3.1 as Kubernetes uses it for exec, attach and port-forward: many streams of bytes on one upgraded connection,
//! each opened by the client with a few headers. kube-apiserver speaks it to kubelets even where kubectl speaks WebSocket
//! to it, and so does a kubectl before 1.30 itself. No flow control: as in the Go implementation on the other side, a
//! stream that nobody reads holds up the connection.

mod frame;
mod header;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Result, bail};
use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

use frame::Frame;

/// Name of the protocol in `Upgrade`.
pub(super) const PROTOCOL: &str = "SPDY/3.1";
/// Frames that wait on either side of a stream.
const QUEUE: usize = 16;
/// Streams that wait to be taken.
const STREAMS: usize = 64;
/// How long a client may take to close after we have: what it still sends is read meanwhile, since a socket that is closed
/// with unread bytes is reset, and the end of what we sent is lost with it.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// What the client has opened.
pub(super) struct Stream {
    /// Its headers, names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    /// What the client sends; ends when the client ends its side, or has gone.
    pub(super) data: mpsc::Receiver<Bytes>,
    /// Comes when the client wants no more of the stream; an error when the connection has ended.
    pub(super) reset: oneshot::Receiver<()>,
    /// Our side.
    pub(super) writer: Writer,
}

/// Our side of a stream.
#[derive(Clone)]
pub(super) struct Writer {
    id: u32,
    frames: mpsc::Sender<Vec<u8>>,
}

impl Writer {
    /// Sends bytes.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(super) async fn send(&self, data: &[u8]) -> Result<()> {
        self.put(frame::data(self.id, false, data)).await
    }

    /// Ends our side of the stream.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(super) async fn finish(&self) -> Result<()> {
        self.put(frame::data(self.id, true, &[])).await
    }

    async fn put(&self, frame: Vec<u8>) -> Result<()> {
        if self.frames.send(frame).await.is_err() {
            bail!("the client has gone");
        }
        Ok(())
    }
}

/// A connection, as the server has it. It ends when this and all writers have gone, or the client has.
pub(super) struct Connection {
    streams: mpsc::Receiver<Stream>,
    frames: mpsc::Sender<Vec<u8>>,
    task: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// Begins to serve an upgraded connection.
    pub(super) fn start(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (frames, outgoing) = mpsc::channel(QUEUE);
        let (opened, streams) = mpsc::channel(STREAMS);
        let reader = Reader { frames: frames.downgrade(), opened, streams: HashMap::new(), answered: false };
        let task = tokio::spawn(run(io, reader, outgoing));
        Self { streams, frames, task }
    }

    /// The next stream that the client opens; none if the client has gone.
    pub(super) async fn next(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Resolves when the client has gone.
    pub(super) async fn gone(&self) {
        self.frames.closed().await;
    }

    /// Sends what there still is, says goodbye, and waits for the client to go.
    pub(super) async fn close(self) {
        drop((self.frames, self.streams));
        // It panics nowhere, and an end is an end.
        let _ = self.task.await;
    }
}

async fn run(io: impl AsyncRead + AsyncWrite, reader: Reader, outgoing: mpsc::Receiver<Vec<u8>>) {
    let (read, write) = tokio::io::split(io);
    let (read, write) = (reader.run(BufReader::new(read)), write_all(write, outgoing));
    tokio::pin!(read, write);
    tokio::select! {
        done = &mut read => if let Err(error) = done {
            eprintln!("SPDY: {error:#}");
        },
        () = &mut write => drop(tokio::time::timeout(LINGER, read).await),
    }
}

/// Writes frames as they come, flushed when none waits; after the last one, goodbye.
async fn write_all(mut to: WriteHalf<impl AsyncWrite>, mut frames: mpsc::Receiver<Vec<u8>>) {
    let mut last = false;
    while !last {
        let frame = frames.recv().await.unwrap_or_else(|| {
            last = true;
            frame::go_away()
        });
        let mut done = to.write_all(&frame).await;
        if frames.is_empty() {
            done = done.and(to.flush().await);
        }
        if done.is_err() {
            // The client has gone, which the reader sees too.
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// The client's side of a stream that is open.
struct Open {
    data: Option<mpsc::Sender<Bytes>>,
    reset: oneshot::Sender<()>,
}

/// Hands on what the client sends.
struct Reader {
    /// Weak: the connection ends when nobody else wants to write.
    frames: mpsc::WeakSender<Vec<u8>>,
    opened: mpsc::Sender<Stream>,
    streams: HashMap<u32, Open>,
    /// Whether a stream has been answered.
    answered: bool,
}

impl Reader {
    async fn run(mut self, mut from: BufReader<ReadHalf<impl AsyncRead>>) -> Result<()> {
        let mut headers = header::Decoder::new();
        loop {
            match frame::read(&mut from).await? {
                None => return Ok(()),
                Some(Frame::Open { id, last, block }) => {
                    // All are decoded, for they share one history.
                    let headers = headers.decode(&block)?;
                    self.open(id, last, headers).await?;
                }
                Some(Frame::Headers { block }) => drop(headers.decode(&block)?),
                Some(Frame::Data { id, last, data }) => self.data(id, last, data).await,
                Some(Frame::Reset { id }) => {
                    if let Some(open) = self.streams.remove(&id) {
                        // Whoever no longer listens needs not to be told.
                        let _ = open.reset.send(());
                    }
                }
                Some(Frame::Ping { id }) => self.answer(frame::ping(id)).await,
                Some(Frame::Other) => {}
            }
        }
    }

    async fn open(&mut self, id: u32, last: bool, headers: BTreeMap<String, String>) -> Result<()> {
        self.streams.retain(|_, open| !open.reset.is_closed());
        let Some(frames) = self.frames.upgrade() else { return Ok(()) };
        if self.streams.contains_key(&id) {
            bail!("stream {id} was opened twice");
        }
        let (data, receiver) = mpsc::channel(QUEUE);
        let (reset, was_reset) = oneshot::channel();
        self.streams.insert(id, Open { data: (!last).then_some(data), reset });
        let accepted = frames.send(frame::reply(id, !self.answered)).await;
        self.answered = true;
        let stream = Stream { headers, data: receiver, reset: was_reset, writer: Writer { id, frames } };
        if accepted.is_err() || self.opened.send(stream).await.is_err() {
            self.streams.remove(&id);
        }
        Ok(())
    }

    /// Bytes of a stream that nobody reads (any more) are dropped.
    async fn data(&mut self, id: u32, last: bool, data: Bytes) {
        let Some(open) = self.streams.get_mut(&id) else { return };
        if let Some(sender) = &open.data
            && !data.is_empty()
        {
            let _ = sender.send(data).await;
        }
        if last {
            open.data = None;
        }
    }

    async fn answer(&self, frame: Vec<u8>) {
        if let Some(frames) = self.frames.upgrade() {
            let _ = frames.send(frame).await;
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
pub(super) mod client;
#[cfg(test)]
#[path = "spdy_tests.rs"]
mod tests;
