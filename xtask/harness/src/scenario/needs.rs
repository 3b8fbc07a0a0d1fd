//! What a scenario needs of a cluster, by what its steps do. Where a cluster cannot give it, the scenario is skipped with
//! the reason.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::format::{Scenario, Step};
use super::forward_policy;
use super::plant::Plant;
use crate::cluster::install::documents;
use crate::cluster::{Caps, Cluster};

/// Networks from which a pool may take addresses where nothing fences them off: private ones, and those set aside for
/// tests and documentation (RFC 1918, 2544, 5737, 6598, 3849, 4193).
const HARMLESS: [&str; 9] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "100.64.0.0/10",
    "2001:db8::/32",
    "fc00::/7",
];

/// Why the scenario cannot be played there, if it cannot.
///
/// # Errors
/// If a file that it applies cannot be read.
pub(super) fn unmet(scenario: &Scenario, cluster: &dyn Cluster, repo: &Path) -> Result<Option<String>> {
    if let Some(reason) = scenario.spec.needs.unmet(cluster.nodes()) {
        return Ok(Some(reason));
    }
    let (caps, outside) = (cluster.caps(), !cluster.outside().is_empty());
    for step in &scenario.spec.steps {
        if let Some(reason) = step_unmet(step, caps, outside, cluster.audit_log().is_some()) {
            return Ok(Some(format!("step {} {reason}", step.id)));
        }
        if step.forward_policy_drop
            && let Some(reason) = forward_policy::unmet(cluster)
        {
            return Ok(Some(format!("step {} {reason}", step.id)));
        }
        if !caps.fenced
            && let Some(reason) = public_pool(step, repo)?
        {
            return Ok(Some(format!("step {} {reason}", step.id)));
        }
    }
    Ok(None)
}

fn step_unmet(step: &Step, caps: Caps, outside: bool, audit: bool) -> Option<String> {
    let needs = |needed: bool, text: &str| needed.then(|| text.to_owned());
    let settings = step.node.is_some()
        || step.socket_lb.is_some()
        || step.agent_restart.is_some()
        || step.least_privilege
        || step.forward_policy_drop;
    let from_outside = step.agent_restart.is_some() || matches!(step.plant, Some(Plant::BadChecksum { .. }));
    needs(
        settings && !caps.settings,
        "changes settings of portolan or of nodes, and this cluster is not the harness's own",
    )
    .or_else(|| {
        needs(step.plant.is_some() && !caps.faults, "plants a fault, and this cluster is not the harness's own")
    })
    .or_else(|| needs(from_outside && !outside, "needs a host outside of the cluster, and there is none"))
    .or_else(|| needs(step.least_privilege && !audit, "needs the API server's audit log"))
}

/// A pool of the step whose addresses may belong to somebody.
fn public_pool(step: &Step, repo: &Path) -> Result<Option<String>> {
    let mut objects = step.create.clone();
    for file in &step.apply {
        objects.extend(documents(&repo.join(file))?);
    }
    Ok(objects.iter().filter(|object| object["kind"] == "CiliumLoadBalancerIPPool").find_map(|pool| {
        let public = blocks(pool).into_iter().find(|block| !is_harmless(block))?;
        let name = pool["metadata"]["name"].as_str().unwrap_or_default();
        Some(format!("makes pool {name} of {public}, which are public addresses, and nothing fences them off there"))
    }))
}

/// First addresses, or networks, of the pool's blocks.
fn blocks(pool: &Value) -> Vec<String> {
    let lists = ["blocks", "cidrs"].into_iter().filter_map(|field| pool["spec"][field].as_array());
    lists
        .flatten()
        .flat_map(|block| {
            ["cidr", "start", "stop"].into_iter().filter_map(|key| block[key].as_str().map(str::to_owned))
        })
        .collect()
}

fn is_harmless(block: &str) -> bool {
    let network: Option<ipnet::IpNet> =
        block.parse().ok().or_else(|| block.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from));
    // What cannot be understood is a pool that the API server refuses.
    network.is_none_or(|network| {
        HARMLESS.iter().any(|known| known.parse::<ipnet::IpNet>().is_ok_and(|known| known.contains(&network)))
    })
}

#[cfg(test)]
#[path = "needs_tests.rs"]
mod tests;
