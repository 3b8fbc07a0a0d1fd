//! What must hold whatever a scenario does (DESIGN decision 19): addresses are unique and inside their pool, the counts of
//! a pool add up, nobody is refused by RBAC, the API server has no internal error, no packet arrives with a wrong
//! checksum, nobody else writes to the kernel's maps, nothing of ours panics, logs an error or is restarted.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::audit::Audit;
use super::format::ObjectRef;
use super::holders::{self, Watch};
use super::probe::{self, NETTOOL};
use crate::cluster::install::{PORTOLAN, api_of};
use crate::cluster::{Cluster, Place};

/// Our service accounts. Components of Kubernetes and kubelets ask before their roles exist, in a cluster's first
/// seconds, and are not what is judged.
const OURS: &str = "system:serviceaccount:kube-system:portolan-";

/// How far everything was looked at.
pub(super) struct Watermark {
    holders: Watch,
    audit: Audit,
    fenced: u64,
    restarts: BTreeMap<String, i32>,
    log_lines: BTreeMap<String, usize>,
    checksums: BTreeMap<String, i64>,
}

impl Watermark {
    /// Begins to look. What was counted before is not this scenario's.
    ///
    /// # Errors
    /// If a counter cannot be read.
    pub(super) fn start(client: &Client, cluster: &dyn Cluster) -> Result<Self> {
        let mut mark = Self {
            holders: Watch::start(client.clone()),
            audit: Audit::default(),
            fenced: cluster.fenced()?.unwrap_or(0),
            restarts: BTreeMap::new(),
            log_lines: BTreeMap::new(),
            checksums: BTreeMap::new(),
        };
        checksums(cluster, &mut mark)?;
        Ok(mark)
    }

    /// Forgets what a step has done to the product on purpose.
    ///
    /// # Errors
    /// If a counter or log cannot be read.
    pub(super) fn afresh(client: &Client, cluster: &dyn Cluster) -> Result<Self> {
        Ok(Self { audit: Audit::from_now_on(cluster)?, ..Self::start(client, cluster)? })
    }
}

impl Watermark {
    /// What was started again before now is no fault of this run's.
    ///
    /// # Errors
    /// If the pods cannot be listed.
    pub(super) async fn know_restarts(&mut self, client: &Client) -> Result<()> {
        let api = Api::<Pod>::namespaced(client.clone(), "kube-system");
        for pod in api.list(&ListParams::default().labels(PORTOLAN)).await? {
            let name = pod.name_any();
            for container in pod.status.and_then(|status| status.container_statuses).unwrap_or_default() {
                self.restarts.insert(format!("{name}/{}", container.name), container.restart_count);
            }
        }
        Ok(())
    }

    /// A node was started again on purpose: its counters began anew, and these containers (`pod/container`) of ours were
    /// started once more, with new logs. A second time would be a fault.
    pub(super) fn node_restarted(&mut self, node: &str, containers: &[String]) {
        for (_, count) in self.checksums.iter_mut().filter(|(key, _)| key.split(' ').next() == Some(node)) {
            *count = 0;
        }
        for container in containers {
            *self.restarts.entry(container.clone()).or_insert(0) += 1;
            self.log_lines.remove(container);
        }
    }
}

/// All violations since the last look. What is logged on nodes that are `cut` off is seen when they have been joined again.
///
/// # Errors
/// If the cluster cannot be asked.
pub(super) async fn violations(
    client: &Client,
    cluster: &dyn Cluster,
    mark: &mut Watermark,
    cut: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let mut found = addresses(client, mark).await?;
    found.extend(audit(cluster, mark)?);
    found.extend(checksums(cluster, mark)?);
    found.extend(pods(client, mark, cut).await?);
    found.extend(fence(cluster, mark)?);
    Ok(found)
}

/// Packets to pool addresses that were on their way out of the machine.
fn fence(cluster: &dyn Cluster, mark: &mut Watermark) -> Result<Option<String>> {
    let Some(stopped) = cluster.fenced()? else { return Ok(None) };
    let before = std::mem::replace(&mut mark.fenced, stopped);
    Ok(fence_violation(before, stopped))
}

/// Stopped packets are a fault even though they were stopped: on a machine without the fence they would have left.
pub(super) fn fence_violation(before: u64, now: u64) -> Option<String> {
    let fresh = now.saturating_sub(before);
    (fresh > 0).then(|| format!("{fresh} packets to pool addresses were stopped on their way out of the machine"))
}

async fn addresses(client: &Client, mark: &Watermark) -> Result<Vec<String>> {
    let services = Api::<Service>::all(client.clone()).list(&ListParams::default()).await?;
    let mut held_by: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for service in &services {
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        for entry in status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten() {
            let name = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
            held_by.entry(entry.ip.clone().unwrap_or_default()).or_default().push(name);
        }
    }
    let reference = ObjectRef {
        api_version: "cilium.io/v2alpha1".into(),
        kind: "CiliumLoadBalancerIPPool".into(),
        name: String::new(),
        namespace: None,
    };
    let api = api_of(client, &reference.api_version, &reference.kind, None).await?;
    let pools: Vec<Value> =
        api.list(&ListParams::default()).await?.items.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    let mut found = address_violations(&held_by, &pools);
    let newest = services.iter().map(holders::version).max().unwrap_or(0);
    found.extend(mark.holders.violations(newest).await?);
    Ok(found)
}

