//! Whether scenarios may and can be played on a cluster of somebody else's, before anything is made there.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::super::Cluster;
use super::ExistingCluster;

/// Label of namespace `kube-system` by which a cluster says that it is there for tests.
pub(super) const MARK: &str = "portolan.io/test-cluster";

/// Asks whether the cluster may be touched, unless it is marked as a test cluster or the answer was given (`--yes`).
///
/// # Errors
/// If it may not, or nobody can be asked.
pub(crate) fn consent(cluster: &ExistingCluster, server: &str, marked: bool, yes: bool) -> Result<()> {
    let way = format!("mark it (`kubectl label namespace kube-system {MARK}=true`) or give --yes");
    if marked || yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!(
            "cluster {:?} at {server} is not marked as a test cluster, and nobody can be asked: {way}",
            cluster.name()
        );
    }
    eprint!("cluster {:?} at {server} is not marked as a test cluster. Play scenarios on it? [y/N] ", cluster.name());
    std::io::stderr().flush().context("asking")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    if agrees(&answer) { Ok(()) } else { bail!("nothing was done; to be asked no more: {way}") }
}

fn agrees(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Looks at what would make every scenario fail.
///
/// # Errors
/// With all of it at once.
pub(crate) async fn look(client: &Client) -> Result<()> {
    let sets = Api::<DaemonSet>::namespaced(client.clone(), "kube-system").list(&ListParams::default()).await?;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let found = objections(&sets.items, &nodes.items);
    if found.is_empty() { Ok(()) } else { bail!("scenarios cannot be played there:\n  - {}", found.join("\n  - ")) }
}

/// Why scenarios cannot be played; all reasons at once.
fn objections(sets: &[DaemonSet], nodes: &[Node]) -> Vec<String> {
    let mut found = Vec::new();
    let counts = |name: &str| {
        let status = sets.iter().find(|set| set.name_any() == name)?.status.clone().unwrap_or_default();
        Some((status.number_ready, status.desired_number_scheduled))
    };
    match counts("portolan") {
        None => found.push(
            "portolan is not installed (no DaemonSet kube-system/portolan): set k8sServiceHost in \
             manifests/install/20-config.yaml to your API server, load the images (`cargo xtask images DIR` writes them), \
             and `kubectl apply -f manifests/install`"
                .to_owned(),
        ),
        Some((ready, wanted)) if ready < wanted || wanted == 0 => {
            found.push(format!("{ready} of {wanted} of portolan's agents are ready"));
        }
        Some(_) => {}
    }
    if counts("kube-proxy").is_some_and(|(_, wanted)| wanted > 0) {
        found.push(
            "kube-proxy runs: portolan takes its place, and two of them would translate each packet twice; delete \
             DaemonSet kube-system/kube-proxy and its rules (`kube-proxy --cleanup` on each node)"
                .to_owned(),
        );
    }
    let others = sets.iter().map(ResourceExt::name_any).filter(|name| OTHER_CNIS.contains(&name.as_str()));
    found.extend(others.map(|name| format!("another CNI is there (DaemonSet kube-system/{name}): remove it")));
    for node in nodes {
        let cidrs = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        if cidrs.iter().any(|cidr| cidr.contains(':')) {
            found.push(format!(
                "node {} has pod networks {}: only IPv4 is carried for now",
                node.name_any(),
                cidrs.join(" and ")
            ));
        }
    }
    found
}

/// DaemonSets of CNIs that are often found in `kube-system`.
const OTHER_CNIS: [&str; 6] = ["kindnet", "cilium", "calico-node", "kube-flannel-ds", "weave-net", "antrea-agent"];

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
