//! One node that runs the datapath, with two pods, and all else ("far") in one more namespace behind its only device:
//! the remote node with its pod, a client on the nodes' segment, and a server outside the cluster.
//!
//! ```text
//! pod a 10.250.1.10 ┐
//! pod b 10.250.1.11 ┴ node 172.30.0.1 ── 172.30.0.2 far (10.250.2.10 remote pod, 198.51.100.7 outside)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use portolan::cni::wire;
use portolan::datapath::{Datapath, read};
use portolan::node::kernel;
use portolan::sys::netlink::{Netlink, ROUTE_PROTOCOL, Route};
use portolan::sys::{bpf, netns, sysctl};
use portolan_core::datapath::Planner;
use portolan_core::service::{Backend, Frontend, FrontendKind, PortName, Protocol, ServiceName, ServicePort};
use portolan_ebpf::{
    Addr, CONFIG_MASQUERADE, CONFIG_SOCKET_LB, DeviceVal, EndpointVal, NODE_ADDR_LOCAL, NODE_ADDR_REMOTE, NodeConfig,
};

use super::Bpffs;

pub const NODE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
pub const FAR: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
pub const POD_A: Ipv4Addr = Ipv4Addr::new(10, 250, 1, 10);
pub const POD_B: Ipv4Addr = Ipv4Addr::new(10, 250, 1, 11);
pub const REMOTE_POD: Ipv4Addr = Ipv4Addr::new(10, 250, 2, 10);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 9);
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub const NODE_PORT: u16 = 30080;

/// A network namespace that lives as long as this value or anything in it.
pub struct Ns(pub File);

impl Ns {
    pub fn new() -> Self {
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(file.join().unwrap())
    }

    /// Runs `work` in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::within(&self.0, work).unwrap()
    }
}

/// The node, its pods and everything else.
pub struct World {
    pub node: Ns,
    pub far: Ns,
    pub a: Ns,
    pub b: Ns,
    pub datapath: Datapath,
    planner: Planner,
    services: BTreeMap<PortName, ServicePort>,
    bpffs: Bpffs,
}

impl World {
    /// Makes it, with SNAT drawing from all of the ports that the agent would use.
    pub fn new(name: &str) -> Option<Self> {
        Self::with_snat_ports(name, (32768, 65535))
    }

    /// Makes it, with SNAT drawing from `ports`.
    pub fn with_snat_ports(name: &str, ports: (u16, u16)) -> Option<Self> {
        let bpffs = Bpffs::mount(name)?;
        let (node, far, a, b) = (Ns::new(), Ns::new(), Ns::new(), Ns::new());
        let device = wire(&node, &far, NODE);
        node.run(|| {
            let mut netlink = Netlink::open().unwrap();
            kernel::prepare().unwrap();
            far.run(prepare_far);
            route(&mut netlink, Ipv4Addr::new(10, 250, 2, 0), 24, FAR, device);
            // Without a route the kernel refuses a dialled address before any packet is made.
            route(&mut netlink, Ipv4Addr::UNSPECIFIED, 0, FAR, device);
        });
        let datapath = Datapath::open(&bpffs.0).expect("the verifier accepts every program");
        let (planner, services) = Default::default();
        let mut world = Self { node, far, a, b, datapath, planner, services, bpffs };
        let World { node, datapath, a, b, .. } = &mut world;
        node.run(|| start(datapath, ports));
        node.run(|| pod(datapath, "lxca", a, POD_A));
        node.run(|| pod(datapath, "lxcb", b, POD_B));
        Some(world)
    }

    /// Adds a Service `name` on `port`: ClusterIP, NodePort ([`NODE_PORT`]) and EXTERNAL-IP, with these backends.
    pub fn serve(&mut self, name: &str, protocol: Protocol, port: u16, backends: &[SocketAddrV4]) {
        let frontend = |address: Ipv4Addr, port, kind| Frontend { address: address.into(), port, protocol, kind };
        let backends: BTreeSet<Backend> =
            backends.iter().map(|to| Backend { address: (*to.ip()).into(), port: to.port(), protocol }).collect();
        let service = ServiceName { namespace: "default".into(), name: name.into() };
        let value = ServicePort {
            frontends: BTreeSet::from([
                frontend(CLUSTER_IP, port, FrontendKind::ClusterIp),
                frontend(Ipv4Addr::UNSPECIFIED, NODE_PORT, FrontendKind::NodePort),
                frontend(VIP, port, FrontendKind::LoadBalancer),
            ]),
            selectable: backends.clone(),
            known: backends,
        };
        self.services.insert(PortName { service, port, protocol }, value);
        self.datapath.apply(&self.planner.plan(&self.services)).unwrap();
    }

