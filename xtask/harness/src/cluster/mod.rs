//! What a cluster is to the rest of the harness: nodes, places to run probes in, and evidence. Providers implement
//! [`Cluster`]; the scenario runner knows nothing else (DESIGN decision 11).

mod control_plane;
pub(crate) mod enter;
mod evidence;
pub(crate) mod existing;
mod fabric;
pub(crate) mod install;
pub(crate) mod journal;
pub(crate) mod kind;
pub(crate) mod layout;
mod links;
pub(crate) mod netns;
pub(crate) mod node;
pub(crate) mod provider;
pub(crate) mod supervisor;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Where a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A node, in all its namespaces and in its cgroup.
    Node(String),
    /// A container of a pod, in its namespaces and its cgroup; the first container if `container` is `None`.
    Pod {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: Option<String>,
    },
    /// A host outside of the cluster, for example `lan`.
    Outside(String),
}

/// Role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Runs the control plane; tainted as kubeadm does.
    ControlPlane,
    /// Runs workloads.
    Worker,
}

/// What may happen to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NodeAction {
    /// Stop it and start it again, as a reboot would.
    Restart,
    /// Cut it off from the others.
    Cut,
    /// Join it to the others again.
    Join,
}

/// One node as the provider made it (not as the API server reports it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeInfo {
    /// Name, equal to the Node object's.
    pub(crate) name: String,
    /// Role.
    pub(crate) role: Role,
    /// Address on the nodes' segment.
    pub(crate) address: std::net::IpAddr,
    /// Device that carries it.
    pub(crate) device: String,
}

/// What a provider gives beyond places to run commands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caps {
    /// Faults may be planted: pinned maps can be written, and what is started in a place ends with us.
    pub(crate) faults: bool,
    /// Portolan is the harness's own there: it may be restarted, and get other settings and rights.
    pub(crate) settings: bool,
    /// No packet to a pool's address leaves the cluster's own network, whoever has that address on the internet.
    pub(crate) fenced: bool,
}

/// A running cluster. Methods block; callers that must not block use a thread.
pub(crate) trait Cluster: Send + Sync {
    /// Provider, as the command line names it.
    fn provider(&self) -> &'static str;
    /// Name of the cluster.
    fn name(&self) -> &str;
    /// What it gives.
    fn caps(&self) -> Caps {
        Caps { faults: true, settings: true, fenced: true }
    }
    /// Label that what scenarios make must carry, if the cluster is somebody else's: nothing without it is changed.
    fn label(&self) -> Option<&'static str> {
        None
    }
    /// Kubeconfig of an administrator that works from the host.
    fn kubeconfig(&self) -> &Path;
    /// Context in it; its current one if there is none.
    fn context(&self) -> Option<&str> {
        None
    }
    /// The nodes.
    fn nodes(&self) -> &[NodeInfo];
    /// Names of the hosts outside of the cluster.
    fn outside(&self) -> Vec<String>;
    /// A command that, once spawned by the caller, runs `argv` in `place`. The process has joined the target's cgroup
    /// before `argv[0]` is executed, because socket LB follows the cgroup, not the namespace. Static tools of the
    /// harness are available everywhere under `/.portolan-tools/` (`nettool`), also where the image has no shell.
    ///
    /// # Errors
    /// If the place does not exist, for example a pod without a running container.
    fn command(&self, place: &Place, argv: &[String]) -> Result<std::process::Command>;
    /// Directory of the node's pinned maps as the harness can open it (through the node's mount namespace), if any.
    ///
    /// # Errors
    /// If the node does not exist.
    fn bpffs(&self, node: &str) -> Result<Option<PathBuf>>;
    /// The API server's audit log, JSON lines, if the provider has one.
    fn audit_log(&self) -> Option<PathBuf>;
    /// Packets to pool addresses that were on their way out of the machine and were stopped; `None` where there is no
    /// way out.
    ///
    /// # Errors
    /// If the fence that should count them is gone.
    fn fenced(&self) -> Result<Option<u64>> {
        Ok(None)
    }
    /// A command of this machine, with its files, on the network of a node: a node need not have tcpdump.
    ///
    /// # Errors
    /// If the node does not run.
    fn on_network_of(&self, node: &str, argv: &[String]) -> Result<std::process::Command>;
    /// Stops a node and starts it again, as a reboot would; returns when it has been started, not when it is Ready.
    ///
    /// # Errors
    /// If the provider cannot, or the node does not come back.
    fn restart_node(&self, node: &str) -> Result<()> {
        bail!("this provider cannot restart {node}")
    }
    /// Cuts a node off from the others at the far end of its link, or joins it again.
    ///
    /// # Errors
    /// If the provider cannot.
    fn set_link(&self, node: &str, up: bool) -> Result<()> {
        bail!("this provider cannot {} the link of {node}", if up { "restore" } else { "cut" })
    }
    /// Writes what a provider knows (process logs, kubelet logs, pod logs, links, routes, neighbours, nft, cgroups)
    /// below `dir`. Collects all errors and carries on.
    ///
    /// # Errors
    /// A list of what could not be collected; the rest has been written.
    fn dump(&self, dir: &Path) -> Result<()>;
}