/// Packets with a wrong checksum that a node, or a host outside, has received. The provider's devices leave no checksum
/// to be trusted, so this is the kernel's verdict on what the datapath wrote.
fn checksums(cluster: &dyn Cluster, mark: &mut Watermark) -> Result<Vec<String>> {
    let nodes = cluster.nodes().iter().map(|node| (node.name.clone(), Place::Node(node.name.clone())));
    let outside = cluster.outside().into_iter().map(|name| (name.clone(), Place::Outside(name)));
    // All at once: this is looked at after every step.
    let asking: Vec<(String, probe::Asking)> = nodes
        .chain(outside)
        .map(|(name, place)| Ok((name, probe::Asking::start(cluster, &place, &[NETTOOL, "netstat"])?)))
        .collect::<Result<_>>()?;
    let mut found = Vec::new();
    for (name, asking) in asking {
        let counters = asking.finish()?;
        for protocol in ["Tcp", "Udp", "Icmp"] {
            let Some(now) = counters[protocol]["InCsumErrors"].as_i64() else { continue };
            let before = mark.checksums.insert(format!("{name} {protocol}"), now);
            if let Some(more) = before.map(|before| now - before).filter(|more| *more > 0) {
                found.push(format!("{name} received {more} {protocol} packets with a wrong checksum"));
            }
        }
    }
    Ok(found)
}

/// The pure part: who holds what, against the pools.
pub(super) fn address_violations(holders: &BTreeMap<String, Vec<String>>, pools: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    let networks: Vec<ipnet::IpNet> = pools
        .iter()
        .flat_map(|pool| ["blocks", "cidrs"].into_iter().filter_map(|field| pool["spec"][field].as_array()).flatten())
        .filter_map(|block| block["cidr"].as_str()?.parse().ok())
        .collect();
    for (address, names) in holders {
        if names.len() > 1 {
            found.push(format!("{address} is held by {}", names.join(" and ")));
        }
        let inside = address.parse::<std::net::IpAddr>().is_ok_and(|ip| networks.iter().any(|net| net.contains(&ip)));
        if !inside {
            found.push(format!("{address} of {} lies in no pool", names.join(", ")));
        }
    }
    for pool in pools {
        let count = |kind: &str| -> Option<u128> {
            let all = pool["status"]["conditions"].as_array()?;
            all.iter().find(|condition| condition["type"] == kind)?["message"].as_str()?.parse().ok()
        };
        if let (Some(total), Some(used), Some(available)) =
            (count("cilium.io/IPsTotal"), count("cilium.io/IPsUsed"), count("cilium.io/IPsAvailable"))
            && used + available != total
        {
            found
                .push(format!("pool {}: {used} used + {available} available is not {total}", pool["metadata"]["name"]));
        }
    }
    found
}

fn audit(cluster: &dyn Cluster, mark: &mut Watermark) -> Result<Vec<String>> {
    Ok(mark.audit.fresh(cluster)?.iter().filter_map(audit_violation).collect())
}

/// A denied request of ours, or an internal error of the server.
pub(super) fn audit_violation(event: &Value) -> Option<String> {
    let code = event["responseStatus"]["code"].as_u64()?;
    let user = event["user"]["username"].as_str().unwrap_or_default();
    // 504 is how a server ends a request of its own time, and 500 with these words what a real one notes when the client
    // has hung up before the answer, as it does at its own deadline; any other 500, and 503, are faults.
    let hung_up = code == 500 && event["responseStatus"]["message"] == "context canceled";
    let bad = code == 401 || code == 403 || (500..600).contains(&code) && code != 504 && !hung_up;
    (user.starts_with(OURS) && bad).then(|| {
        format!(
            "{user}: {} {} was answered {code}: {}",
            event["verb"], event["requestURI"], event["responseStatus"]["message"]
        )
    })
}

async fn pods(client: &Client, mark: &mut Watermark, cut: &BTreeSet<String>) -> Result<Vec<String>> {
    let api = Api::<Pod>::namespaced(client.clone(), "kube-system");
    let mut found = Vec::new();
    let mut running = Vec::new();
    for pod in api.list(&ListParams::default().labels(PORTOLAN)).await? {
        let name = pod.name_any();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        let silent = node.is_some_and(|node| cut.contains(node));
        let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
        for container in statuses {
            let known = mark.restarts.entry(format!("{name}/{}", container.name)).or_insert(0);
            if container.restart_count > *known {
                found.push(format!("{name}/{} was restarted: {:?}", container.name, container.last_state));
                *known = container.restart_count;
            }
            if !silent && container.state.as_ref().is_some_and(|state| state.running.is_some()) {
                running.push((name.clone(), container.name));
            }
        }
    }
    let logs = running.iter().map(|(pod, container)| {
        let params = LogParams { container: Some(container.clone()), ..LogParams::default() };
        let api = &api;
        async move { api.logs(pod, &params).await }
    });
    let logs = futures::future::try_join_all(logs).await?;
    for ((pod, container), log) in running.iter().zip(logs) {
        let lines: Vec<&str> = log.lines().collect();
        let seen = mark.log_lines.entry(format!("{pod}/{container}")).or_insert(0);
        // A log that has become shorter belongs to another run of the container.
        let new = lines.get(*seen..).unwrap_or(&lines);
        found.extend(new.iter().filter(|line| log_violation(line)).map(|line| format!("{pod}: {line}")));
        *seen = lines.len();
    }
    Ok(found)
}

/// A line that must not be in a log of ours.
pub(super) fn log_violation(line: &str) -> bool {
    // The agent repairs maps that somebody else has written to. On a test cluster nobody may.
    let repaired = line.contains("changed by somebody else");
    repaired || line.contains("panicked at") || line.split_whitespace().nth(1) == Some("ERROR")
}

#[cfg(test)]
#[path = "invariant_tests.rs"]
mod tests;
