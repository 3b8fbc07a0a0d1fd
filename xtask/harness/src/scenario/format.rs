//! Scenario files. Unknown keys are errors with file, line and column.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::plant::Plant;
use super::role;
use crate::cluster::{NodeAction, NodeInfo, Role};

/// Public address space that belongs to others; only the walk-through may name it, because it must.
const PUBLIC: [&str; 2] = ["20.0.10.", "30.0.10."];
/// The one file that may.
const WALKTHROUGH: &str = "walkthrough.yaml";

/// A scenario.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Scenario {
    /// `e2e/v1`.
    pub(crate) api_version: String,
    /// `Scenario`.
    pub(crate) kind: String,
    /// Name.
    pub(crate) metadata: Metadata,
    /// Steps.
    pub(crate) spec: Spec,
}

/// Name of a scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    /// Name.
    pub(crate) name: String,
    /// Why a scenario that fails for a known fault is skipped unless its file is named. It counts as skipped, never as
    /// passed.
    pub(crate) quarantine: Option<String>,
}

/// What a scenario does.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Spec {
    /// What the cluster must have; where it has not, the scenario is skipped.
    #[serde(default)]
    pub(crate) needs: Needs,
    /// Steps, in order; the first that fails ends the scenario.
    pub(crate) steps: Vec<Step>,
}

/// What a cluster must have for a scenario.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Needs {
    /// Number of workers. `${worker2}` may stand only where at least two are needed.
    #[serde(default = "one")]
    pub(crate) workers: usize,
}

impl Default for Needs {
    fn default() -> Self {
        Self { workers: one() }
    }
}

fn one() -> usize {
    1
}

impl Needs {
    /// Why a scenario cannot be played on a cluster of these nodes.
    pub(crate) fn unmet(self, nodes: &[NodeInfo]) -> Option<String> {
        let workers = nodes.iter().filter(|node| node.role == Role::Worker).count();
        (workers < self.workers).then(|| format!("needs {} workers; this cluster has {workers}", self.workers))
    }
}

/// A step: first it changes something, then it looks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Step {
    /// Name, unique in the file.
    pub(crate) id: String,
    /// A fault to plant before the step looks. It is taken away after the step.
    #[serde(default, with = "serde_yaml::with::singleton_map_recursive")]
    pub(crate) plant: Option<Plant>,
    /// What the failure must say that the planted fault causes; the step passes if it does.
    pub(crate) caught_by: Option<String>,
    /// What happens to a node, before anything else of the step.
    pub(crate) node: Option<NodeStep>,
    /// Switch socket LB on or off for all nodes.
    pub(crate) socket_lb: Option<bool>,
    /// Take away each right of the product's roles in turn; something must be denied then.
    #[serde(default)]
    pub(crate) least_privilege: bool,
    /// Files with objects to apply, relative to the repository.
    #[serde(default)]
    pub(crate) apply: Vec<PathBuf>,
    /// Objects to apply.
    #[serde(default)]
    pub(crate) create: Vec<Value>,
    /// Objects to delete.
    #[serde(default)]
    pub(crate) delete: Vec<ObjectRef>,
    /// What must become true.
    #[serde(default)]
    pub(crate) assert: Vec<Assertion>,
    /// The row of `kubectl api-resources` for a CRD.
    pub(crate) api_resource: Option<ApiResourceRow>,
    /// What `portolan status` must say on every node.
    pub(crate) status: Option<Value>,
    /// An nftables policy of drop for everything that the kernels of the nodes forward, until the scenario ends. The
    /// step fails if it drops anything.
    #[serde(default)]
    pub(crate) forward_policy_drop: bool,
    /// Requests from everywhere to all frontends of a Service.
    pub(crate) matrix: Option<Matrix>,
    /// Nobody answers ARP for the Service's addresses on the nodes' segment.
    pub(crate) not_announced: Option<String>,
    /// One source port to NodePort, EXTERNAL-IP and a backend's own address.
    pub(crate) source_port_reuse: Option<String>,
    /// Requests that must be refused.
    pub(crate) refused: Option<String>,
    /// Traffic while the agents are away.
    pub(crate) agent_restart: Option<AgentRestart>,
}

/// An object.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ObjectRef {
    /// API version.
    pub(crate) api_version: String,
    /// Kind.
    pub(crate) kind: String,
    /// Name.
    pub(crate) name: String,
    /// Namespace; `default` if it is not given.
    pub(crate) namespace: Option<String>,
}

