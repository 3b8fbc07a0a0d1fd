//! An nftables policy of drop for what the kernels of the nodes forward: the datapath carries the traffic of pods by BPF,
//! past that hook, so nothing may be dropped by it. The probe tool speaks to the kernel, so that no node needs `nft`.

use anyhow::{Context, Result, bail};

use super::probe::{self, NETTOOL};
use crate::cluster::{Cluster, Place};

/// Puts the policy in place on all nodes.
///
/// # Errors
/// With what the node's kernel says.
pub(super) fn install(cluster: &dyn Cluster) -> Result<()> {
    cluster.nodes().iter().try_for_each(|node| act(cluster, &node.name, "drop").map(drop))
}

/// Fails if the policy has dropped anything.
///
/// # Errors
/// With the node and the number of packets.
pub(super) fn nothing_dropped(cluster: &dyn Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let counted = probe::json(cluster, &Place::Node(node.name.clone()), &[NETTOOL, "forward-policy", "count"])?;
        let packets = counted["packets"].as_u64().with_context(|| format!("no count of {}: {counted}", node.name))?;
        if packets != 0 {
            bail!("the kernel of {} was to forward {packets} packets: BPF did not carry them", node.name);
        }
    }
    Ok(())
}

/// Takes the policy away.
///
/// # Errors
/// With what the node's kernel says.
pub(super) fn remove(cluster: &dyn Cluster) -> Result<()> {
    cluster.nodes().iter().try_for_each(|node| act(cluster, &node.name, "remove").map(drop))
}

/// Why the nodes cannot have it, if they cannot.
pub(super) fn unmet(cluster: &dyn Cluster) -> Option<String> {
    let node = cluster.nodes().first()?;
    let error = act(cluster, &node.name, "supported").err()?;
    Some(format!("needs a kernel with nf_tables: {error:#}"))
}

fn act(cluster: &dyn Cluster, node: &str, action: &str) -> Result<()> {
    let argv = [NETTOOL, "forward-policy", action].map(str::to_owned);
    let output = cluster.command(&Place::Node(node.to_owned()), &argv)?.output();
    let output = output.with_context(|| format!("starting {argv:?} on {node}"))?;
    if !output.status.success() {
        bail!("{action} on {node}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
