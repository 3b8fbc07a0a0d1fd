//! Following the Nodes: routes to their podCIDRs, and which addresses are nodes'.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use portolan_ebpf::{NODE_ADDR_LOCAL, NODE_ADDR_REMOTE};
use tokio::sync::oneshot;

use super::Shared;
use crate::k8s::backoff::WatchBackoff;
use crate::node::devices;
use crate::node::routes::{self, Peer};
use crate::sys::netlink::Netlink;
use crate::telemetry::health::Health;

/// Waits until this node has a podCIDR, and returns it.
pub(super) async fn wait_for_pod_cidr(api: &Api<Node>, name: &str) -> Result<Ipv4Net> {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut nodes = watcher::watcher(api.clone(), only).backoff(WatchBackoff::default()).applied_objects().boxed();
    let mut said = false;
    while let Some(node) = nodes.next().await {
        match node.map(|node| pod_cidr(&node)) {
            Ok(Some(cidr)) => return Ok(cidr),
            Ok(None) if !said => tracing::info!(node = name, "waiting for the node's podCIDR"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "watching the node"),
        }
        said = true;
    }
    bail!("the watch of node {name} ended")
}

fn pod_cidr(node: &Node) -> Option<Ipv4Net> {
    let spec = node.spec.as_ref()?;
    let all = spec.pod_cidrs.clone().unwrap_or_default();
    all.iter().chain(&spec.pod_cidr).find_map(|cidr| cidr.parse().ok())
}

fn peer(node: &Node) -> Option<Peer> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    let address = internal.filter_map(|address| address.address.parse().ok()).next()?;
    Some(Peer { name: node.name_any(), address, pod_cidr: pod_cidr(node) })
}

/// The Nodes as the API server tells them.
#[derive(Default)]
struct Nodes {
    all: BTreeMap<String, Peer>,
    fresh: BTreeMap<String, Peer>,
}

impl Nodes {
    /// Takes an event in and says whether the node's network must follow. A list that has only begun says nothing: acting
    /// on it would take all routes away until it is complete.
    fn take(&mut self, event: watcher::Event<Node>) -> bool {
        match event {
            watcher::Event::Init => {
                self.fresh.clear();
                false
            }
            watcher::Event::InitApply(node) => {
                self.fresh.extend(peer(&node).map(|peer| (peer.name.clone(), peer)));
                false
            }
            watcher::Event::InitDone => {
                self.all = std::mem::take(&mut self.fresh);
                true
            }
            watcher::Event::Apply(node) => {
                // A node's heartbeat changes its status every few seconds and nothing for us.
                let before = self.all.remove(&node.name_any());
                let now = peer(&node);
                self.all.extend(now.clone().map(|peer| (peer.name.clone(), peer)));
                before != now
            }
            watcher::Event::Delete(node) => self.all.remove(&node.name_any()).is_some(),
        }
    }

    fn others(&self, own_name: &str) -> Vec<Peer> {
        self.all.values().filter(|peer| peer.name != own_name).cloned().collect()
    }
}

/// How often the routes are looked at: the kernel takes them away with a link that goes down, and says nothing when it
/// comes back.
const ROUTES_PERIOD: Duration = Duration::from_secs(1);

/// What of a node follows the other nodes.
pub trait Neighbourhood: Send + Sync {
    /// Makes the node's routes lead to just these.
    fn set_routes(&self, peers: Vec<Peer>) -> impl Future<Output = Result<()>> + Send;
    /// Makes just these known as nodes.
    fn set_peers(&self, peers: Vec<Peer>) -> impl Future<Output = Result<()>> + Send;
}

impl Neighbourhood for Shared {
    async fn set_routes(&self, peers: Vec<Peer>) -> Result<()> {
        if !self.config.auto_direct_node_routes {
            return Ok(());
        }
        tokio::task::spawn_blocking(move || routes::reconcile(&mut Netlink::open()?, &peers)).await?
    }

    async fn set_peers(&self, peers: Vec<Peer>) -> Result<()> {
        self.peers.lock().await.set(peers);
        write_addresses(self).await
    }
}

/// Follows the Nodes, all but the one that is named, until the watch ends for good. `synced` is told when `network` is
/// true for the first time.
///
/// # Errors
/// If the watch ends for good.
pub async fn run(
    client: Client,
    own_name: &str,
    network: Arc<impl Neighbourhood>,
    health: Health,
    synced: oneshot::Sender<()>,
) -> Result<()> {
    let mut synced = Some(synced);
    let mut nodes = Nodes::default();
    let api = Api::<Node>::all(client);
    let mut events = watcher::watcher(api, watcher::Config::default()).backoff(WatchBackoff::default()).boxed();
    let mut repair = tokio::time::interval(ROUTES_PERIOD);
    // What follows the nodes does not do so yet, or not any more.
    let mut behind = false;
    loop {
        tokio::select! {
            biased;
            _ = repair.tick() => if !behind {
                if synced.is_none() {
                    health.note("routes", network.set_routes(nodes.others(own_name)).await);
                }
                continue;
            },
            event = events.try_next() => match event {
                Ok(Some(event)) => behind |= nodes.take(event),
                Ok(None) => bail!("the watch of nodes ended"),
                Err(error) => {
                    health.note::<()>("nodes", Err(error).context("watching nodes"));
                }
            },
        }
        if !behind {
            continue;
        }
        let done = follow(&*network, nodes.others(own_name)).await;
        behind = done.is_err();
        if health.note("nodes", done).is_some()
            && let Some(synced) = synced.take()
        {
            // The receiver is gone only if the agent is ending.
            let _ = synced.send(());
        }
    }
}

async fn follow(network: &impl Neighbourhood, peers: Vec<Peer>) -> Result<()> {
    network.set_routes(peers.clone()).await?;
    network.set_peers(peers).await
}

/// Looks at the node's own addresses and tells the datapath if they changed.
pub(super) async fn refresh_own_addresses(shared: &Shared) -> Result<()> {
    let own = tokio::task::spawn_blocking(|| devices::own_addresses(&mut Netlink::open()?)).await??;
    {
        let mut known = shared.own.lock().await;
        if *known == own {
            return Ok(());
        }
        *known = own;
    }
    write_addresses(shared).await
}

async fn write_addresses(shared: &Shared) -> Result<()> {
    let remote = shared.peers.lock().await.addresses();
    let mut wanted: BTreeMap<Ipv4Addr, u32> = remote.into_iter().map(|address| (address, NODE_ADDR_REMOTE)).collect();
    wanted.extend(shared.own.lock().await.iter().map(|address| (*address, NODE_ADDR_LOCAL)));
    shared.datapath.lock().await.set_node_addrs(&wanted)
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
