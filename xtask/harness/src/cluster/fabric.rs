//! The network between the nodes: a bridge in a namespace of its own, a router, and `lan` behind it. There is no way out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

use super::Role;
use super::layout::{BY_WORKER, LAN, NodeState, ROUTER, ROUTER_LAN};
use super::links::{self, Links};
use crate::sys;

/// The bridge between the nodes.
const BRIDGE: &str = "br0";
/// Prefix length of the nodes' segment.
const SEGMENT_PREFIX: u8 = 16;
/// Prefix length of the segment of `lan`.
const LAN_PREFIX: u8 = 24;

/// The bridge's port for the node of that number.
fn port(number: usize) -> String {
    format!("node{number}")
}

/// Network namespaces of a cluster by name: `fabric`, `router`, `lan`, and the nodes'.
pub(crate) struct Fabric {
    pub(crate) namespaces: BTreeMap<String, OwnedFd>,
}

impl Fabric {
    /// Makes all namespaces and links them.
    ///
    /// # Errors
    /// With the link, address or route that the kernel refused.
    pub(crate) fn create(nodes: &[NodeState]) -> Result<Self> {
        let mut namespaces = BTreeMap::new();
        let names = ["fabric", "router", "lan"].map(str::to_owned).into_iter();
        for name in names.chain(nodes.iter().map(|node| node.name.clone())) {
            namespaces.insert(name, sys::new_netns().context("making a network namespace")?);
        }
        let fabric = Self { namespaces };
        fabric.within("fabric", async |links| {
            links.set("lo", true).await?;
            links.add_bridge(BRIDGE).await
        })?;
        for (number, node) in nodes.iter().enumerate() {
            fabric.node(number, node)?;
        }
        fabric.router(nodes)?;
        Ok(fabric)
    }

    /// Gives a node that starts again a network of its own without a past, with the addresses it had.
    ///
    /// # Errors
    /// With the link, address or route that the kernel refused.
    pub(crate) fn renew(&mut self, number: usize, node: &NodeState) -> Result<()> {
        // The old namespace ends when the kernel comes to it; its device would keep the port's name until then.
        self.within("fabric", async |links| links.delete(&port(number)).await)?;
        self.namespaces.insert(node.name.clone(), sys::new_netns().context("making a network namespace")?);
        self.node(number, node)
    }

    fn node(&self, number: usize, node: &NodeState) -> Result<()> {
        self.sysctls(&node.name)?;
        // The same whenever it starts, as with a real device: its neighbours remember it.
        let [a, b, c, d] = node.address.octets();
        self.plug(&port(number), &node.name, Some([0x02, 0x42, a, b, c, d]))?;
        let gateway = ROUTER.parse().context("the router's address")?;
        self.host(&node.name, node.address, SEGMENT_PREFIX, Some(gateway))?;
        self.no_offload(&node.name, "eth0")
    }

    /// Joins a namespace to the bridge by its `eth0`.
    fn plug(&self, port: &str, name: &str, mac: Option<[u8; 6]>) -> Result<()> {
        let target = self.get(name)?.as_fd();
        self.within("fabric", async |links| {
            links.add_veth(port, "eth0", target, mac).await?;
            links.set_bridge(port, BRIDGE).await
        })
    }

    /// Sets `lo` and `eth0` of a namespace up, with an address and a default route.
    fn host(&self, name: &str, address: Ipv4Addr, prefix: u8, gateway: Option<Ipv4Addr>) -> Result<()> {
        self.within(name, async |links| {
            links.set("lo", true).await?;
            links.add_address("eth0", address, prefix).await?;
            links.set("eth0", true).await?;
            match gateway {
                Some(gateway) => links.add_default_route(gateway).await,
                None => Ok(()),
            }
        })
    }

    fn router(&self, nodes: &[NodeState]) -> Result<()> {
        self.sysctls("router")?;
        self.sysctls("lan")?;
        self.plug("router", "router", None)?;
        let worker = nodes.iter().find(|node| node.role == Role::Worker).context("a cluster has a worker")?;
        let router_lan: Ipv4Addr = ROUTER_LAN.parse().context("the router's address on lan")?;
        self.host("router", ROUTER.parse().context("the router's address")?, SEGMENT_PREFIX, None)?;
        let lan = self.get("lan")?.as_fd();
        self.within("router", async |links| {
            links.add_veth("eth1", "eth0", lan, None).await?;
            links.add_address("eth1", router_lan, LAN_PREFIX).await?;
            for network in BY_WORKER {
                links.add_route(network.parse().context("a network behind the worker")?, worker.address).await?;
            }
            Ok(())
        })?;
        self.host("lan", LAN.parse().context("the address of lan")?, LAN_PREFIX, Some(router_lan))?;
        for (name, device) in [("router", "eth0"), ("router", "eth1"), ("lan", "eth0")] {
            self.no_offload(name, device)?;
        }
        Ok(())
    }

    /// What a new namespace inherits from the machine is set to what a node has: kubeadm demands forwarding. Before it
    /// has devices, because a device takes the defaults that hold when it appears.
    fn sysctls(&self, name: &str) -> Result<()> {
        let forward = if name == "lan" { "0" } else { "1" };
        sys::in_netns(self.get(name)?.as_fd(), || {
            for (key, value) in [
                ("ipv4/ip_forward", forward),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
                ("ipv6/conf/all/disable_ipv6", "1"),
                ("ipv6/conf/default/disable_ipv6", "1"),
            ] {
                let path = format!("/proc/sys/net/{key}");
                if std::path::Path::new(&path).exists() {
                    std::fs::write(path, value)?;
                }
            }
            Ok(())
        })
        .with_context(|| format!("setting sysctls of {name}"))
    }

    fn no_offload(&self, name: &str, device: &str) -> Result<()> {
        sys::in_netns(self.get(name)?.as_fd(), || sys::checksum_offload_off(device))
            .with_context(|| format!("switching checksum offload of {name}/{device} off"))
    }

    /// A namespace.
    ///
    /// # Errors
    /// If there is none of that name.
    pub(crate) fn get(&self, name: &str) -> Result<&OwnedFd> {
        self.namespaces.get(name).with_context(|| format!("there is no namespace {name}"))
    }

    /// Works on the links of a namespace.
    fn within<T: Send>(&self, name: &str, work: impl AsyncFnOnce(Links) -> Result<T> + Send) -> Result<T> {
        links::within(self.get(name)?, work).with_context(|| format!("in {name}"))
    }
}

/// Pulls the cable of a node at the bridge's end, or plugs it in again: the node keeps its addresses and routes.
///
/// # Errors
/// If the namespace of the bridge cannot be entered, or the kernel refuses.
pub(super) fn set_cable(bridge_namespace: impl AsFd + Send, number: usize, plugged: bool) -> Result<()> {
    links::within(bridge_namespace, async |links| links.set(&port(number), plugged).await)
}