/// Something about one object that must become true, and stay so.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Assertion {
    /// The object.
    pub(crate) object: ObjectRef,
    /// Columns as `kubectl get` prints them, by their header in capitals.
    #[serde(default)]
    pub(crate) columns: BTreeMap<String, String>,
    /// Part of the object.
    #[serde(rename = "match")]
    pub(crate) subset: Option<Value>,
    /// Exactly one ingress address, inside this network.
    pub(crate) ingress_in: Option<ipnet::IpNet>,
    /// The object is not there.
    #[serde(default)]
    pub(crate) absent: bool,
    /// Seconds until it must be true.
    #[serde(default = "ten")]
    pub(crate) within: f64,
    /// Seconds that it must stay true then.
    #[serde(default)]
    pub(crate) stable: f64,
}

fn ten() -> f64 {
    10.0
}

/// The row of a resource.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ApiResourceRow {
    /// Plural name.
    pub(crate) name: String,
    /// Short names, in order.
    pub(crate) short_names: Vec<String>,
    /// Preferred version.
    pub(crate) api_version: String,
    /// Whether it has a namespace.
    pub(crate) namespaced: bool,
    /// Kind.
    pub(crate) kind: String,
}

/// A traffic matrix.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Matrix {
    /// Service in namespace `default`.
    pub(crate) service: String,
    /// Which of its ports.
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// Whether socket LB is on: which hooks must count.
    pub(crate) socket_lb: bool,
    /// Seconds in which a node may still lack frontends that others have, and then an answer, or a backend, may be missing.
    /// What is wrong fails at once.
    #[serde(default)]
    pub(crate) within: f64,
    /// Odds of calling two well-balanced backends one.
    #[serde(default = "one_in_a_million")]
    pub(crate) false_alarm: f64,
}

fn one_in_a_million() -> f64 {
    1e-6
}

/// Something that happens to a node. The step goes on when it has happened: after a restart everything that was ready
/// there has been started again and is ready, a node that was cut off does not answer any more, one that was joined does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeStep {
    /// The node.
    pub(crate) name: String,
    /// What happens to it. A link that is cut is joined at the scenario's end at the latest.
    pub(crate) action: NodeAction,
}

/// Protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Protocol {
    /// TCP, with HTTP in it.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// Traffic while the agents are away.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AgentRestart {
    /// Service in namespace `default` with a TCP and a UDP port.
    pub(crate) service: String,
    /// Seconds that the agents are kept away.
    pub(crate) away: f64,
    /// Remove the pins meanwhile: the control run, in which traffic must suffer.
    #[serde(default)]
    pub(crate) remove_pins: bool,
}

/// Reads and checks a file, whatever the cluster.
///
/// # Errors
/// With file, line and column.
pub(crate) fn load(path: &Path) -> Result<Scenario> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    parse(&text, &name).with_context(|| path.display().to_string())
}

/// Reads a file for a cluster of these nodes: roles (`${worker1}`) are replaced by their names.
///
/// # Errors
/// With file and line, also if no node has a role that the file names.
pub(crate) fn load_for(path: &Path, nodes: &[NodeInfo]) -> Result<Scenario> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let resolved = role::resolve(&text, nodes).with_context(|| path.display().to_string())?;
    serde_yaml::from_str(&resolved).with_context(|| path.display().to_string())
}

fn parse(text: &str, file: &str) -> Result<Scenario> {
    let scenario: Scenario = serde_yaml::from_str(text)?;
    if scenario.api_version != "e2e/v1" || scenario.kind != "Scenario" {
        bail!("this is no scenario: apiVersion must be e2e/v1 and kind Scenario");
    }
    if file != WALKTHROUGH {
        for (number, line) in text.lines().enumerate() {
            if let Some(network) = PUBLIC.iter().find(|network| line.contains(**network)) {
                bail!("line {}: {network}0/24 belongs to others on the internet; use 198.18.0.0/15", number + 1);
            }
        }
    }
    let named = role::workers(text)?;
    if named > scenario.spec.needs.workers {
        bail!("${{worker{named}}} is named, but spec.needs.workers is {}", scenario.spec.needs.workers);
    }
    let mut seen = std::collections::BTreeSet::new();
    for step in &scenario.spec.steps {
        if step.plant.is_some() != step.caught_by.is_some() {
            bail!("step {:?}: `plant` and `caughtBy` belong together", step.id);
        }
        if !seen.insert(&step.id) {
            bail!("two steps have the id {:?}", step.id);
        }
    }
    Ok(scenario)
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
