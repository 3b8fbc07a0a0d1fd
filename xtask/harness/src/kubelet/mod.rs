//! The harness's kubelet: PID 1 of a node, real pods as namespaces, against a real API server.

mod attach;
mod auth;
mod cni;
pub(crate) mod container;
mod downward;
mod events;
mod exec;
mod handlers;
mod inside;
mod launch;
mod lifecycle;
mod logs;
mod node;
mod payload;
mod port_forward;
mod probes;
mod reap;
mod sandbox;
mod security;
mod server;
mod services;
mod spdy;
mod spec;
mod status;
mod streams;
mod supported;
mod terminal;
mod volumes;
mod within;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, ResourceExt};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Capabilities of an unprivileged container: the defaults of container engines.
pub(crate) const DEFAULT_CAPABILITIES: [u8; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

/// Root of the kubelet's files on the node.
pub(crate) const ROOT: &str = "/var/lib/kubelet";
/// Records of running pods, for the harness: uid, then container names.
pub(crate) const RECORDS: &str = "/run/kubelet";
/// Logs of pods.
pub(crate) const LOGS: &str = "/var/log/pods";
/// The node's cgroup, as the node sees it.
pub(crate) const CGROUP: &str = "/sys/fs/cgroup";

/// What a kubelet needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KubeletConfig {
    /// Name of the Node.
    pub(crate) node_name: String,
    /// Its InternalIP.
    pub(crate) node_ip: Ipv4Addr,
    /// Credentials towards the API server.
    pub(crate) kubeconfig: PathBuf,
    /// Who signs those that may ask the kubelet.
    pub(crate) client_ca: PathBuf,
    /// Certificate of the kubelet's own server.
    pub(crate) serving_cert: PathBuf,
    /// Its key.
    pub(crate) serving_key: PathBuf,
    /// Taints to register with: key and effect.
    pub(crate) taints: Vec<(String, String)>,
}

/// What all parts of the kubelet share.
pub(crate) struct Kubelet {
    pub(crate) config: KubeletConfig,
    pub(crate) client: Client,
    pub(crate) events: events::Events,
    /// Pods of this node by uid, in their newest state.
    pub(crate) pods: Mutex<BTreeMap<String, Pod>>,
    /// Programs of containers, for those who attach.
    pub(crate) running: attach::Running,
}

impl Kubelet {
    /// A pod of this node as the API server has it.
    fn newest(&self, uid: &str) -> Option<Pod> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }
}

/// Runs the kubelet until it is killed. As PID 1 of a node it starts itself once more and reaps the node's orphans: the
/// processes that the kubelet itself has started must stay its own to wait for. A node ends with its kubelet and has no
/// disk: of pods that an earlier one has run, only the API server still knows.
///
/// # Errors
/// If it cannot start.
pub(crate) fn run(config: &Path) -> Result<i32> {
    if std::process::id() == 1 {
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg("kubelet").arg("--config").arg(config);
        return reap::run(&mut command, || {}).context("running the kubelet");
    }
    let config: KubeletConfig = serde_json::from_slice(&std::fs::read(config)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(config)).map(|()| 0)
}

async fn serve(config: KubeletConfig) -> Result<()> {
    std::fs::create_dir_all(RECORDS)?;
    std::fs::create_dir_all("/run/netns")?;
    let kubeconfig = kube::config::Kubeconfig::read_from(&config.kubeconfig)?;
    let client_config = Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    let client = Client::try_from(client_config)?;
    let kubelet = Arc::new(Kubelet {
        events: events::Events::start(client.clone(), &config.node_name),
        config,
        client,
        pods: Mutex::default(),
        running: attach::Running::default(),
    });
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(server::run(kubelet.clone()));
    tasks.spawn(node::run(kubelet.clone()));
    tasks.spawn(pods(kubelet));
    match tasks.join_next().await {
        Some(Ok(Err(error))) => Err(error),
        other => bail!("a part of the kubelet ended: {other:?}"),
    }
}

/// Follows the pods of this node; each has a worker that sees its newest state.
async fn pods(kubelet: Arc<Kubelet>) -> Result<()> {
    // A watch that begins before the API server answers would be in back-off when it does.
    node::wait_for_version(&kubelet).await;
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", kubelet.config.node_name));
    let api = Api::<Pod>::all(kubelet.client.clone());
    let mut events = watcher::watcher(api, mine).default_backoff().boxed();
    let mut workers: HashMap<String, watch::Sender<Option<Pod>>> = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                workers.retain(|_, sender| !sender.is_closed());
                let uid = pod.uid().unwrap_or_default();
                kubelet.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), pod.clone());
                if let Some(sender) = workers.get(&uid) {
                    sender.send_replace(Some(pod));
                } else if !finished(&pod) {
                    let (sender, receiver) = watch::channel(Some(pod));
                    tokio::spawn(worker::run(kubelet.clone(), receiver));
                    workers.insert(uid, sender);
                }
            }
            Ok(watcher::Event::Delete(pod)) => {
                let uid = pod.uid().unwrap_or_default();
                kubelet.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
                if let Some(sender) = workers.get(&uid) {
                    sender.send_replace(None);
                }
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => eprintln!("watching pods: {error}"),
        }
    }
    bail!("the watch of pods ended")
}

fn finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Identity of a pod on this node.
#[derive(Clone, Debug)]
pub(crate) struct PodId {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl PodId {
    pub(crate) fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        Path::new(ROOT).join("pods").join(&self.uid)
    }

    pub(crate) fn cgroup(&self) -> PathBuf {
        Path::new(CGROUP).join("kubepods").join(format!("pod{}", self.uid))
    }

    pub(crate) fn record(&self) -> PathBuf {
        Path::new(RECORDS).join(format!("{}_{}", self.namespace, self.name))
    }

    pub(crate) fn log_dir(&self, container: &str) -> PathBuf {
        Path::new(LOGS).join(format!("{}_{}_{}", self.namespace, self.name, self.uid)).join(container)
    }

    pub(crate) fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.uid)
    }
}

/// The running container's PID 1, found by its cgroup.
pub(crate) fn container_pid(id: &PodId, container: &str) -> Result<i32> {
    crate::sys::init_of(&id.cgroup().join(container))
        .with_context(|| format!("container {container} of {}/{} does not run", id.namespace, id.name))
}
