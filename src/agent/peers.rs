//! Whether the other nodes' agents can be reached: each serves a health port and asks the others' by it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{HEALTH_PORT, Shared};
use crate::node::routes::Peer;
use crate::telemetry::server;

/// Time between two rounds of probes.
const PERIOD: Duration = Duration::from_secs(10);
/// Time for one probe.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The other nodes and what the last probe of each said.
#[derive(Default)]
pub(super) struct Peers {
    list: Vec<Peer>,
    results: BTreeMap<String, Result<(), String>>,
    probed: Option<SystemTime>,
}

/// Reachability of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reachability {
    /// Nodes whose agent answered, with this one.
    pub reachable: usize,
    /// All nodes.
    pub total: usize,
    /// Seconds since the epoch of the last round.
    pub probed: Option<u64>,
    /// Why a node could not be reached.
    pub failures: BTreeMap<String, String>,
}

impl Peers {
    pub(super) fn set(&mut self, list: Vec<Peer>) {
        self.results.retain(|name, _| list.iter().any(|peer| peer.name == *name));
        self.list = list;
    }

    pub(super) fn addresses(&self) -> Vec<Ipv4Addr> {
        self.list.iter().map(|peer| peer.address).collect()
    }

    pub(super) fn reachability(&self) -> Reachability {
        let failures: BTreeMap<String, String> = self
            .list
            .iter()
            .filter_map(|peer| match self.results.get(&peer.name) {
                Some(Ok(())) => None,
                Some(Err(reason)) => Some((peer.name.clone(), reason.clone())),
                None => Some((peer.name.clone(), "not probed yet".to_owned())),
            })
            .collect();
        Reachability {
            reachable: self.list.len() + 1 - failures.len(),
            total: self.list.len() + 1,
            probed: self.probed.and_then(|at| Some(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())),
            failures,
        }
    }
}

/// Probes the other nodes, again and again; until all have answered once, every second.
pub(super) async fn probe(shared: Arc<Shared>) -> Result<()> {
    loop {
        let all_well = round(&shared).await;
        shared.health.note("peers", Ok(()));
        tokio::time::sleep(if all_well { PERIOD } else { Duration::from_secs(1) }).await;
    }
}

/// One round of probes; what `status` reports is never older than the round it asks for.
pub(super) async fn round(shared: &Shared) -> bool {
    let list = shared.peers.lock().await.list.clone();
    let probes = list.into_iter().map(|peer| async move { (peer.name.clone(), ask(peer.address).await) });
    let results = futures::future::join_all(probes).await;
    let mut peers = shared.peers.lock().await;
    for (name, result) in results {
        peers.results.insert(name, result.map_err(|error| format!("{error:#}")));
    }
    peers.probed = Some(SystemTime::now());
    peers.reachability().failures.is_empty()
}

async fn ask(address: Ipv4Addr) -> Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect((address, HEALTH_PORT)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(TIMEOUT, exchange).await.context("no answer in 2 s")??;
    let status = answer.split_whitespace().nth(1).unwrap_or("nothing");
    anyhow::ensure!(status == "200", "its health port answered {status}");
    Ok(())
}

/// Serves `/healthz`: 200 if all loops are healthy, 503 with the others' names.
pub(super) async fn serve_health(shared: Arc<Shared>) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, HEALTH_PORT));
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    server::serve(listener, move |path| (path == "/healthz").then(|| healthz(&shared))).await
}

fn healthz(shared: &Shared) -> Result<(), String> {
    let all = shared.health.snapshot();
    let sick: Vec<String> = all.into_iter().filter(|(_, round)| !round.healthy).map(|(name, _)| name).collect();
    if sick.is_empty() { Ok(()) } else { Err(format!("not healthy: {}", sick.join(", "))) }
}
