//! Names and paths of a kind cluster. Containers outlive a reboot, so its state must too: it is below `/var/lib`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::super::{NodeInfo, Role};
use crate::image::archive::{Archived, sha256};

/// Where kind clusters keep their state.
pub(super) const STATE_DIR: &str = "/var/lib/portolan-e2e";
/// Longest name of a cluster: kind's node names are host names, and end in `-control-plane`.
const NAME_MAX: usize = 40;

/// Directory of a cluster.
pub(super) fn dir(cluster: &str) -> PathBuf {
    Path::new(STATE_DIR).join(cluster)
}

/// Names that follow from a cluster's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Names {
    /// Cluster, as kind knows it.
    pub(super) cluster: String,
    /// Network of the engine.
    pub(super) network: String,
    /// Its bridge on the host.
    pub(super) bridge: String,
    /// Container of the router between the nodes and `lan`.
    pub(super) router: String,
    /// Container of the outside client.
    pub(super) lan: String,
    /// Image of both.
    pub(super) image: String,
    /// Table of nftables.
    pub(super) table: String,
}

impl Names {
    /// Names for a cluster.
    ///
    /// # Errors
    /// If kind would not take the name.
    pub(super) fn of(cluster: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let edges = cluster.starts_with('-') || cluster.ends_with('-');
        if cluster.is_empty() || cluster.len() > NAME_MAX || !cluster.chars().all(allowed) || edges {
            bail!("{cluster:?} is no name for a kind cluster: up to {NAME_MAX} of a-z, 0-9 and inner '-'");
        }
        let base = format!("portolan-e2e-{cluster}");
        Ok(Self {
            cluster: cluster.to_owned(),
            // A device's name has 15 characters at most.
            bridge: format!("pe2e-{}", &sha256(cluster.as_bytes())[..10]),
            router: format!("{base}-router"),
            lan: format!("{base}-lan"),
            image: format!("portolan-e2e/outside:{cluster}"),
            table: base.replace('-', "_"),
            network: base,
        })
    }
}

/// Everything that later commands need to know of a running cluster; `kind.json` in its directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Names.
    pub(super) names: Names,
    /// Directory of the harness's binaries.
    pub(super) bin_dir: PathBuf,
    /// Nodes, as they were made; addresses may change when several are restarted together.
    pub(super) nodes: Vec<Node>,
    /// ClusterIPs.
    pub(super) service_cidr: String,
    /// Hash of all that the cluster was made of; another one needs another cluster.
    pub(super) environment: String,
    /// Images in the nodes.
    pub(super) images: Vec<Archived>,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Node {
    /// Name of the container and of the Node object.
    pub(super) name: String,
    /// Role.
    pub(super) role: Role,
    /// Address on the engine's network.
    pub(super) address: Ipv4Addr,
}

impl Node {
    pub(super) fn info(&self) -> NodeInfo {
        NodeInfo { name: self.name.clone(), role: self.role, address: self.address.into(), device: "eth0".to_owned() }
    }
}

impl State {
    /// Reads the state of a cluster.
    ///
    /// # Errors
    /// If there is no such cluster.
    pub(super) fn load(cluster: &str) -> Result<Self> {
        let path = dir(cluster).join("kind.json");
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "there is no running kind cluster {cluster:?} ({}); make one with `up --provider kind`",
                path.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Writes the state, whole or not at all.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(super) fn save(&self) -> Result<()> {
        write_whole(&dir(&self.names.cluster).join("kind.json"), &serde_json::to_vec_pretty(self)?)
    }
}

/// Writes a file whole or not at all.
///
/// # Errors
/// If the disk refuses.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}
