//! Gives each node its range of pod addresses, and the hint for how long a kubelet may keep what it has read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::controllers::Context;
use crate::controllers::cache::Cache;
use crate::controllers::client::{Client, PatchType, Refused};
use crate::controllers::events::Recorder;
use crate::controllers::kind::NODES;
use crate::controllers::object::{annotation, is_terminating, list, name, text};
use crate::controllers::queue::Queue;

const TTL: &str = "node.alpha.kubernetes.io/ttl";

pub(super) fn start(context: &mut Context) {
    start_ttl(context);
    let Some(cluster) = context.options.cluster_range else { return };
    let queue = Queue::new();
    context.subscribe(&queue, |_, queue, change| {
        if change.is(&NODES) && change.after.is_some() {
            queue.add(name(change.object()).to_owned());
        }
    });
    let client = context.client("node-controller");
    let allocator = Arc::new(Allocator {
        recorder: context.recorder("cidrAllocator", &client),
        client,
        cache: Arc::clone(&context.cache),
        cluster,
        mask: context.options.node_mask,
        next: AtomicU32::new(0),
    });
    context.work("node-ipam", &queue, move |name: String| {
        let allocator = Arc::clone(&allocator);
        async move { allocator.reconcile(&name).await }
    });
}

struct Allocator {
    client: Client,
    recorder: Recorder,
    cache: Arc<Cache>,
    cluster: Ipv4Net,
    mask: u8,
    /// The range after the one given last, so that one that was given back rests for a while.
    next: AtomicU32,
}

impl Allocator {
    async fn reconcile(&self, name: &str) -> Result<(), Refused> {
        let Some(node) = self.cache.get(&NODES, "", name) else { return Ok(()) };
        if !text(&node, "/spec/podCIDR").is_empty() || is_terminating(&node) {
            return Ok(());
        }
        let used = self.cache.list(&NODES, "").iter().flat_map(|node| ranges_of(node)).collect();
        let from = self.next.load(Ordering::Relaxed);
        let Some((index, range)) = free_range(self.cluster, self.mask, &used, from) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.recorder.say(&NODES, &node, "Normal", "CIDRNotAvailable", message.clone());
            return Err(Refused { code: 500, reason: String::new(), message });
        };
        let range = range.to_string();
        let patch = json!({"spec": {"podCIDR": range, "podCIDRs": [range]}});
        self.client.patch(&NODES, &node, "", PatchType::Strategic, &patch).await?;
        self.next.store(index + 1, Ordering::Relaxed);
        Ok(())
    }
}

fn ranges_of(node: &Value) -> Vec<Ipv4Net> {
    list(node, "/spec/podCIDRs").iter().filter_map(|range| range.as_str()?.parse().ok()).collect()
}

/// The first range that is not in use, with its number, looked for from number `from` on, around once.
fn free_range(cluster: Ipv4Net, mask: u8, used: &BTreeSet<Ipv4Net>, from: u32) -> Option<(u32, Ipv4Net)> {
    let bits = mask.checked_sub(cluster.prefix_len()).filter(|bits| *bits < 32 && mask <= 32)?;
    let (count, size) = (1u32 << bits, 32 - mask);
    (0..count).map(|step| (from % count).wrapping_add(step) % count).find_map(|index| {
        let base = u32::from(cluster.network()) + (u64::from(index) << size) as u32;
        let range = Ipv4Net::new(base.into(), mask).ok()?;
        let taken = used.iter().any(|other| other.contains(&range) || range.contains(other));
        (!taken).then_some((index, range))
    })
}

fn start_ttl(context: &mut Context) {
    let queue = Queue::new();
    context.subscribe(&queue, |_, queue, change| {
        if change.is(&NODES) && change.after.is_some() {
            queue.add(name(change.object()).to_owned());
        }
    });
    let (client, cache) = (context.client("ttl-controller"), Arc::clone(&context.cache));
    context.work("ttl", &queue, move |name: String| {
        let (client, cache) = (client.clone(), Arc::clone(&cache));
        async move {
            let Some(node) = cache.get(&NODES, "", &name) else { return Ok(()) };
            let wanted = ttl(cache.list(&NODES, "").len());
            if annotation(&node, TTL) == Some(wanted) {
                return Ok(());
            }
            let patch = json!({"metadata": {"annotations": {TTL: wanted}}});
            client.patch(&NODES, &node, "", PatchType::Strategic, &patch).await.map(drop)
        }
    });
}

/// Seconds, by the size of the cluster.
fn ttl(nodes: usize) -> &'static str {
    match nodes {
        0..=100 => "0",
        101..=500 => "15",
        501..=1000 => "30",
        1001..=2000 => "60",
        _ => "300",
    }
}
