//! A client that watches Services and EndpointSlices, and notes how long each event took from the moment at which its
//! request was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::process::client::Client;

/// What is watched: resource, and how the names of its objects begin.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) path: &'static str,
    pub(crate) prefix: &'static str,
}

pub(crate) const SERVICES: Kind = Kind { path: "/api/v1/namespaces/load/services", prefix: "bench-s-" };
pub(crate) const SLICES: Kind =
    Kind { path: "/apis/discovery.k8s.io/v1/namespaces/load/endpointslices", prefix: "bench-e-" };

/// When the request for each object was sent last, in microseconds since the run began, and how often.
pub(crate) struct Sent {
    began: Instant,
    at: Vec<AtomicU64>,
    times: Vec<AtomicU32>,
}

impl Sent {
    pub(crate) fn new(objects: usize) -> Self {
        let at = (0..objects).map(|_| AtomicU64::new(0)).collect();
        Self { began: Instant::now(), at, times: (0..objects).map(|_| AtomicU32::new(0)).collect() }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    pub(crate) fn send(&self, object: usize) {
        self.at[object].store(self.now(), Ordering::SeqCst);
        self.times[object].fetch_add(1, Ordering::SeqCst);
    }
}

/// Events that one stream has to bring, and how late they came.
pub(crate) struct Stream {
    pub(crate) client: Client,
    pub(crate) kind: Kind,
    pub(crate) sent: Arc<Sent>,
    /// Where each lag goes, in microseconds.
    pub(crate) lags: mpsc::UnboundedSender<u64>,
}

impl Stream {
    /// Opens the watch from a revision; what is returned reads it until the lags are not wanted any more.
    pub(crate) async fn open(self, revision: String) -> Result<impl Future<Output = Result<()>> + Send> {
        let path = format!("{}?watch=1&resourceVersion={revision}", self.kind.path);
        let mut open = self.client.open().await.map_err(anyhow::Error::from_boxed)?;
        let answer = open.send("GET", &path, None).await.map_err(anyhow::Error::from_boxed)?;
        ensure!(answer.status() == 200, "{path}: {}", answer.status());
        let mut body = answer.into_body();
        Ok(async move {
            // The connection ends with its sender.
            let _open = open;
            let mut rest = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.context("a watch broke")?;
                let data = frame.data_ref().map(|data| &data[..]).unwrap_or_default();
                rest.extend_from_slice(data);
                let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let text = std::str::from_utf8(&rest[..whole]).context("a watch of no text")?;
                for line in text.lines() {
                    if self.lags.send(self.lag(line)?).is_err() {
                        return Ok(());
                    }
                }
                rest.drain(..whole);
            }
            bail!("a watch ended")
        })
    }

    fn lag(&self, line: &str) -> Result<u64> {
        let name = line.find(self.kind.prefix).map(|at| &line[at + self.kind.prefix.len()..]);
        let number = name.and_then(|name| name.get(..7)?.parse::<usize>().ok());
        let number = number.with_context(|| format!("an event of nothing that was made: {line}"))?;
        let object = 2 * number + usize::from(self.kind.prefix == SLICES.prefix);
        Ok(self.sent.now().saturating_sub(self.sent.at[object].load(Ordering::SeqCst)))
    }
}

/// Takes `count` lags; a server that does not bring them in time ends the run.
pub(crate) async fn take(
    lags: &mut mpsc::UnboundedReceiver<u64>,
    count: usize,
    patience: Duration,
) -> Result<Vec<u64>> {
    let mut taken = Vec::with_capacity(count);
    let whole = async {
        while taken.len() < count {
            taken.push(lags.recv().await.context("all watches ended")?);
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(patience, whole).await {
        Ok(outcome) => outcome?,
        Err(_) => bail!("{} of {count} events after {patience:?}", taken.len()),
    }
    Ok(taken)
}
