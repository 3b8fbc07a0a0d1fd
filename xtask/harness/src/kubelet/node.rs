//! The Node object: registered by the kubelet, Ready once a CNI configuration is there, kept alive by a Lease.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::Kubelet;

/// Where the CNI configuration is looked for.
pub(super) const CNI_CONF: &str = "/etc/cni/net.d";
/// Renewal of the Lease, as the real kubelet does it.
const LEASE: Duration = Duration::from_secs(10);
/// How often the CNI directory is looked at.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn run(kubelet: Arc<Kubelet>) -> Result<()> {
    let version = wait_for_version(&kubelet).await;
    register(&kubelet, &version).await;
    let nodes = Api::<Node>::all(kubelet.client.clone());
    let mut said: Option<bool> = None;
    let mut renewed: Option<std::time::Instant> = None;
    loop {
        let ready = std::fs::read_dir(CNI_CONF).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with("list")))
        });
        let heartbeat = renewed.is_none_or(|at| at.elapsed() >= LEASE);
        if said != Some(ready) || heartbeat {
            let status = json!({"status": status(&kubelet, ready, &version)});
            match nodes
                .patch_status(&kubelet.config.node_name, &PatchParams::default(), &Patch::Strategic(&status))
                .await
            {
                Ok(_) => said = Some(ready),
                Err(error) => eprintln!("writing the node's status: {error}"),
            }
        }
        if heartbeat {
            match renew(&kubelet).await {
                Ok(()) => renewed = Some(std::time::Instant::now()),
                Err(error) => eprintln!("renewing the node's lease: {error:#}"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The version to report is the API server's: a kubelet may not be newer.
pub(super) async fn wait_for_version(kubelet: &Kubelet) -> String {
    loop {
        match kubelet.client.apiserver_version().await {
            Ok(version) => return version.git_version,
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn register(kubelet: &Kubelet, version: &str) {
    let nodes = Api::<Node>::all(kubelet.client.clone());
    let config = &kubelet.config;
    let taints: Vec<Value> = config.taints.iter().map(|(key, effect)| json!({"key": key, "effect": effect})).collect();
    let document = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": config.node_name, "labels": {
            "kubernetes.io/hostname": config.node_name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": "amd64",
        }},
        "spec": {"taints": taints},
        "status": status(kubelet, false, version),
    });
    loop {
        let created = match serde_json::from_value::<Node>(document.clone()) {
            Ok(node) => nodes.create(&PostParams::default(), &node).await,
            Err(error) => Err(kube::Error::SerdeError(error)),
        };
        match created {
            Ok(_) => return,
            Err(kube::Error::Api(answer)) if answer.code == 409 => return,
            Err(error) => eprintln!("registering the node: {error}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn status(kubelet: &Kubelet, ready: bool, version: &str) -> Value {
    let now = now();
    let condition = |kind: &str, status: bool, reason: &str, message: &str| {
        json!({"type": kind, "status": if status { "True" } else { "False" }, "reason": reason, "message": message,
               "lastHeartbeatTime": now})
    };
    let (reason, message) = if ready {
        ("KubeletReady", "kubelet is posting ready status")
    } else {
        (
            "KubeletNotReady",
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized",
        )
    };
    let file = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let resources = json!({"cpu": cpus().to_string(), "memory": format!("{}Ki", memory_kib()), "pods": "110"});
    let os = file("/etc/os-release");
    let pretty = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    json!({
        "addresses": [
            {"type": "InternalIP", "address": kubelet.config.node_ip},
            {"type": "Hostname", "address": kubelet.config.node_name},
        ],
        "capacity": resources, "allocatable": resources,
        "conditions": [
            condition("MemoryPressure", false, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", ready, reason, message),
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": kubelet.config.node_name, "systemUUID": kubelet.config.node_name,
            "bootID": file("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": file("/proc/sys/kernel/osrelease"), "osImage": pretty,
            "containerRuntimeVersion": concat!("portolan-e2e://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": version, "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
        },
    })
}

/// CPUs of the node.
pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Memory of the node in KiB; 0 if the kernel does not say.
pub(super) fn memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

pub(super) fn now() -> String {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string()
}

async fn renew(kubelet: &Kubelet) -> Result<()> {
    let api = Api::<Lease>::namespaced(kubelet.client.clone(), "kube-node-lease");
    let name = &kubelet.config.node_name;
    let renewed = json!({"spec": {
        "holderIdentity": name, "leaseDurationSeconds": 40,
        "renewTime": format!("{:.6}", Timestamp::now()),
    }});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&renewed)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            let mut lease: Lease = serde_json::from_value(renewed)?;
            lease.metadata.name = Some(name.clone());
            api.create(&PostParams::default(), &lease).await.context("creating the lease").map(drop)
        }
        Err(error) => Err(error).context("patching the lease"),
    }
}
