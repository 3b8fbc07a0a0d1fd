//! Pods on the nodes' own networks, one a node: from there a node's traffic is tried.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::super::install::{self, apply_one};
use super::super::{Cluster, NodeInfo};
use super::{ExistingCluster, LABEL, NETTOOL};

/// Namespace of the pods.
pub(crate) const NAMESPACE: &str = "portolan-e2e";
/// Image of the pods, the same that scenarios use.
const IMAGE: &str = "docker.io/portolan/nettool:dev";
/// Time for the pods to start.
const START: Duration = Duration::from_secs(60);

/// The pod of a node.
pub(crate) fn place(node: &str) -> String {
    format!("host-{node}")
}

/// Refuses to play where another run does.
///
/// # Errors
/// If the namespace is there already.
pub(crate) async fn refuse_second(client: &Client) -> Result<()> {
    if Api::<Namespace>::all(client.clone()).get_opt(NAMESPACE).await?.is_some() {
        bail!(
            "namespace {NAMESPACE} is there: another run plays on this cluster, or a dead one has left it; `gc --provider \
             existing` with the same kubeconfig removes everything with the label {LABEL}"
        );
    }
    Ok(())
}

/// Makes the namespace and the pods, and waits until they run.
///
/// # Errors
/// If a pod does not start, with the reason.
pub(crate) async fn start(client: &Client, cluster: &ExistingCluster) -> Result<()> {
    apply_one(client, &namespace()).await?;
    for node in cluster.nodes() {
        apply_one(client, &pod(node)).await?;
    }
    let deadline = Instant::now() + START;
    loop {
        let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE).list(&ListParams::default()).await?;
        let waiting = pods.items.iter().filter(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase != Some("Running")
        });
        let names: Vec<String> = waiting.map(ResourceExt::name_any).collect();
        if names.is_empty() && pods.items.len() == cluster.nodes().len() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let why = install::waiting_pods(client, NAMESPACE).await?;
            bail!(
                "pods {} of namespace {NAMESPACE} do not run after {START:?}:\n  {}\nthe image {IMAGE} must be in the nodes: \
                 `cargo xtask images DIR` writes it as an archive, for `kind load image-archive`, `ctr images import` or a \
                 registry",
                names.join(", "),
                why.join("\n  ")
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {LABEL: "true", "pod-security.kubernetes.io/enforce": "privileged"}}})
}

fn pod(node: &NodeInfo) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
    "metadata": {"name": place(&node.name), "namespace": NAMESPACE, "labels": {LABEL: "true"}},
    "spec": {
        "nodeName": node.name, "hostNetwork": true, "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}], "automountServiceAccountToken": false,
        "containers": [{
            "name": "host", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": [NETTOOL, "hold"],
            // Questions by ARP are packets of its own making.
            "securityContext": {"capabilities": {"add": ["NET_RAW"]}},
        }],
    }})
}