    /// Switches socket LB on for the processes of a cgroup.
    pub fn socket_lb(&mut self, cgroup: &Path) {
        let mut config = read::config(self.datapath.pins()).unwrap();
        config.flags |= CONFIG_SOCKET_LB;
        self.datapath.configure(config).unwrap();
        self.datapath.socket_lb(cgroup, true).unwrap();
    }

    /// A counter of the datapath.
    pub fn counter(&self, hook: &str, event: &str) -> u64 {
        let all = read::counters(self.datapath.pins()).unwrap();
        all.get(hook).and_then(|events| events.get(event)).copied().unwrap_or(0)
    }

    /// A counter summed over all hooks.
    pub fn total(&self, event: &str) -> u64 {
        let all = read::counters(self.datapath.pins()).unwrap();
        all.values().filter_map(|events| events.get(event)).sum()
    }
}

/// Connects two namespaces by a veth, `eth0` in both, and gives the first its address; returns its interface index.
pub fn wire(node: &Ns, far: &Ns, address: Ipv4Addr) -> u32 {
    node.run(|| {
        let mut netlink = Netlink::open().unwrap();
        netlink.add_veth("eth0", "eth0", &far.0, 1500).unwrap();
        up(&mut netlink, "lo", &[]);
        up(&mut netlink, "eth0", &[address])
    })
}

/// Sets a device up and gives it addresses; returns its interface index.
pub fn up(netlink: &mut Netlink, name: &str, addresses: &[Ipv4Addr]) -> u32 {
    let link = netlink.link(name).unwrap().unwrap_or_else(|| panic!("no device {name}"));
    netlink.set_up(link.index).unwrap();
    for address in addresses {
        let prefix = if name == "lo" { 32 } else { 24 };
        netlink.add_address(link.index, *address, prefix).unwrap();
    }
    link.index
}

fn route(netlink: &mut Netlink, destination: Ipv4Addr, prefix: u8, gateway: Ipv4Addr, device: u32) {
    let route = Route { destination, prefix, gateway: Some(gateway), device, protocol: ROUTE_PROTOCOL };
    netlink.put_route(&route).unwrap();
}

/// Routes for the pods, the ClusterIPs and the EXTERNAL-IPs lead to the node; what is not known is answered by ICMP.
fn prepare_far() {
    let mut netlink = Netlink::open().unwrap();
    up(&mut netlink, "lo", &[REMOTE_POD, OUTSIDE]);
    let device = up(&mut netlink, "eth0", &[FAR]);
    sysctl::set("ipv4/ip_forward", "1").unwrap();
    sysctl::set("ipv4/icmp_ratelimit", "0").unwrap();
    for net in [Ipv4Addr::new(10, 250, 1, 0), Ipv4Addr::new(10, 96, 0, 0), Ipv4Addr::new(203, 0, 113, 0)] {
        route(&mut netlink, net, 24, NODE, device);
    }
}

/// What the agent does when it starts.
fn start(datapath: &mut Datapath, snat_ports: (u16, u16)) {
    let mut netlink = Netlink::open().unwrap();
    let link = |netlink: &mut Netlink, name: &str| netlink.link(name).unwrap().unwrap();
    let lo = link(&mut netlink, "lo");
    let eth0 = link(&mut netlink, "eth0");
    datapath
        .configure(NodeConfig {
            host_netns_cookie: bpf::netns_cookie().unwrap(),
            native_v4_addr: u32::from(Ipv4Addr::new(10, 250, 0, 0)).to_be(),
            native_v4_mask: 0xffff_0000_u32.to_be(),
            snat_port_min: snat_ports.0,
            snat_port_max: snat_ports.1,
            flags: CONFIG_MASQUERADE,
            node_port_min: 30000,
            node_port_max: 32767,
            lo_ifindex: lo.index,
            node_v4: u32::from(NODE).to_be(),
            pad: 0,
        })
        .unwrap();
    let addr = Addr::from_v4_be(u32::from(NODE).to_be());
    datapath.put_device(eth0.index, DeviceVal { addr, mac: eth0.mac, pad: [0; 2] }).unwrap();
    datapath.attach_device("eth0").unwrap();
    datapath.attach_lo().unwrap();
    datapath.set_node_addrs(&BTreeMap::from([(NODE, NODE_ADDR_LOCAL), (FAR, NODE_ADDR_REMOTE)])).unwrap();
}

/// What the plugin and the agent do for a pod.
fn pod(datapath: &mut Datapath, device: &str, namespace: &Ns, address: Ipv4Addr) {
    let pair = wire::make(device, "eth0", &namespace.0, address, 1500).unwrap();
    datapath.attach_endpoint(device).unwrap();
    let value = EndpointVal { ifindex: pair.host.index, pod_mac: pair.pod.mac, host_mac: pair.host.mac };
    datapath.put_endpoint(address, value).unwrap();
}
