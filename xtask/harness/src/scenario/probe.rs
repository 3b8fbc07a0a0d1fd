//! Running the probe tool in places of the cluster, and reading the datapath's counters.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::cluster::{Cluster, Place};

/// The probe tool, the same path everywhere.
pub(super) const NETTOOL: &str = "/.portolan-tools/nettool";

/// Runs a command to its end and parses what it prints as JSON.
///
/// # Errors
/// With its standard error.
pub(super) fn json(cluster: &dyn Cluster, place: &Place, argv: &[&str]) -> Result<Value> {
    let argv: Vec<String> = argv.iter().map(|arg| (*arg).to_owned()).collect();
    let output = cluster.command(place, &argv)?.output().with_context(|| format!("starting {argv:?} in {place:?}"))?;
    if !output.status.success() {
        bail!("{argv:?} in {place:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("reading the output of {argv:?} in {place:?}"))
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

/// Reads a node's counters from its kernel.
///
/// # Errors
/// If the agent's container does not run.
pub(super) fn counters(cluster: &dyn Cluster, agent: &Place) -> Result<Counters> {
    let value = json(cluster, agent, &["/usr/bin/portolan", "bpf", "counters", "-o", "json"])?;
    serde_json::from_value(value).context("reading counters")
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

/// A Service with what a client dials and who should answer.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) cluster_ip: String,
    pub(super) external_ip: Option<String>,
    pub(super) port: i32,
    pub(super) node_port: Option<i32>,
    pub(super) backends: Vec<Backend>,
}

/// Reads a Service and its pods. Each pod's cookie is read in the pod, not from an answer.
///
/// # Errors
/// If there is no such Service, or a pod does not run.
pub(super) async fn target(client: &Client, cluster: &dyn Cluster, name: &str) -> Result<Target> {
    let service = Api::<Service>::namespaced(client.clone(), "default").get(name).await?;
    let spec = service.spec.context("a service has a spec")?;
    let selector: Vec<String> = spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    let params = ListParams::default().labels(&selector.join(","));
    let mut backends = Vec::new();
    if !selector.is_empty() {
        for pod in Api::<Pod>::namespaced(client.clone(), "default").list(&params).await? {
            if pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let name = pod.name_any();
            let place = Place::Pod { namespace: "default".into(), pod: name.clone(), container: None };
            let who = json(cluster, &place, &[NETTOOL, "whoami"])?;
            backends.push(Backend {
                address: pod
                    .status
                    .and_then(|status| status.pod_ip)
                    .with_context(|| format!("pod {name} has no address"))?,
                node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
                cookie: who["netns_cookie"].as_u64().context("whoami has no netns_cookie")?,
                pod: name,
            });
        }
    }
    let ingress = service.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    let port = spec.ports.as_ref().and_then(|ports| ports.first()).context("a service has a port")?;
    Ok(Target {
        cluster_ip: spec.cluster_ip.unwrap_or_default(),
        external_ip: ingress.into_iter().flatten().find_map(|entry| entry.ip),
        port: port.port,
        node_port: port.node_port,
        backends,
    })
}

/// What an HTTP answer claims: the pod and address in its body.
pub(super) fn claim(body: &str) -> Option<(&str, IpAddr)> {
    let rest = body.strip_prefix("PodName: ")?;
    let (pod, rest) = rest.split_once(" | PodIP: eth0 ")?;
    let address = rest.trim_end().strip_suffix("/32")?.parse().ok()?;
    Some((pod, address))
}
