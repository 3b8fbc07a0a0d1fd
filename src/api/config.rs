//! The one configuration document, `config.yaml` of ConfigMap `portolan-config`. Its keys have the meaning of the
//! walk-through's helm values. Unknown keys are errors.

use std::path::Path;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Where the configuration is mounted.
pub const PATH: &str = "/etc/portolan/config.yaml";

/// Settings of operator and agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Host of the API server, as nodes reach it without any Service.
    pub k8s_service_host: String,
    /// Port of the API server.
    pub k8s_service_port: u16,
    /// Name of the cluster, for people.
    #[serde(default = "default_cluster_name")]
    pub cluster_name: String,
    /// Carry Services in place of kube-proxy.
    #[serde(default)]
    pub kube_proxy_replacement: KubeProxyReplacement,
    /// How packets travel between nodes.
    #[serde(default)]
    pub routing_mode: RoutingMode,
    /// Install routes to the podCIDRs of nodes on the same segment.
    #[serde(default = "yes")]
    pub auto_direct_node_routes: bool,
    /// Traffic of pods to these addresses keeps its source.
    #[serde(rename = "ipv4NativeRoutingCIDR")]
    pub ipv4_native_routing_cidr: Ipv4Net,
    /// BPF features.
    #[serde(default)]
    pub bpf: Bpf,
    /// Address management of pods.
    #[serde(default)]
    pub ipam: Ipam,
    /// Accepted for the walk-through's sake. portolan uses no iptables and no connection tracking of the kernel, so
    /// there is nothing to install; `true` states what is so anyway, `false` would ask for what it never does.
    #[serde(default = "yes", rename = "installNoConntrackIptablesRules")]
    pub install_no_conntrack_iptables_rules: bool,
    /// Verbosity of logs.
    #[serde(default)]
    pub debug: Debug,
    /// Accepted for the walk-through's sake; `none` is what portolan does: every packet is counted.
    #[serde(default = "default_aggregation")]
    pub monitor_aggregation: String,
    /// Native devices; empty: those with a default route, and the one that carries the node's address.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Socket LB.
    #[serde(default, rename = "socketLB")]
    pub socket_lb: SocketLb,
}

/// `kubeProxyReplacement`: `strict` or a boolean, as the walk-through and newer charts write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "KubeProxyReplacementText", into = "bool")]
pub struct KubeProxyReplacement(pub bool);

#[derive(Deserialize)]
#[serde(untagged)]
enum KubeProxyReplacementText {
    Bool(bool),
    Strict(Strict),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Strict {
    Strict,
}

impl From<KubeProxyReplacementText> for KubeProxyReplacement {
    fn from(text: KubeProxyReplacementText) -> Self {
        match text {
            KubeProxyReplacementText::Bool(on) => Self(on),
            KubeProxyReplacementText::Strict(Strict::Strict) => Self(true),
        }
    }
}

impl From<KubeProxyReplacement> for bool {
    fn from(value: KubeProxyReplacement) -> Self {
        value.0
    }
}

impl Default for KubeProxyReplacement {
    fn default() -> Self {
        Self(true)
    }
}

/// How packets travel between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoutingMode {
    /// By the network itself, without a tunnel.
    #[default]
    Native,
}

/// BPF features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bpf {
    /// Masquerade traffic of pods that leaves the cluster.
    #[serde(default = "yes")]
    pub masquerade: bool,
}

impl Default for Bpf {
    fn default() -> Self {
        Self { masquerade: true }
    }
}

/// Address management of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ipam {
    /// Where a node's pod addresses come from.
    #[serde(default)]
    pub mode: IpamMode,
}

/// Where a node's pod addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpamMode {
    /// From the podCIDR of its Node, cut from the cluster's pool.
    #[default]
    ClusterPool,
}

/// Verbosity of logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Debug {
    /// Log at level debug.
    #[serde(default)]
    pub enabled: bool,
    /// A part to log in more detail, for example `datapath`.
    #[serde(default)]
    pub verbose: String,
}

/// Socket LB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SocketLb {
    /// Replace destinations in the system call; otherwise every packet is translated.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl Default for SocketLb {
    fn default() -> Self {
        Self { enabled: true }
    }
}

fn yes() -> bool {
    true
}

fn default_cluster_name() -> String {
    "default".to_owned()
}

fn default_aggregation() -> String {
    "none".to_owned()
}

impl Config {
    /// Reads and checks the document at `path`.
    ///
    /// # Errors
    /// With file, line and column.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Reads and checks a document.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = serde_yaml::from_str(text)?;
        if config.k8s_service_host.is_empty() {
            bail!(
                "k8sServiceHost is empty; it must be an address of the API server that nodes reach without a Service"
            );
        }
        if config.monitor_aggregation != "none" {
            bail!("monitorAggregation: {:?} is not supported; only \"none\" is", config.monitor_aggregation);
        }
        if !config.install_no_conntrack_iptables_rules {
            bail!("installNoConntrackIptablesRules: false is not supported: portolan never uses connection tracking");
        }
        Ok(config)
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
