//! The agent: one per node. It loads the datapath, keeps it true to the API server, and answers the CNI plugin. When it
//! dies the datapath goes on without it.

mod endpoints;
pub mod nodes;
mod peers;
mod server;
pub mod services;
pub mod status;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use portolan_ebpf::{CONFIG_MASQUERADE, CONFIG_SOCKET_LB, DeviceVal, NodeConfig};
use tokio::sync::Mutex;

use crate::api::config::{self, Config};
use crate::datapath::Datapath;
use crate::node::devices::{self, Native};
use crate::node::kernel;
use crate::sys::netlink::Netlink;
use crate::sys::{bpf, cgroup};
use crate::telemetry::{self, health::Health};

/// BPF file system of the node.
pub const BPFFS: &str = "/sys/fs/bpf";
/// The node's cgroup mount as the pod sees it.
const CGROUP: &str = "/host/sys/fs/cgroup";
/// State that lives as long as the node's pods.
pub const ENDPOINTS: &str = "/run/portolan/endpoints";
/// Directory of CNI configurations on the node as the pod sees it.
const CNI_CONF: &str = "/host/etc/cni/net.d";
/// Name of our configuration there.
pub const CNI_CONF_NAME: &str = "05-portolan.conflist";
/// Port of the health server, and of the probes between nodes.
pub const HEALTH_PORT: u16 = 4240;
/// SNAT draws source ports from here up: above the node ports, up to the last.
const SNAT_PORTS: (u16, u16) = (32768, 65535);
/// Kubernetes' default service-node-port-range.
const NODE_PORTS: (u16, u16) = (30000, 32767);
/// How often own addresses are looked at: an added one serves NodePorts within this time.
const ADDRESS_PERIOD: Duration = Duration::from_secs(1);
/// How often the links are looked at: without one, traffic goes another way or nowhere.
const LINKS_PERIOD: Duration = Duration::from_secs(1);
/// How often the kernel's maps are compared with what was written, and flows are swept. A difference means that
/// somebody else wrote; that is rare, and the comparison reads all entries.
const AUDIT_PERIOD: Duration = Duration::from_secs(30);

/// What all loops of the agent share.
pub(crate) struct Shared {
    config: Config,
    client: Client,
    node_name: String,
    node_ip: Ipv4Addr,
    pod_cidr: Ipv4Net,
    natives: Vec<Native>,
    datapath: Arc<Mutex<Datapath>>,
    pins: PathBuf,
    endpoints: Mutex<endpoints::Endpoints>,
    peers: Mutex<peers::Peers>,
    own: Mutex<BTreeSet<Ipv4Addr>>,
    health: Health,
    server_version: String,
}

/// Runs the agent until SIGTERM.
///
/// # Errors
/// If it cannot start; later failures are retried and show in the health of the loop.
pub async fn run(config_path: &Path) -> Result<()> {
    let config = Config::load(config_path)?;
    telemetry::init(&config.debug);
    let node_name = env("NODE_NAME")?;
    let node_ip: Ipv4Addr = env("NODE_IP")?.parse().context("NODE_IP is no IPv4 address")?;
    let client = crate::k8s::client::connect(&config).await?;
    let server_version = client.apiserver_version().await.context("asking the API server for its version")?.git_version;
    let pod_cidr = nodes::wait_for_pod_cidr(&Api::<Node>::all(client.clone()), &node_name).await?;
    kernel::prepare()?;
    let natives = devices::native(&mut Netlink::open()?, &config.devices, node_ip)?;
    let datapath = start_datapath(&config, node_ip, &natives)?;
    let pins = datapath.pins().to_path_buf();
    let mtu = natives.iter().map(|native| native.link.mtu).min().unwrap_or(1500);
    let shared = Arc::new(Shared {
        endpoints: Mutex::new(endpoints::Endpoints::open(Path::new(ENDPOINTS), pod_cidr, mtu)?),
        datapath: Arc::new(Mutex::new(datapath)),
        peers: Mutex::default(),
        own: Mutex::default(),
        health: Health::default(),
        config,
        client,
        node_name,
        node_ip,
        pod_cidr,
        natives,
        pins,
        server_version,
    });
    serve(shared).await
}

async fn serve(shared: Arc<Shared>) -> Result<()> {
    nodes::refresh_own_addresses(&shared).await?;
    shared.endpoints.lock().await.restore(&mut *shared.datapath.lock().await)?;
    let mut tasks = tokio::task::JoinSet::new();
    let (nodes_synced, nodes_ready) = tokio::sync::oneshot::channel();
    let (services_synced, services_ready) = tokio::sync::oneshot::channel();
    tasks.spawn({
        let (client, health) = (shared.client.clone(), shared.health.clone());
        let shared = shared.clone();
        async move { nodes::run(client, &shared.node_name, shared.clone(), health, nodes_synced).await }
    });
    let services = services::Services {
        client: shared.client.clone(),
        maps: shared.datapath.clone(),
        health: shared.health.clone(),
        enabled: shared.config.kube_proxy_replacement.0,
    };
    tasks.spawn(services::run(services, services_synced));
    tasks.spawn(own_addresses(shared.clone()));
    tasks.spawn(sweep_flows(shared.clone()));
    tasks.spawn(keep_links(shared.clone()));
    let ready = async {
        nodes_ready.await.context("the node loop ended")?;
        services_ready.await.context("the service loop ended")?;
        shared.datapath.lock().await.remove_other_shapes()?;
        let listener = server::listen(Path::new(crate::cni::SOCKET))?;
        write_cni_conf(Path::new(CNI_CONF))?;
        Ok::<_, anyhow::Error>(listener)
    };
    let listener = tokio::select! {
        listener = ready => listener?,
        Some(ended) = tasks.join_next() => bail!("a loop ended before the agent was ready: {ended:?}"),
        () = terminated() => return Ok(()),
    };
    tracing::info!(node = shared.node_name, pod_cidr = %shared.pod_cidr, "ready");
    tasks.spawn(server::run(shared.clone(), listener));
    tasks.spawn(peers::serve_health(shared.clone()));
    tasks.spawn(peers::probe(shared.clone()));
    tokio::select! {
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(())) => bail!("a loop ended"),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error).context("a loop died"),
        },
        () = terminated() => {
            tracing::info!("terminating; the datapath stays");
            Ok(())
        }
    }
}

