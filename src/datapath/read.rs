//! Reading the pinned maps and links: for adoption at start, for the audit, for `status` and `bpf dump`. Works from any
//! process on the node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use aya::programs::links::{FdLink, PinnedLink};
use portolan_core::datapath::Tables;
use portolan_ebpf as abi;
use serde::Serialize;

use super::convert;
use crate::sys::abi::Abi;
use crate::sys::bpf::{self, LinkTarget};

/// Opens a pinned map.
pub(super) fn open(pins: &Path, name: &str) -> Result<Map> {
    let path = pins.join("maps").join(name);
    let said = || format!("opening the pinned map {}", path.display());
    Map::from_map_data(MapData::from_pin(&path).with_context(said)?).with_context(said)
}

/// All entries of a pinned hash map.
pub fn entries<K: aya::Pod, V: aya::Pod>(pins: &Path, name: &str) -> Result<Vec<(K, V)>> {
    let map: HashMap<MapData, K, V> = HashMap::try_from(open(pins, name)?)?;
    let mut all = Vec::new();
    for entry in map.iter() {
        all.push(entry.with_context(|| format!("reading map {name}"))?);
    }
    Ok(all)
}

/// What the Service maps hold. Entries that this agent could not have written are left out, so that a plan removes or
/// replaces them.
///
/// # Errors
/// If a map is not there.
pub fn tables(pins: &Path) -> Result<Tables> {
    let mut tables = Tables::default();
    for (key, value) in entries::<Abi<abi::FrontendKey>, Abi<abi::FrontendVal>>(pins, "frontends")? {
        if let (Some(key), Some(value)) = (convert::frontend_key_back(&key.0), convert::frontend_val_back(value.0)) {
            tables.frontends.insert(key, value);
        }
    }
    for (id, value) in entries::<u32, Abi<abi::ServiceVal>>(pins, "services")? {
        let entry = portolan_core::datapath::ServiceEntry { generation: value.0.generation, count: value.0.count };
        tables.services.insert(id, entry);
    }
    for (key, value) in entries::<Abi<abi::SlotKey>, u32>(pins, "slots")? {
        tables.slots.insert(convert::slot_back(&key.0), value);
    }
    for (id, value) in entries::<u32, Abi<abi::BackendVal>>(pins, "backends")? {
        if let Some(backend) = convert::backend_back(&value.0) {
            tables.backends.insert(id, backend);
        }
    }
    Ok(tables)
}

/// A pod of this node in map `endpoints`.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointView {
    /// Address.
    pub address: IpAddr,
    /// Interface index of the node's side.
    pub ifindex: u32,
}

/// The pods of this node.
///
/// # Errors
/// If the map is not there.
pub fn endpoints(pins: &Path) -> Result<Vec<EndpointView>> {
    let all = entries::<Abi<abi::AddrKey>, Abi<abi::EndpointVal>>(pins, "endpoints")?;
    Ok(all
        .into_iter()
        .map(|(key, value)| EndpointView { address: convert::ip(&key.0.addr, key.0.family), ifindex: value.0.ifindex })
        .collect())
}

/// The node's configuration as the programs see it.
///
/// # Errors
/// If the map is not there.
pub fn config(pins: &Path) -> Result<abi::NodeConfig> {
    let path = pins.join("maps/config");
    let data = MapData::from_pin(&path).with_context(|| format!("opening the pinned map {}", path.display()))?;
    let map: aya::maps::Array<MapData, Abi<abi::NodeConfig>> = aya::maps::Array::try_from(Map::Array(data))?;
    Ok(map.get(&0, 0).context("reading map config")?.0)
}

/// Counters by hook and event, summed over CPUs; zeroes left out.
///
/// # Errors
/// If the map is not there.
pub fn counters(pins: &Path) -> Result<BTreeMap<&'static str, BTreeMap<&'static str, u64>>> {
    let map: PerCpuArray<MapData, u64> = PerCpuArray::try_from(open(pins, "metrics")?)?;
    let mut all: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (hook, hook_name) in (0_u32..).zip(abi::HOOK_NAMES) {
        for (event, event_name) in (0_u32..).zip(abi::EVENT_NAMES) {
            let values = map.get(&(hook * abi::EVENTS_MAX + event), 0).context("reading map metrics")?;
            let sum: u64 = values.iter().sum();
            if sum > 0 {
                all.entry(hook_name).or_default().insert(event_name, sum);
            }
        }
    }
    Ok(all)
}

/// A pinned link.
#[derive(Clone, Debug, Serialize)]
pub struct LinkView {
    /// `PROGRAM@PLACE`.
    pub name: String,
    /// Link id in the kernel.
    pub id: u32,
    /// Program id in the kernel.
    pub program_id: u32,
    /// How it is attached: `tcx`, `cgroup`, or the number of another link type.
    pub mode: String,
    /// Interface index or cgroup id; 0 if what it was attached to is gone, and the link does nothing.
    pub target: u64,
}

/// The pinned links, as the kernel describes them.
///
/// # Errors
/// If the directory cannot be read or a pin is no link.
pub fn links(pins: &Path) -> Result<Vec<LinkView>> {
    let dir = pins.join("links");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let describe = || format!("opening the pinned link {}", path.display());
        let link = FdLink::from(PinnedLink::from_pin(&path).with_context(describe)?);
        let info = link.info().with_context(describe)?;
        let descriptor = bpf::obj_get(&path).with_context(describe)?;
        let (mode, target) = match bpf::link_target(descriptor.as_fd()).with_context(describe)? {
            LinkTarget::Tcx(ifindex) => ("tcx".to_owned(), u64::from(ifindex)),
            LinkTarget::Cgroup(id) => ("cgroup".to_owned(), id),
            LinkTarget::Other(kind) => (kind.to_string(), 0),
        };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        all.push(LinkView { name, id: info.id(), program_id: info.program_id(), mode, target });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}
