//! What happens to a node in a scenario: a restart, a cut of its link, and the end of it. Each is seen to have happened, by
//! what another node hears of it and by what runs there, before the scenario goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::format::NodeStep;
use super::invariant::Watermark;
use super::probe::{self, NETTOOL};
use crate::cluster::install::PORTOLAN;
use crate::cluster::{Cluster, NodeAction, NodeInfo, Place};

/// Time for what ran on a node to run again after a restart. A real node takes some twenty seconds, and a container that
/// fails at its first start waits ten more.
const RESTARTED: Duration = Duration::from_secs(120);
/// Time for a node to answer again when its link is joined: neighbours that were given up are asked for anew within
/// a second.
const JOINED: Duration = Duration::from_secs(15);
/// Port of the kubelet: whoever reaches a node reaches it.
const KUBELET: u16 = 10250;

/// A container of a pod: the pod's uid and the container's name.
type Key = (String, String);

/// A container before a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ran {
    /// `pod/container`, for people and for the invariants.
    name: String,
    restarts: i32,
    /// What was not ready before need not be so afterwards.
    ready: bool,
    /// Whether it is portolan's.
    ours: bool,
}

/// Does what a step asks for. `cut` are the nodes that are cut off.
///
/// # Errors
/// If the provider cannot, or what should come of it does not.
pub(super) async fn act(
    client: &Client,
    cluster: &dyn Cluster,
    step: &NodeStep,
    cut: &mut BTreeSet<String>,
    mark: &mut Watermark,
) -> Result<()> {
    let node = cluster.nodes().iter().find(|node| node.name == step.name);
    let node = node.with_context(|| format!("{:?} is no node of the cluster", step.name))?;
    match step.action {
        NodeAction::Restart => restart(client, cluster, node, mark).await,
        NodeAction::Cut => {
            cut.insert(node.name.clone());
            cluster.set_link(&node.name, false)?;
            match reach(cluster, node)? {
                Ok(()) => bail!("node {} still answers, though its link is cut", node.name),
                Err(_) => Ok(()),
            }
        }
        NodeAction::Join => {
            cluster.set_link(&node.name, true)?;
            cut.remove(&node.name);
            until_reached(cluster, node, JOINED)
        }
    }
}

async fn restart(client: &Client, cluster: &dyn Cluster, node: &NodeInfo, mark: &mut Watermark) -> Result<()> {
    let before = what_runs(client, &node.name).await?;
    if !before.values().any(|ran| ran.ready) {
        bail!("nothing is ready on node {}: that it comes back could not be seen", node.name);
    }
    let ours: Vec<String> = before.values().filter(|ran| ran.ours).map(|ran| ran.name.clone()).collect();
    cluster.restart_node(&node.name)?;
    mark.node_restarted(&node.name, &ours);
    let deadline = Instant::now() + RESTARTED;
    loop {
        let missing = match not_again(client, &node.name, &before).await {
            Ok(missing) if missing.is_empty() => return until_reached(cluster, node, JOINED),
            Ok(missing) => missing.join(", "),
            // The API server may be on that node, or reached by way of it.
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!("node {} is not as before its restart after {RESTARTED:?}: {missing}", node.name);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Containers of the node's pods that are to stay.
async fn what_runs(client: &Client, node: &str) -> Result<BTreeMap<Key, Ran>> {
    let ours: BTreeSet<String> = Api::<Pod>::all(client.clone())
        .list(&ListParams::default().labels(PORTOLAN))
        .await?
        .iter()
        .filter_map(ResourceExt::uid)
        .collect();
    Ok(pods(client, node)
        .await?
        .iter()
        .flat_map(containers)
        .map(|container| {
            let ran = Ran {
                name: format!("{}/{}", container.pod, container.key.1),
                restarts: container.restarts,
                ready: container.ready,
                ours: ours.contains(&container.key.0),
            };
            (container.key, ran)
        })
        .collect())
}

/// What is not as it was yet: the node's condition, and the containers that have not been started again.
async fn not_again(client: &Client, node: &str, before: &BTreeMap<Key, Ran>) -> Result<Vec<String>> {
    let seen = Api::<Node>::all(client.clone()).get(node).await?;
    let conditions = seen.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let mut missing: Vec<String> = (!ready).then(|| format!("node {node} is not Ready")).into_iter().collect();
    let now: Vec<Now> = pods(client, node).await?.iter().flat_map(containers).collect();
    missing.extend(not_started(before, &now));
    Ok(missing)
}

/// A container as the API server shows it.
#[derive(Clone, Debug)]
pub(super) struct Now {
    key: Key,
    pod: String,
    restarts: i32,
    ready: bool,
}

/// Containers that ran before and have not been started again since, or are not ready. What a pod of another uid has
/// replaced is new itself, so it only has to be ready.
pub(super) fn not_started(before: &BTreeMap<Key, Ran>, now: &[Now]) -> Vec<String> {
    let mut missing = Vec::new();
    for container in now {
        let name = format!("{}/{}", container.pod, container.key.1);
        match before.get(&container.key) {
            Some(ran) if !ran.ready => {}
            Some(ran) if container.restarts <= ran.restarts => missing.push(format!("{name} was not started again")),
            _ if !container.ready => missing.push(format!("{name} is not ready")),
            _ => {}
        }
    }
    missing
}

async fn pods(client: &Client, node: &str) -> Result<Vec<Pod>> {
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let all = Api::<Pod>::all(client.clone()).list(&params).await?;
    Ok(all.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
}

fn containers(pod: &Pod) -> Vec<Now> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let one = |status: &k8s_openapi::api::core::v1::ContainerStatus| Now {
        key: (pod.uid().unwrap_or_default(), status.name.clone()),
        pod: pod.name_any(),
        restarts: status.restart_count,
        ready: status.ready,
    };
    statuses.into_iter().flatten().map(one).collect()
}

/// Whether another node reaches it; if not, what came of it.
fn reach(cluster: &dyn Cluster, node: &NodeInfo) -> Result<Result<(), Value>> {
    let witness = cluster.nodes().iter().find(|other| other.name != node.name);
    let witness = Place::Node(witness.context("there is no other node to look from")?.name.clone());
    let url = format!("tcp://{}:{KUBELET}", node.address);
    let report = probe::json(cluster, &witness, &[NETTOOL, "probe", "--timeout", "500ms", &url])?;
    let attempt = report["targets"][0]["attempts"][0].clone();
    Ok(if attempt["outcome"] == "ok" { Ok(()) } else { Err(attempt) })
}

fn until_reached(cluster: &dyn Cluster, node: &NodeInfo, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    while let Err(seen) = reach(cluster, node)? {
        if Instant::now() > deadline {
            bail!("node {} ({}) is not reached from another one after {within:?}: {seen}", node.name, node.address);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
