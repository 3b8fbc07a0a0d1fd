//! The kernel side of a node: programs and maps, pinned so that they outlive the agent.
//!
//! Pins lie below `<bpffs>/portolan/<shape>/`, where `<shape>` names the ABI: an agent with other maps uses another
//! directory and never mistakes one for the other. A program is replaced in its link in one step, so that there is no
//! moment without one.

pub mod convert;
pub mod flows;
mod links;
mod programs;
pub mod read;
mod service_maps;
mod shape;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::maps::{Array, HashMap, MapData};
use aya::programs::TcAttachType;
use portolan_core::datapath::Op;
use portolan_ebpf::{
    AddrKey, BackendVal, DeviceVal, EndpointVal, FrontendKey, FrontendVal, NodeConfig, ServiceVal, SlotKey,
};

use crate::sys::abi::Abi;
use links::Place;
use programs::Programs;

pub use links::LinkName;
pub use programs::SOCK_ADDRS;
pub use service_maps::ServiceMaps;
pub use shape::pin_dir;

/// A writable hash map of the ABI's types.
pub type Table<K, V> = HashMap<MapData, Abi<K>, Abi<V>>;

/// Programs loaded, maps open.
pub struct Datapath {
    programs: Programs,
    pins: PathBuf,
    config: Array<MapData, Abi<NodeConfig>>,
    frontends: Table<FrontendKey, FrontendVal>,
    services: HashMap<MapData, u32, Abi<ServiceVal>>,
    slots: HashMap<MapData, Abi<SlotKey>, u32>,
    backends: HashMap<MapData, u32, Abi<BackendVal>>,
    endpoints: Table<AddrKey, EndpointVal>,
    node_addrs: HashMap<MapData, Abi<AddrKey>, u32>,
    devices: HashMap<MapData, u32, Abi<DeviceVal>>,
    wanted: Wanted,
}

/// What the agent has written to the small maps. The Service maps have their planner.
#[derive(Default)]
struct Wanted {
    config: Option<NodeConfig>,
    endpoints: BTreeMap<Ipv4Addr, EndpointVal>,
    node_addrs: BTreeMap<Ipv4Addr, u32>,
    devices: BTreeMap<u32, DeviceVal>,
    /// Where which program is attached.
    links: BTreeMap<LinkName, (&'static str, Place)>,
}

impl Datapath {
    /// Takes over the pinned programs and maps below `bpffs`, or loads and creates them. Attaches nothing.
    ///
    /// # Errors
    /// If `bpffs` is no BPF file system, the kernel refuses a program (with the verifier's words), or a pinned map has
    /// another shape.
    pub fn open(bpffs: &Path) -> Result<Self> {
        let pins = pin_dir(bpffs);
        shape::check_bpffs(bpffs)?;
        for dir in ["maps", "links", "programs"] {
            let dir = pins.join(dir);
            std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        shape::check_pins(&pins)?;
        let programs = Programs::open(&pins)?;
        let datapath = Self {
            config: Array::try_from(read::open(&pins, "config")?)?,
            frontends: HashMap::try_from(read::open(&pins, "frontends")?)?,
            services: HashMap::try_from(read::open(&pins, "services")?)?,
            slots: HashMap::try_from(read::open(&pins, "slots")?)?,
            backends: HashMap::try_from(read::open(&pins, "backends")?)?,
            endpoints: HashMap::try_from(read::open(&pins, "endpoints")?)?,
            node_addrs: HashMap::try_from(read::open(&pins, "node_addrs")?)?,
            devices: HashMap::try_from(read::open(&pins, "devices")?)?,
            wanted: Wanted::default(),
            programs,
            pins,
        };
        Ok(datapath)
    }

    /// Directory of this agent's pins.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Tells the programs about the node. Before anything is attached.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn configure(&mut self, config: NodeConfig) -> Result<()> {
        self.config.set(0, Abi(config), 0).context("writing map config")?;
        self.wanted.config = Some(config);
        Ok(())
    }

    /// Attaches to a native device, both directions.
    ///
    /// # Errors
    /// If the device is gone or the kernel refuses.
    pub fn attach_device(&mut self, name: &str) -> Result<()> {
        self.attach("from_netdev", name, TcAttachType::Ingress)?;
        self.attach("to_netdev", name, TcAttachType::Egress)
    }

    /// Attaches to `lo`, egress.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach_lo(&mut self) -> Result<()> {
        self.attach("to_lo", "lo", TcAttachType::Egress)
    }

