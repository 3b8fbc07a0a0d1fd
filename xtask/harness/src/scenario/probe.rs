//! Running the probe tool in places of the cluster, and reading the datapath's counters.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::format::Protocol;
use crate::cluster::{Cluster, Place};
use crate::sys;

/// The probe tool, the same path everywhere.
pub(super) const NETTOOL: &str = "/.portolan-tools/nettool";

/// A command that runs and will print JSON.
pub(super) struct Asking {
    child: Child,
    what: String,
}

impl Asking {
    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started there.
    pub(super) fn start(cluster: &dyn Cluster, place: &Place, argv: &[&str]) -> Result<Self> {
        let argv: Vec<String> = argv.iter().map(|arg| (*arg).to_owned()).collect();
        let what = format!("{argv:?} in {place:?}");
        let mut command = cluster.command(place, &argv)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::die_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("starting {what}"))?;
        Ok(Self { child, what })
    }

    /// Waits for its end and parses what it has printed.
    ///
    /// # Errors
    /// With its standard error.
    pub(super) fn finish(self) -> Result<Value> {
        let output = self.child.wait_with_output().with_context(|| format!("waiting for {}", self.what))?;
        if !output.status.success() {
            bail!("{}: {}: {}", self.what, output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("reading the output of {}", self.what))
    }
}

/// Runs a command to its end and parses what it prints as JSON.
///
/// # Errors
/// With its standard error.
pub(super) fn json(cluster: &dyn Cluster, place: &Place, argv: &[&str]) -> Result<Value> {
    Asking::start(cluster, place, argv)?.finish()
}

/// The agent's pod on a node.
///
/// # Errors
/// If there is none.
pub(crate) async fn agent(client: &Client, node: &str) -> Result<Place> {
    let params = ListParams::default()
        .labels("app.kubernetes.io/name=portolan-agent")
        .fields(&format!("spec.nodeName={node},status.phase=Running"));
    let pods = Api::<Pod>::namespaced(client.clone(), "kube-system").list(&params).await?;
    let running = pods.items.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
    let pod = running.with_context(|| format!("no agent runs on {node}"))?;
    Ok(Place::Pod { namespace: "kube-system".into(), pod: pod.name_any(), container: Some("agent".into()) })
}

/// Counters of a node by hook and event.
pub(super) type Counters = BTreeMap<String, BTreeMap<String, u64>>;

/// The agents' pods by node.
pub(super) type Agents = BTreeMap<String, Place>;

/// The agents of all nodes.
///
/// # Errors
/// If a node has none.
pub(super) async fn agents(client: &Client, cluster: &dyn Cluster) -> Result<Agents> {
    let asked = cluster
        .nodes()
        .iter()
        .map(|node| async { Ok::<_, anyhow::Error>((node.name.clone(), agent(client, &node.name).await?)) });
    let agents: Vec<_> = futures::future::try_join_all(asked).await?;
    Ok(agents.into_iter().collect())
}

/// Runs a command in the pods of these agents, in all of them at once, and parses what each prints as JSON.
///
/// # Errors
/// If an agent's container does not run, or with its standard error.
pub(super) fn ask_agents(cluster: &dyn Cluster, agents: &Agents, argv: &[&str]) -> Result<BTreeMap<String, Value>> {
    let asking: Vec<_> = agents
        .iter()
        .map(|(node, agent)| Ok((node.clone(), Asking::start(cluster, agent, argv)?)))
        .collect::<Result<_>>()?;
    asking.into_iter().map(|(node, asking)| Ok((node, asking.finish()?))).collect()
}

/// Reads the counters of these agents' nodes from their kernels.
///
/// # Errors
/// If an agent's container does not run.
pub(super) fn counters(cluster: &dyn Cluster, agents: &Agents) -> Result<BTreeMap<String, Counters>> {
    let values = ask_agents(cluster, agents, &["/usr/bin/portolan", "bpf", "counters", "-o", "json"])?;
    let read = |(node, value)| Ok((node, serde_json::from_value(value).context("reading counters")?));
    values.into_iter().map(read).collect()
}

