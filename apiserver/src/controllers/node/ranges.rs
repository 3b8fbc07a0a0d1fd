//! Gives each node its range of pod addresses, and the hint for how long a kubelet may keep what it has read.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::controllers::cache::Change;
use crate::controllers::client::{PatchType, Refused};
use crate::controllers::context::{Context, Controller, Tools};
use crate::controllers::kind::NODES;
use crate::controllers::object::{annotation, is_terminating, list, name, text};
use crate::controllers::queue::Queue;
use crate::controllers::selection;

const TTL: &str = "node.alpha.kubernetes.io/ttl";

pub(super) fn start(context: &mut Context) {
    context.run(selection::Controller::Ttl, Ttls(context.tools("ttl-controller", "ttl-controller")));
    if let Some(cluster) = context.options.cluster_cidr {
        let tools = context.tools("node-controller", "cidrAllocator");
        context.run(selection::Controller::NodeIpam, Ranges { tools, cluster, next: AtomicU32::new(0) });
    }
}

/// Every change of a node concerns its range and its hint.
fn note_node(queue: &Queue<String>, change: &Change) {
    if change.is(&NODES) && change.after.is_some() {
        queue.add(name(change.object()).to_owned());
    }
}

struct Ranges {
    tools: Tools<String>,
    cluster: Ipv4Net,
    /// The range after the one given last, so that one that was given back rests for a while.
    next: AtomicU32,
}

impl Controller for Ranges {
    type Key = String;

    fn tools(&self) -> &Tools<String> {
        &self.tools
    }

    fn note(&self, change: &Change) {
        note_node(&self.tools.queue, change);
    }

    async fn reconcile(&self, name: String) -> Result<(), Refused> {
        let Some(node) = self.tools.cache.get(&NODES, "", &name) else { return Ok(()) };
        if !text(&node, "/spec/podCIDR").is_empty() || is_terminating(&node) {
            return Ok(());
        }
        let used = self.tools.cache.list(&NODES, "").iter().flat_map(|node| ranges_of(node)).collect();
        let from = self.next.load(Ordering::Relaxed);
        let Some((index, range)) = free_range(self.cluster, self.tools.options.node_cidr_mask_size, &used, from) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.tools.recorder.say(&NODES, &node, "Normal", "CIDRNotAvailable", message.clone());
            return Err(Refused { code: 500, reason: String::new(), message });
        };
        let range = range.to_string();
        let patch = json!({"spec": {"podCIDR": range, "podCIDRs": [range]}});
        self.tools.client.patch(&NODES, &node, "", PatchType::Strategic, &patch).await?;
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

struct Ttls(Tools<String>);

impl Controller for Ttls {
    type Key = String;

    fn tools(&self) -> &Tools<String> {
        &self.0
    }

    fn note(&self, change: &Change) {
        note_node(&self.0.queue, change);
    }

    async fn reconcile(&self, name: String) -> Result<(), Refused> {
        let Some(node) = self.0.cache.get(&NODES, "", &name) else { return Ok(()) };
        let wanted = ttl(self.0.cache.list(&NODES, "").len());
        if annotation(&node, TTL) == Some(wanted) {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": {TTL: wanted}}});
        self.0.client.patch(&NODES, &node, "", PatchType::Strategic, &patch).await.map(drop)
    }
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
