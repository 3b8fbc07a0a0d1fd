//! Names, addresses and paths of a netns cluster.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{NodeInfo, Role};

/// Address of the router on the nodes' segment, their default gateway.
pub(crate) const ROUTER: &str = "172.18.0.1";
/// Address of the router towards `lan`.
pub(crate) const ROUTER_LAN: &str = "198.18.100.1";
/// Address of `lan`.
pub(crate) const LAN: &str = "198.18.100.2";
/// ClusterIPs.
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/16";
/// Pods.
pub(crate) const POD_CIDR: &str = "10.244.0.0/16";
/// What the router sends to the first worker, so that `lan` can reach Services by way of it: the walk-through's pools,
/// the pools of all other scenarios, and ClusterIPs (which must be dropped there).
pub(crate) const BY_WORKER: [&str; 4] = ["20.0.10.0/24", "30.0.10.0/24", "198.18.0.0/20", SERVICE_CIDR];

/// Everything that other processes need to know of a running cluster; `state.json` in its directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Name.
    pub(crate) name: String,
    /// Repository.
    pub(crate) repo: PathBuf,
    /// Directory of the harness's binaries.
    pub(crate) bin_dir: PathBuf,
    /// Cgroup of the cluster, as the host sees it.
    pub(crate) cgroup: PathBuf,
    /// Nodes.
    pub(crate) nodes: Vec<NodeState>,
    /// Kubeconfig for the host.
    pub(crate) kubeconfig: PathBuf,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeState {
    /// Name.
    pub(crate) name: String,
    /// Role.
    pub(crate) role: Role,
    /// Address.
    pub(crate) address: Ipv4Addr,
}

impl NodeState {
    pub(crate) fn info(&self) -> NodeInfo {
        NodeInfo {
            name: self.name.clone(),
            role: self.role,
            address: IpAddr::V4(self.address),
            device: "eth0".to_owned(),
        }
    }
}

/// The three nodes of a cluster.
pub(crate) fn nodes(cluster: &str) -> Vec<NodeState> {
    let node = |suffix: &str, role, last| NodeState {
        name: format!("{cluster}-{suffix}"),
        role,
        address: Ipv4Addr::new(172, 18, 0, last),
    };
    vec![
        node("control-plane", Role::ControlPlane, 2),
        node("worker", Role::Worker, 3),
        node("worker2", Role::Worker, 4),
    ]
}

/// Where clusters keep their state.
pub(crate) const STATE_DIR: &str = "/run/portolan-e2e";

/// Directory of one cluster.
pub(crate) fn dir(cluster: &str) -> PathBuf {
    Path::new(STATE_DIR).join(cluster)
}

impl State {
    /// Reads the state of a running cluster.
    ///
    /// # Errors
    /// If there is no such cluster.
    pub(crate) fn load(cluster: &str) -> Result<Self> {
        let path = dir(cluster).join("state.json");
        let text = std::fs::read(&path).with_context(|| {
            format!("there is no running cluster {cluster:?} ({}); make one with `up`", path.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Writes the state, whole or not at all.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn save(&self) -> Result<()> {
        let path = dir(&self.name).join("state.json");
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// A file that is there while a node's end is wanted: its supervisor then starts it again.
    pub(crate) fn restart_request(&self, node: &str) -> PathBuf {
        dir(&self.name).join(format!("restart-{node}"))
    }

    /// Cgroup of a node's kubelet.
    pub(crate) fn kubelet_cgroup(&self, node: &str) -> PathBuf {
        self.cgroup.join(node).join("kubelet")
    }

    /// Cgroup of a host outside of the cluster, or of what holds another namespace of its network.
    pub(crate) fn outside_cgroup(&self, name: &str) -> PathBuf {
        self.cgroup.join("_outside").join(name)
    }
}