fn env(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("environment variable {name} (a downward API field) is not set"))
}

/// Default place of the configuration.
#[must_use]
pub fn default_config() -> PathBuf {
    PathBuf::from(config::PATH)
}

fn start_datapath(config: &Config, node_ip: Ipv4Addr, natives: &[Native]) -> Result<Datapath> {
    let mut datapath = Datapath::open(Path::new(BPFFS))?;
    let mut flags = 0;
    if config.bpf.masquerade {
        flags |= CONFIG_MASQUERADE;
    }
    if config.socket_lb.enabled && config.kube_proxy_replacement.0 {
        flags |= CONFIG_SOCKET_LB;
    }
    let lo = Netlink::open()?.link("lo")?.context("there is no device lo")?;
    let native_cidr = config.ipv4_native_routing_cidr;
    datapath.configure(NodeConfig {
        host_netns_cookie: bpf::netns_cookie().context("SO_NETNS_COOKIE needs Linux 5.14")?,
        native_v4_addr: u32::from(native_cidr.network()).to_be(),
        native_v4_mask: u32::from(native_cidr.netmask()).to_be(),
        snat_port_min: SNAT_PORTS.0,
        snat_port_max: SNAT_PORTS.1,
        flags,
        node_port_min: NODE_PORTS.0,
        node_port_max: NODE_PORTS.1,
        lo_ifindex: lo.index,
        node_v4: u32::from(node_ip).to_be(),
        pad: 0,
    })?;
    for native in natives {
        let addr = portolan_ebpf::Addr::from_v4_be(u32::from(native.address).to_be());
        datapath.put_device(native.link.index, DeviceVal { addr, mac: native.link.mac, pad: [0; 2] })?;
        datapath.attach_device(&native.link.name)?;
    }
    datapath.attach_lo()?;
    let root = cgroup::v2_root(Path::new(CGROUP)).with_context(|| {
        format!("no cgroup v2 at {CGROUP} or {CGROUP}/unified; mount the node's /sys/fs/cgroup there")
    })?;
    datapath.socket_lb(&root, flags & CONFIG_SOCKET_LB != 0)?;
    Ok(datapath)
}

/// The node turns Ready by this file, so it is written when ADD can be answered. It stays when the agent goes: ADD then
/// fails with "try again later" instead of the node falling NotReady.
fn write_cni_conf(dir: &Path) -> Result<()> {
    let document = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "portolan",
        "plugins": [{"type": "portolan-cni"}],
    });
    let path = dir.join(CNI_CONF_NAME);
    let temporary = dir.join(format!(".{CNI_CONF_NAME}.tmp"));
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    std::fs::write(&temporary, serde_json::to_vec_pretty(&document)?)
        .and_then(|()| std::fs::rename(&temporary, &path))
        .with_context(|| format!("writing {}", path.display()))
}

async fn own_addresses(shared: Arc<Shared>) -> Result<()> {
    let mut tick = tokio::time::interval(ADDRESS_PERIOD);
    loop {
        tick.tick().await;
        shared.health.note("own-addresses", nodes::refresh_own_addresses(&shared).await);
    }
}

async fn keep_links(shared: Arc<Shared>) -> Result<()> {
    let mut tick = tokio::time::interval(LINKS_PERIOD);
    loop {
        tick.tick().await;
        let repaired = shared.datapath.lock().await.repair_links();
        if let Some(links) = shared.health.note("links", repaired)
            && !links.is_empty()
        {
            tracing::warn!(?links, "links were removed by somebody else; attached them again");
        }
    }
}

async fn sweep_flows(shared: Arc<Shared>) -> Result<()> {
    let mut tick = tokio::time::interval(AUDIT_PERIOD);
    loop {
        tick.tick().await;
        let pins = shared.pins.clone();
        let swept = tokio::task::spawn_blocking(move || {
            let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
            let now = Duration::from(now).as_nanos();
            crate::datapath::flows::sweep(&pins, u64::try_from(now)?)
        })
        .await?;
        if let Some((removed, kept)) = shared.health.note("flow-gc", swept) {
            tracing::debug!(removed, kept, "swept the flow table");
        }
    }
}

async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::error!(%error, "cannot listen for SIGTERM");
            std::future::pending::<()>().await;
        }
    }
}
