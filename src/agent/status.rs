//! What `portolan status` shows. Each value is read from the kernel or measured when it is asked for.

use std::path::Path;

use anyhow::Result;
use portolan_ebpf::{CONFIG_MASQUERADE, CONFIG_SOCKET_LB};
use serde::{Deserialize, Serialize};

use super::peers::Reachability;
use super::{CNI_CONF, CNI_CONF_NAME, Shared, peers};
use crate::datapath::{LinkName, SOCK_ADDRS, read};

/// A native device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Name.
    pub name: String,
    /// Address that masqueraded traffic gets there.
    pub address: String,
}

/// State of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the API server.
    pub kubernetes: String,
    /// Version of this agent.
    pub portolan: String,
    /// All programs of the Service datapath are attached.
    pub kube_proxy_replacement: bool,
    /// Native devices, the direct routing one first.
    pub devices: Vec<DeviceStatus>,
    /// Links that should be there and are not.
    pub missing_links: Vec<String>,
    /// Socket LB is attached and on.
    pub socket_lb: bool,
    /// Pod addresses in use.
    pub ipam_used: usize,
    /// Pod addresses there are.
    pub ipam_capacity: u32,
    /// The node's podCIDR.
    pub ipam_cidr: String,
    /// `BPF` if both programs are attached to every pod's veth, `Legacy` otherwise.
    pub host_routing: String,
    /// `BPF` if the programs are told to and are attached, `Disabled` otherwise.
    pub masquerading: String,
    /// Native-routing CIDR as the programs know it.
    pub native_routing_cidr: String,
    /// How programs are attached to devices.
    pub attach_mode: String,
    /// A CNI configuration is in place.
    pub cni_config: String,
    /// Frontends in the kernel.
    pub frontends: usize,
    /// Control loops whose last round went well.
    pub controllers_healthy: usize,
    /// Control loops.
    pub controllers_total: usize,
    /// Why others did not go well.
    pub controllers_failing: Vec<String>,
    /// Reachability of all nodes' agents.
    pub cluster_health: Reachability,
}

/// Looks at everything.
pub(super) async fn measure(shared: &Shared) -> Result<Status> {
    peers::round(shared).await;
    let attached: Vec<read::LinkView> =
        read::links(&shared.pins)?.into_iter().filter(|link| link.program_id != 0 && link.target != 0).collect();
    let attach_mode = attach_mode(&attached);
    let links: Vec<String> = attached.into_iter().map(|link| link.name).collect();
    let missing =
        |wanted: Vec<String>| -> Vec<String> { wanted.into_iter().filter(|name| !links.contains(name)).collect() };
    let mut service_links = vec![LinkName::device("to_lo", "lo").0];
    for native in &shared.natives {
        service_links.push(LinkName::device("from_netdev", &native.link.name).0);
        service_links.push(LinkName::device("to_netdev", &native.link.name).0);
    }
    let config = read::config(&shared.pins)?;
    let socket_wanted = config.flags & CONFIG_SOCKET_LB != 0;
    let socket_missing = missing(SOCK_ADDRS.iter().map(|(program, _)| LinkName::cgroup(program).0).collect());
    let (used, capacity, cidr, pods) = {
        let endpoints = shared.endpoints.lock().await;
        let (used, capacity, cidr) = endpoints.usage();
        (used, capacity, cidr, endpoints.devices())
    };
    let pod_links = ["from_pod", "to_pod"]
        .iter()
        .flat_map(|program| pods.iter().map(move |device| LinkName::device(program, device).0));
    let pod_missing = missing(pod_links.collect());
    let service_missing = missing(service_links);
    let attached = service_missing.is_empty();
    let frontends = read::tables(&shared.pins)?.frontends.keys().filter(|key| key.port != 0).count();
    let rounds = shared.health.snapshot();
    let sick = rounds.iter().filter(|(_, round)| !round.healthy);
    let mut missing_links = service_missing;
    missing_links.extend(pod_missing.iter().cloned());
    if socket_wanted {
        missing_links.extend(socket_missing.iter().cloned());
    }
    let mask = u32::from_be(config.native_v4_mask).count_ones();
    let network = std::net::Ipv4Addr::from(u32::from_be(config.native_v4_addr));
    let masquerading = attached && config.flags & CONFIG_MASQUERADE != 0;
    Ok(Status {
        kubernetes: shared.server_version.clone(),
        portolan: env!("CARGO_PKG_VERSION").to_owned(),
        kube_proxy_replacement: missing_links.is_empty() && shared.config.kube_proxy_replacement.0,
        devices: devices(shared),
        missing_links,
        socket_lb: socket_wanted && socket_missing.is_empty(),
        ipam_used: used,
        ipam_capacity: capacity,
        ipam_cidr: cidr.to_string(),
        host_routing: if attached && pod_missing.is_empty() { "BPF" } else { "Legacy" }.to_owned(),
        masquerading: if masquerading { "BPF" } else { "Disabled" }.to_owned(),
        native_routing_cidr: format!("{network}/{mask}"),
        attach_mode,
        cni_config: match std::fs::metadata(Path::new(CNI_CONF).join(CNI_CONF_NAME)) {
            Ok(_) => format!("/etc/cni/net.d/{CNI_CONF_NAME}"),
            Err(error) => format!("missing: {error}"),
        },
        frontends,
        controllers_healthy: rounds.len() - sick.clone().count(),
        controllers_total: rounds.len(),
        controllers_failing: sick.map(|(name, round)| format!("{name}: {}", round.message)).collect(),
        cluster_health: shared.peers.lock().await.reachability(),
    })
}

/// How the programs on devices are attached, as the kernel says it.
fn attach_mode(links: &[read::LinkView]) -> String {
    let on_devices = links.iter().filter(|link| link.mode != "cgroup").map(|link| link.mode.to_uppercase());
    let modes: std::collections::BTreeSet<String> = on_devices.collect();
    if modes.is_empty() { "none".to_owned() } else { modes.into_iter().collect::<Vec<_>>().join(", ") }
}

/// Native devices, the one with the node's address first.
fn devices(shared: &Shared) -> Vec<DeviceStatus> {
    let mut natives = shared.natives.clone();
    natives.sort_by_key(|native| native.address != shared.node_ip);
    natives
        .into_iter()
        .map(|native| DeviceStatus { name: native.link.name, address: native.address.to_string() })
        .collect()
}
