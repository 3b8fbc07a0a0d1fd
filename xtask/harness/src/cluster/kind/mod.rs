//! The kind provider: a real cluster in containers, made by `kind` on the engine of this machine. What kind does not
//! give (its own network and a fence around it, outside hosts, images without a registry, places to run probes in, the
//! audit log, clean-up by a journal) is added around it.

mod config;
mod create;
mod engine;
mod fence;
mod images;
mod journal;
mod layout;
mod outside;
mod place;
pub(crate) mod preflight;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::enter::{self, ALL};
use super::{Cluster, NodeInfo, Place, evidence};
pub(crate) use create::{Made, Plan, make};
use layout::{Names, State, dir};
use place::Places;

/// A running cluster.
pub(crate) struct KindCluster {
    state: State,
    nodes: Vec<NodeInfo>,
    kubeconfig: PathBuf,
    places: Places,
}

/// Names of the cluster's hosts outside, as scenarios know them.
const LAN: &str = "lan";

impl KindCluster {
    fn new(state: State) -> Self {
        let nodes = state.nodes.iter().map(layout::Node::info).collect();
        let kubeconfig = dir(&state.names.cluster).join("kubeconfig");
        Self { state, nodes, kubeconfig, places: Places::default() }
    }

    /// The running cluster of that name.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn open(name: &str) -> Result<Self> {
        State::load(name).map(Self::new)
    }

    fn harness(&self) -> PathBuf {
        self.state.bin_dir.join("harness")
    }

    fn node(&self, name: &str) -> Result<&layout::Node> {
        self.state.nodes.iter().find(|node| node.name == name).with_context(|| format!("there is no node {name:?}"))
    }
}

/// Whether there is a cluster of that name, or what is left of one.
///
/// # Errors
/// If its journal cannot be understood.
pub(crate) fn exists(name: &str) -> Result<bool> {
    Ok(journal::of(name)?.is_some())
}

/// Whether somebody wants the cluster of that name: it was kept, or is being used.
///
/// # Errors
/// If its journal cannot be understood.
pub(crate) fn runs(name: &str) -> Result<bool> {
    Ok(journal::of(name)?.is_some_and(|journal| journal.alive()))
}

/// Refuses a name that a kind cluster has which is not ours.
///
/// # Errors
/// If there is one.
pub(crate) fn refuse_foreign(name: &str) -> Result<()> {
    if exists(name)? { Ok(()) } else { journal::refuse_foreign(name) }
}

/// Checks what can be checked before anything is made: the name and the configuration.
///
/// # Errors
/// With all that is wrong.
pub(crate) fn check(name: &str, config: Option<&Path>) -> Result<()> {
    Names::of(name)?;
    config::load(config).map(|_| ())
}

/// From now on the cluster stays when this process ends, until `down`.
///
/// # Errors
/// If that cannot be written.
pub(crate) fn keep(name: &str) -> Result<()> {
    match journal::of(name)? {
        Some(journal) => journal.keep(),
        None => Ok(()),
    }
}

/// Removes a cluster and everything that was made for it.
///
/// # Errors
/// If there is none of that name, or something stays.
pub(crate) fn destroy(name: &str) -> Result<()> {
    match journal::of(name)? {
        Some(journal) => journal.remove(),
        None => bail!("there is no kind cluster {name:?}"),
    }
}

/// Removes what dead runs left; returns the names of their clusters.
///
/// # Errors
/// If something stays.
pub(crate) fn gc() -> Result<Vec<String>> {
    journal::gc()
}

/// Writes what kind knows of a cluster, also of one that was not finished: journals, containers, logs of all pods.
///
/// # Errors
/// If kind cannot.
pub(crate) fn export_logs(name: &str, dest: &Path) -> Result<()> {
    let names = Names::of(name)?;
    let mut command = engine::kind_command();
    command.args(["export", "logs"]).arg(dest).args(["--name", &names.cluster]);
    engine::run(command).map(|_| ())
}