/// How far a counter moved.
pub(super) fn moved(before: &Counters, after: &Counters, hook: &str, event: &str) -> u64 {
    let value = |all: &Counters| all.get(hook).and_then(|events| events.get(event)).copied().unwrap_or(0);
    value(after).saturating_sub(value(before))
}

/// A pod behind a Service, as the API server and the pod's own namespace know it.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) pod: String,
    pub(super) address: String,
    pub(super) node: String,
    pub(super) cookie: u64,
}

/// A port of a Service with what a client dials and who should answer.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    pub(super) cluster_ip: String,
    /// Of the load balancer.
    pub(super) external_ip: Option<String>,
    /// `spec.externalIPs`.
    pub(super) external_ips: Vec<String>,
    pub(super) port: i32,
    pub(super) node_port: Option<i32>,
    pub(super) backends: Vec<Backend>,
}

impl Target {
    /// A URL that the probe understands.
    pub(super) fn url(&self, address: &dyn std::fmt::Display, port: i32) -> String {
        match self.protocol {
            Protocol::Tcp => format!("http://{address}:{port}/"),
            Protocol::Udp => format!("udp://{address}:{port}"),
        }
    }
}

/// Reads a Service, its first port of that protocol, and its pods. Each pod's cookie is read in the pod, not from an
/// answer.
///
/// # Errors
/// If there is no such Service or port, or a pod does not run.
pub(super) async fn target(client: &Client, cluster: &dyn Cluster, name: &str, protocol: Protocol) -> Result<Target> {
    let service = Api::<Service>::namespaced(client.clone(), "default").get(name).await?;
    let spec = service.spec.context("a service has a spec")?;
    let selector: Vec<String> = spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    let params = ListParams::default().labels(&selector.join(","));
    let pods = match selector.is_empty() {
        true => Vec::new(),
        false => Api::<Pod>::namespaced(client.clone(), "default").list(&params).await?.items,
    };
    let backends = backends(cluster, pods)?;
    let ingress = service.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    let wanted = format!("{protocol:?}").to_uppercase();
    let mut ports = spec.ports.iter().flatten();
    let port = ports
        .find(|port| port.protocol.as_deref().unwrap_or("TCP") == wanted)
        .with_context(|| format!("service {name} has no {wanted} port"))?;
    Ok(Target {
        protocol,
        external_ips: spec.external_ips.clone().unwrap_or_default(),
        cluster_ip: spec.cluster_ip.unwrap_or_default(),
        external_ip: ingress.into_iter().flatten().find_map(|entry| entry.ip),
        port: port.port,
        node_port: port.node_port,
        backends,
    })
}

/// These pods, without those that are going away. All are asked at once who they are.
fn backends(cluster: &dyn Cluster, pods: Vec<Pod>) -> Result<Vec<Backend>> {
    let staying = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let asking: Vec<_> = staying
        .map(|pod| {
            let place = Place::Pod { namespace: "default".into(), pod: pod.name_any(), container: None };
            Ok((pod, Asking::start(cluster, &place, &[NETTOOL, "whoami"])?))
        })
        .collect::<Result<_>>()?;
    let told = asking.into_iter().map(|(pod, asking)| {
        let (name, who) = (pod.name_any(), asking.finish()?);
        let address = pod.status.and_then(|status| status.pod_ip);
        Ok(Backend {
            address: address.with_context(|| format!("pod {name} has no address"))?,
            node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
            cookie: who["netns_cookie"].as_u64().context("whoami has no netns_cookie")?,
            pod: name,
        })
    });
    told.collect()
}

/// What an answer claims: the pod and its address, in the body of an HTTP answer or in an echoed datagram.
pub(super) fn claim(answer: &Value) -> Option<(&str, &str)> {
    match answer["body"].as_str() {
        Some(body) => {
            let (pod, address) = body.strip_prefix("PodName: ")?.split_once(" | PodIP: eth0 ")?;
            Some((pod, address.trim_end().strip_suffix("/32")?))
        }
        None => Some((answer["whoami"]["pod"].as_str()?, answer["whoami"]["address"].as_str()?)),
    }
}
