//! The network between the nodes: a bridge in a namespace of its own, a router, and `lan` behind it. There is no way out.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Role;
use super::layout::{BY_WORKER, LAN, NodeState, ROUTER, ROUTER_LAN};
use crate::sys;

/// The bridge's port for the node of that number.
pub(super) fn port(number: usize) -> String {
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
    /// With the commands that `ip` refused.
    pub(crate) fn create(nodes: &[NodeState]) -> Result<Self> {
        let mut namespaces = BTreeMap::new();
        let names = ["fabric", "router", "lan"].map(str::to_owned).into_iter();
        for name in names.chain(nodes.iter().map(|node| node.name.clone())) {
            namespaces.insert(name, sys::new_netns().context("making a network namespace")?);
        }
        let fabric = Self { namespaces };
        fabric.ip(
            "fabric",
            &["link set lo up", "link add br0 type bridge stp_state 0 forward_delay 0", "link set br0 up"],
        )?;
        for (number, node) in nodes.iter().enumerate() {
            fabric.node(number, node)?;
        }
        fabric.router(nodes)?;
        Ok(fabric)
    }

    /// Gives a node that starts again a network of its own without a past, with the addresses it had.
    ///
    /// # Errors
    /// With the commands that `ip` refused.
    pub(crate) fn renew(&mut self, number: usize, node: &NodeState) -> Result<()> {
        // The old namespace ends when the kernel comes to it; its device would keep the port's name until then.
        self.ip("fabric", &[&format!("link del {}", port(number))])?;
        self.namespaces.insert(node.name.clone(), sys::new_netns().context("making a network namespace")?);
        self.node(number, node)
    }

    fn node(&self, number: usize, node: &NodeState) -> Result<()> {
        self.sysctls(&node.name)?;
        // The same whenever it starts, as with a real device: its neighbours remember it.
        let [a, b, c, d] = node.address.octets();
        self.plug(&port(number), &node.name, &format!("address 02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}"))?;
        let address = format!("addr add {}/16 dev eth0", node.address);
        let gateway = format!("route add default via {ROUTER}");
        self.ip(&node.name, &["link set lo up", &address, "link set eth0 up", &gateway])?;
        self.no_offload(&node.name, "eth0")
    }

    /// Joins a namespace to the bridge by its `eth0`.
    fn plug(&self, port: &str, name: &str, options: &str) -> Result<()> {
        let target = self.get(name)?.as_raw_fd();
        let pid = std::process::id();
        let add = format!("link add {port} type veth peer name eth0 {options} netns /proc/{pid}/fd/{target}");
        self.ip("fabric", &[&add, &format!("link set {port} master br0"), &format!("link set {port} up")])
    }

    fn router(&self, nodes: &[NodeState]) -> Result<()> {
        self.sysctls("router")?;
        self.sysctls("lan")?;
        self.plug("router", "router", "")?;
        let target = self.get("lan")?.as_raw_fd();
        let pid = std::process::id();
        let worker = nodes.iter().find(|node| node.role == Role::Worker).context("a cluster has a worker")?;
        let mut lines = vec![
            "link set lo up".to_owned(),
            format!("addr add {ROUTER}/16 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("link add eth1 type veth peer name eth0 netns /proc/{pid}/fd/{target}"),
            format!("addr add {ROUTER_LAN}/24 dev eth1"),
            "link set eth1 up".to_owned(),
        ];
        lines.extend(BY_WORKER.iter().map(|cidr| format!("route add {cidr} via {}", worker.address)));
        self.ip("router", &lines.iter().map(String::as_str).collect::<Vec<_>>())?;
        let address = format!("addr add {LAN}/24 dev eth0");
        let gateway = format!("route add default via {ROUTER_LAN}");
        self.ip("lan", &["link set lo up", &address, "link set eth0 up", &gateway])?;
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

    /// Runs `ip` commands inside a namespace.
    fn ip(&self, name: &str, lines: &[&str]) -> Result<()> {
        let output = sys::in_netns(self.get(name)?.as_fd(), || {
            let mut child = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all((lines.join("\n") + "\n").as_bytes())?;
            }
            child.wait_with_output()
        })
        .with_context(|| format!("running ip in {name}"))?;
        if !output.status.success() {
            bail!("ip in {name}: {}\n{}", String::from_utf8_lossy(&output.stderr).trim(), lines.join("\n"));
        }
        Ok(())
    }
}