impl Cluster for KindCluster {
    fn provider(&self) -> &'static str {
        "kind"
    }

    fn name(&self) -> &str {
        &self.state.names.cluster
    }

    fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    fn outside(&self) -> Vec<String> {
        vec![LAN.to_owned()]
    }

    fn command(&self, place: &Place, argv: &[String]) -> Result<Command> {
        let (harness, bin_dir) = (self.harness(), &self.state.bin_dir);
        match place {
            Place::Node(name) => {
                let node = self.places.node(&self.state, name)?;
                Ok(enter::command(&harness, node.pid, Some(&node.cgroup), ALL, argv))
            }
            Place::Pod { namespace, pod, container } => {
                let found = self.places.pod(&self.state, namespace, pod, container.as_deref())?;
                let namespaces = "ipc,uts,net,pid,mnt";
                Ok(enter::with_tools(&harness, found.pid, Some(&found.cgroup), namespaces, bin_dir, argv))
            }
            Place::Outside(name) => {
                if name != LAN {
                    bail!("there is no host {name:?} outside of the cluster; there is {LAN}");
                }
                let found = self.places.container(&self.state, &self.state.names.lan)?;
                Ok(enter::with_tools(&harness, found.pid, Some(&found.cgroup), "uts,net", bin_dir, argv))
            }
        }
    }

    fn bpffs(&self, node: &str) -> Result<Option<PathBuf>> {
        let found = self.places.node(&self.state, node)?;
        Ok(Some(PathBuf::from(format!("/proc/{}/root/sys/fs/bpf", found.pid))))
    }

    fn audit_log(&self) -> Option<PathBuf> {
        Some(dir(&self.state.names.cluster).join("logs/audit.log"))
    }

    fn fenced(&self) -> Result<Option<u64>> {
        fence::stopped(&self.state.names).map(Some)
    }

    fn on_network_of(&self, name: &str, argv: &[String]) -> Result<Command> {
        let node = self.places.node(&self.state, name)?;
        Ok(enter::command(&self.harness(), node.pid, None, "net", argv))
    }

    fn restart_node(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        engine::docker(&["restart", name]).with_context(|| format!("restarting node {name}"))?;
        let containers = engine::containers(&[name], &self.state.names.network)?;
        let address = containers.first().and_then(|container| container.address);
        if address != Some(node.address) {
            bail!(
                "node {name} had {} and came back with {address:?}; a cluster of kind cannot follow that",
                node.address
            );
        }
        outside::reconnect(&self.state, node)
    }

    fn set_link(&self, name: &str, up: bool) -> Result<()> {
        let node = self.node(name)?;
        let found = self.places.node(&self.state, &node.name)?;
        let path = format!("/proc/{}/root/sys/class/net/eth0/iflink", found.pid);
        let peer: u32 = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {path}"))?
            .trim()
            .parse()
            .with_context(|| format!("in {path}"))?;
        // The far end, as if the cable were pulled: the node keeps its addresses and routes.
        let mut command = Command::new("ip");
        command.args(["link", "set", "dev", &device_of(peer)?, if up { "up" } else { "down" }]);
        engine::run(command).map(|_| ())
    }

    fn dump(&self, dest: &Path) -> Result<()> {
        let mut errors = Vec::new();
        errors.extend(export_logs(self.name(), &dest.join("kind")).err().map(|error| format!("{error:#}")));
        evidence::nodes(self, dest, &mut errors);
        let logs = dir(self.name()).join("logs");
        evidence::copy_logs(&logs, &dest.join("logs"), &mut errors);
        if errors.is_empty() { Ok(()) } else { bail!("{}", errors.join("\n")) }
    }
}

/// The host's device with that index.
fn device_of(index: u32) -> Result<String> {
    for entry in std::fs::read_dir("/sys/class/net").context("listing the host's devices")? {
        let path = entry?.path();
        let seen = std::fs::read_to_string(path.join("ifindex")).unwrap_or_default();
        if seen.trim() == index.to_string() {
            return path.file_name().map(|name| name.to_string_lossy().into_owned()).context("a device has a name");
        }
    }
    bail!("no device of this machine has index {index}")
}
