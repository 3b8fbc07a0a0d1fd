//! An nftables policy of drop for what the kernels of the nodes forward: the datapath carries the traffic of pods by BPF,
//! past that hook, so nothing may be dropped by it.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::{Cluster, Place};

/// Our table in each node.
const TABLE: &str = "ip portolan_e2e_forward";

/// Puts the policy in place on all nodes.
///
/// # Errors
/// With what `nft` says on the node.
pub(super) fn install(cluster: &dyn Cluster) -> Result<()> {
    let rules = format!(
        "table {TABLE}; delete table {TABLE}; table {TABLE} {{ chain forward {{ type filter hook forward priority 0; \
         policy drop; counter; }}; }}"
    );
    for node in cluster.nodes() {
        nft(cluster, &node.name, &[&rules])?;
    }
    Ok(())
}

/// Fails if the policy has dropped anything.
///
/// # Errors
/// With the node and the number of packets.
pub(super) fn nothing_dropped(cluster: &dyn Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let text = nft(cluster, &node.name, &["-j", &format!("list table {TABLE}")])?;
        let packets = packets(&text).with_context(|| format!("the forward chain of {} has no counter", node.name))?;
        if packets != 0 {
            bail!("the kernel of {} was to forward {packets} packets: BPF did not carry them", node.name);
        }
    }
    Ok(())
}

/// Takes the policy away.
///
/// # Errors
/// With what `nft` says on the node.
pub(super) fn remove(cluster: &dyn Cluster) -> Result<()> {
    for node in cluster.nodes() {
        nft(cluster, &node.name, &[&format!("delete table {TABLE}")])?;
    }
    Ok(())
}

/// Why the nodes cannot have it, if they cannot.
pub(super) fn unmet(cluster: &dyn Cluster) -> Option<String> {
    let node = cluster.nodes().first()?;
    let error = nft(cluster, &node.name, &["--version"]).err()?;
    Some(format!("needs nft (package nftables) on the nodes: {error:#}"))
}

fn nft(cluster: &dyn Cluster, node: &str, args: &[&str]) -> Result<String> {
    let argv: Vec<String> = std::iter::once("nft").chain(args.iter().copied()).map(str::to_owned).collect();
    let output = cluster
        .command(&Place::Node(node.to_owned()), &argv)?
        .output()
        .with_context(|| format!("starting nft on {node}"))?;
    if !output.status.success() {
        bail!("nft on {node}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("nft prints text")
}

/// Packets of the first counter in the output of `nft -j list table`.
fn packets(text: &str) -> Option<u64> {
    let listed: Value = serde_json::from_str(text).ok()?;
    let expressions = listed["nftables"].as_array()?.iter().filter_map(|entry| entry["rule"]["expr"].as_array());
    expressions.flatten().find_map(|expression| expression["counter"]["packets"].as_u64())
}

#[cfg(test)]
#[path = "forward_policy_tests.rs"]
mod tests;
