//! The existing provider: a cluster that somebody else made, known by its kubeconfig alone. Everything goes by way of the
//! API server: probes are run in pods, and for nodes in pods of ours on the hosts' networks. What the harness makes there
//! carries its label and is removed; what does not carry the label is neither changed nor deleted. What needs this
//! machine's kernel (planted faults, an outside host, the audit log, a fence) is not to be had.

mod exec;
mod hosts;
mod preflight;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::{Caps, Cluster, NodeInfo, Place, Role, install};
pub(crate) use exec::{PodExecArgs, run as pod_exec};
pub(crate) use hosts::{refuse_second, start as start_hosts};
pub(crate) use preflight::{consent, look};
pub(crate) use sweep::sweep;

/// Label of everything that the harness makes in a cluster that is not its own.
pub(crate) const LABEL: &str = "portolan.io/e2e";
/// Where the probe tool lies in its own image.
const NETTOOL: &str = "/usr/bin/nettool";
/// How scenarios name it.
const TOOL: &str = "/.portolan-tools/nettool";
/// Role label of control-plane nodes.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// How to reach a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// Kubeconfig.
    pub(crate) kubeconfig: PathBuf,
    /// Context in it; its current one if none is given.
    pub(crate) context: Option<String>,
}

/// A cluster of somebody else's.
pub(crate) struct ExistingCluster {
    access: Access,
    name: String,
    nodes: Vec<NodeInfo>,
    harness: PathBuf,
}

impl ExistingCluster {
    /// The cluster that a kubeconfig names.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) async fn open(access: Access, bin_dir: &Path) -> Result<Self> {
        let harness = bin_dir.join("harness");
        let client = install::client_for(&access.kubeconfig, access.context.as_deref()).await?;
        let kubeconfig = kube::config::Kubeconfig::read_from(&access.kubeconfig)?;
        let name = access.context.clone().or(kubeconfig.current_context).unwrap_or_else(|| "existing".to_owned());
        let nodes = nodes(&client).await.with_context(|| format!("asking cluster {name:?}"))?;
        Ok(Self { access, name, nodes, harness })
    }

    /// The devices that carry the nodes' addresses, as portolan's agents say.
    ///
    /// # Errors
    /// If an agent cannot be asked.
    pub(crate) async fn learn_devices(&mut self, client: &Client) -> Result<()> {
        for at in 0..self.nodes.len() {
            let agent = crate::scenario::agent_of(client, &self.nodes[at].name).await?;
            let argv = ["/usr/bin/portolan", "status", "-o", "json"].map(str::to_owned);
            let output = self.command(&agent, &argv)?.output().context("asking an agent")?;
            let status: serde_json::Value = serde_json::from_slice(&output.stdout)
                .with_context(|| format!("asking {agent:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
            let address = self.nodes[at].address.to_string();
            let device = status["devices"].as_array().into_iter().flatten().find(|device| device["address"] == address);
            self.nodes[at].device = device.and_then(|device| device["name"].as_str()).unwrap_or_default().to_owned();
        }
        Ok(())
    }

    fn exec(&self, namespace: &str, pod: &str, container: Option<&str>, argv: &[String]) -> Command {
        let mut command = Command::new(&self.harness);
        command.arg("pod-exec").arg("--kubeconfig").arg(&self.access.kubeconfig);
        if let Some(context) = &self.access.context {
            command.args(["--context", context]);
        }
        command.args(["--namespace", namespace, "--pod", pod]);
        if let Some(container) = container {
            command.args(["--container", container]);
        }
        // A pod has no tools but those of its image.
        let program = if argv[0] == TOOL { NETTOOL } else { &argv[0] };
        command.arg("--").arg(program).args(&argv[1..]);
        command
    }
}

/// The nodes as the API server knows them, control planes first.
async fn nodes(client: &Client) -> Result<Vec<NodeInfo>> {
    let mut nodes = Vec::new();
    for node in Api::<Node>::all(client.clone()).list(&ListParams::default()).await? {
        let name = node.name_any();
        let role = if node.labels().contains_key(CONTROL_PLANE) { Role::ControlPlane } else { Role::Worker };
        let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
        let address = addresses
            .iter()
            .find(|address| address.type_ == "InternalIP" && !address.address.contains(':'))
            .with_context(|| format!("node {name} has no InternalIP of IPv4"))?;
        let address = address.address.parse().with_context(|| format!("the address of node {name}"))?;
        nodes.push(NodeInfo { name, role, address, device: String::new() });
    }
    nodes.sort_by_key(|node| (node.role == Role::Worker, node.name.len(), node.name.clone()));
    Ok(nodes)
}

/// Whether the cluster says of itself that it is there for tests: a label of namespace `kube-system`.
///
/// # Errors
/// If it does not answer.
pub(crate) async fn is_marked(client: &Client) -> Result<bool> {
    let system = Api::<Namespace>::all(client.clone()).get("kube-system").await.context("reading kube-system")?;
    Ok(system.labels().get(preflight::MARK).is_some_and(|value| value == "true"))
}

impl Cluster for ExistingCluster {
    fn provider(&self) -> &'static str {
        "existing"
    }

    fn caps(&self) -> Caps {
        Caps { faults: false, settings: false, fenced: false }
    }

    fn label(&self) -> Option<&'static str> {
        Some(LABEL)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn kubeconfig(&self) -> &Path {
        &self.access.kubeconfig
    }

    fn context(&self) -> Option<&str> {
        self.access.context.as_deref()
    }

    fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    fn outside(&self) -> Vec<String> {
        Vec::new()
    }

    fn command(&self, place: &Place, argv: &[String]) -> Result<Command> {
        match place {
            Place::Node(name) => {
                if !self.nodes.iter().any(|node| node.name == *name) {
                    bail!("there is no node {name:?}");
                }
                Ok(self.exec(hosts::NAMESPACE, &hosts::place(name), None, argv))
            }
            Place::Pod { namespace, pod, container } => Ok(self.exec(namespace, pod, container.as_deref(), argv)),
            Place::Outside(name) => bail!("there is no host {name:?}: an existing cluster has none outside of it"),
        }
    }

    fn bpffs(&self, _: &str) -> Result<Option<PathBuf>> {
        Ok(None)
    }

    fn audit_log(&self) -> Option<PathBuf> {
        None
    }

    fn on_network_of(&self, node: &str, _: &[String]) -> Result<Command> {
        bail!("{node} is not on this machine: its packets cannot be captured from here")
    }

    fn dump(&self, _: &Path) -> Result<()> {
        bail!("processes, links and logs of the nodes: they are not on this machine")
    }
}