    /// Attaches to a pod's veth, both directions as seen from the node.
    ///
    /// # Errors
    /// If the device is gone or the kernel refuses.
    pub fn attach_endpoint(&mut self, device: &str) -> Result<()> {
        self.attach("from_pod", device, TcAttachType::Ingress)?;
        self.attach("to_pod", device, TcAttachType::Egress)
    }

    /// Forgets the links of a pod's veth; the veth itself goes with the pod.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn detach_endpoint(&mut self, device: &str) -> Result<()> {
        for program in ["from_pod", "to_pod"] {
            self.detach(&LinkName::device(program, device))?;
        }
        Ok(())
    }

    fn attach(&mut self, program: &'static str, device: &str, direction: TcAttachType) -> Result<()> {
        self.attach_at(program, Place::Device(device.to_owned(), direction))
    }

    fn attach_at(&mut self, program: &'static str, place: Place) -> Result<()> {
        place.attach(&mut self.programs, &self.pins, program)?;
        self.wanted.links.insert(place.link(program), (program, place));
        Ok(())
    }

    fn detach(&mut self, link: &LinkName) -> Result<()> {
        self.wanted.links.remove(link);
        links::unpin(&self.pins, link)
    }

    /// Attaches again what was attached and is not any more: somebody removed a pin, detached a link, or made a device
    /// anew. Returns the names of the links that it had to attach.
    ///
    /// # Errors
    /// If a link cannot be looked at, or the kernel refuses.
    pub fn repair_links(&mut self) -> Result<Vec<String>> {
        let mut repaired = Vec::new();
        for (name, (program, place)) in &self.wanted.links {
            if place.misses(&self.pins, program)? {
                place.attach(&mut self.programs, &self.pins, program)?;
                repaired.push(name.0.clone());
            }
        }
        Ok(repaired)
    }

    /// Attaches socket LB to the node's cgroup, or takes it away.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn socket_lb(&mut self, cgroup: &Path, enabled: bool) -> Result<()> {
        for (program, _) in SOCK_ADDRS {
            if enabled {
                self.attach_at(program, Place::Cgroup(cgroup.to_path_buf()))?;
            } else {
                self.detach(&LinkName::cgroup(program))?;
            }
        }
        Ok(())
    }

    /// Carries out writes to the Service maps, in their order.
    ///
    /// # Errors
    /// With the write that failed; those before it are done.
    pub fn apply(&mut self, ops: &[Op]) -> Result<()> {
        for op in ops {
            self.apply_one(op).with_context(|| format!("writing {op:?}"))?;
        }
        Ok(())
    }

    fn apply_one(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::PutBackend(id, backend) => self.backends.insert(id, Abi(convert::backend(backend)), 0)?,
            Op::PutSlot(key, backend) => self.slots.insert(Abi(convert::slot(*key)), backend, 0)?,
            Op::PutService(id, entry) => {
                let value = ServiceVal { generation: entry.generation, count: entry.count };
                self.services.insert(id, Abi(value), 0)?;
            }
            Op::PutFrontend(key, entry) => {
                self.frontends.insert(Abi(convert::frontend_key(key)), Abi(convert::frontend_val(*entry)), 0)?;
            }
            Op::DeleteFrontend(key) => convert::gone_is_fine(self.frontends.remove(&Abi(convert::frontend_key(key))))?,
            Op::DeleteService(id) => convert::gone_is_fine(self.services.remove(id))?,
            Op::DeleteSlot(key) => convert::gone_is_fine(self.slots.remove(&Abi(convert::slot(*key))))?,
            Op::DeleteBackend(id) => convert::gone_is_fine(self.backends.remove(id))?,
        }
        Ok(())
    }

    /// Adds or replaces a pod of this node.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn put_endpoint(&mut self, address: Ipv4Addr, value: EndpointVal) -> Result<()> {
        let key = Abi(convert::addr_key(address));
        self.endpoints.insert(key, Abi(value), 0).with_context(|| format!("writing endpoint {address}"))?;
        self.wanted.endpoints.insert(address, value);
        Ok(())
    }

    /// Removes a pod of this node.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete_endpoint(&mut self, address: Ipv4Addr) -> Result<()> {
        convert::gone_is_fine(self.endpoints.remove(&Abi(convert::addr_key(address))))
            .with_context(|| format!("removing endpoint {address}"))?;
        self.wanted.endpoints.remove(&address);
        Ok(())
    }

    /// Makes map `endpoints` hold just these pods.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn retain_endpoints(&mut self, keep: &[Ipv4Addr]) -> Result<()> {
        let keep: Vec<AddrKey> = keep.iter().map(|address| convert::addr_key(*address)).collect();
        let held: Vec<Abi<AddrKey>> = self.endpoints.keys().collect::<Result<_, _>>()?;
        for key in held.into_iter().filter(|key| !keep.contains(&key.0)) {
            convert::gone_is_fine(self.endpoints.remove(&key))?;
        }
        Ok(())
    }

    /// Makes map `node_addrs` hold just these addresses; additions first.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_node_addrs(&mut self, wanted: &BTreeMap<Ipv4Addr, u32>) -> Result<()> {
        for (address, flags) in wanted {
            let key = Abi(convert::addr_key(*address));
            if self.node_addrs.get(&key, 0).ok() != Some(*flags) {
                self.node_addrs.insert(key, flags, 0).with_context(|| format!("writing node address {address}"))?;
            }
        }
        let keep: Vec<AddrKey> = wanted.keys().map(|address| convert::addr_key(*address)).collect();
        let held: Vec<Abi<AddrKey>> = self.node_addrs.keys().collect::<Result<_, _>>()?;
        for key in held.into_iter().filter(|key| !keep.contains(&key.0)) {
            convert::gone_is_fine(self.node_addrs.remove(&key))?;
        }
        self.wanted.node_addrs.clone_from(wanted);
        Ok(())
    }

    /// Tells the programs about a native device.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn put_device(&mut self, ifindex: u32, value: DeviceVal) -> Result<()> {
        self.devices.insert(ifindex, Abi(value), 0).with_context(|| format!("writing device {ifindex}"))?;
        self.wanted.devices.insert(ifindex, value);
        Ok(())
    }

    /// Compares the small maps (node configuration, pods, addresses of nodes, devices) with what was written to them,
    /// writes again what somebody else has changed or removed, and returns the names of the maps that it had to repair.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn repair(&mut self) -> Result<Vec<&'static str>> {
        let mut repaired = Vec::new();
        if let Some(config) = self.wanted.config
            && self.config.get(&0, 0).context("reading map config")?.0 != config
        {
            self.config.set(0, Abi(config), 0).context("writing map config")?;
            repaired.push("config");
        }
        let mut held = BTreeMap::new();
        for entry in self.endpoints.iter() {
            let (key, value) = entry.context("reading map endpoints")?;
            held.insert(convert::ip(&key.0.addr, key.0.family), value.0);
        }
        let wanted = self.wanted.endpoints.clone();
        if held != wanted.iter().map(|(address, value)| (IpAddr::V4(*address), *value)).collect() {
            for (address, value) in &wanted {
                self.put_endpoint(*address, *value)?;
            }
            self.retain_endpoints(&wanted.into_keys().collect::<Vec<_>>())?;
            repaired.push("endpoints");
        }
        let mut held = BTreeMap::new();
        for entry in self.node_addrs.iter() {
            let (key, flags) = entry.context("reading map node_addrs")?;
            held.insert(convert::ip(&key.0.addr, key.0.family), flags);
        }
        let wanted = self.wanted.node_addrs.clone();
        if held != wanted.iter().map(|(address, flags)| (IpAddr::V4(*address), *flags)).collect() {
            self.set_node_addrs(&wanted)?;
            repaired.push("node_addrs");
        }
        for (ifindex, value) in self.wanted.devices.clone() {
            if self.devices.get(&ifindex, 0).ok().map(|held| held.0) != Some(value) {
                self.put_device(ifindex, value)?;
                repaired.push("devices");
            }
        }
        Ok(repaired)
    }

    /// Removes the pins of agents with another ABI or object, after this one's links are in place.
    ///
    /// # Errors
    /// If a directory cannot be removed.
    pub fn remove_other_shapes(&self) -> Result<()> {
        let Some(parent) = self.pins.parent() else { bail!("the pin directory has no parent") };
        for entry in std::fs::read_dir(parent).with_context(|| format!("reading {}", parent.display()))? {
            let path = entry?.path();
            if path != self.pins {
                tracing::info!(path = %path.display(), "removing the pins of an agent with another ABI");
                std::fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        Programs::remove_others(&self.pins)
    }
}
