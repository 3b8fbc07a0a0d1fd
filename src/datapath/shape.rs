//! Which maps there are and what they look like. The pin directory is named by it, and a pin is compared with it before
//! it is used: aya takes any map it finds at the path.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::maps::{MapData, MapInfo};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use portolan_ebpf as abi;

/// Shape of one map.
pub(super) struct Shape {
    pub(super) name: &'static str,
    key: usize,
    value: usize,
}

const fn shape<K, V>(name: &'static str) -> Shape {
    Shape { name, key: size_of::<K>(), value: size_of::<V>() }
}

/// All pinned maps.
pub(super) const MAPS: [Shape; 12] = [
    shape::<abi::FrontendKey, abi::FrontendVal>("frontends"),
    shape::<u32, abi::ServiceVal>("services"),
    shape::<abi::SlotKey, u32>("slots"),
    shape::<u32, abi::BackendVal>("backends"),
    shape::<abi::AddrKey, abi::EndpointVal>("endpoints"),
    shape::<abi::AddrKey, u32>("node_addrs"),
    shape::<u32, abi::DeviceVal>("devices"),
    shape::<u32, abi::NodeConfig>("config"),
    shape::<abi::FlowKey, abi::FlowVal>("flows"),
    shape::<abi::SockRevKey, abi::SockRevVal>("sock_rev"),
    shape::<abi::FragKey, abi::FragVal>("fragments"),
    shape::<u32, u64>("metrics"),
];

/// The pin directory below a BPF file system.
#[must_use]
pub fn pin_dir(bpffs: &Path) -> PathBuf {
    bpffs.join("portolan").join(name())
}

/// ABI version and a hash over all shapes.
fn name() -> String {
    let text: String = MAPS.iter().map(|map| format!("{} {} {};", map.name, map.key, map.value)).collect();
    format!("v{}-{:016x}", abi::ABI_VERSION, fnv1a(text.as_bytes()))
}

/// FNV-1a, 64 bits: tells builds apart, and guards against nobody.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Fails unless `dir` is a BPF file system: pins elsewhere would not pin anything.
pub(super) fn check_bpffs(dir: &Path) -> Result<()> {
    let fs = statfs(dir).with_context(|| format!("looking at {}", dir.display()))?;
    if fs.filesystem_type() != BPF_FS_MAGIC {
        bail!(
            "{} is no BPF file system; mount one on the node (`mount -t bpf bpf /sys/fs/bpf`) and give it to the agent",
            dir.display()
        );
    }
    Ok(())
}

/// Fails if a pinned map has another shape than this agent's.
pub(super) fn check_pins(pins: &Path) -> Result<()> {
    for map in MAPS {
        let path = pins.join("maps").join(map.name);
        if !path.exists() {
            continue;
        }
        let info: MapInfo = MapData::from_pin(&path)
            .and_then(|data| data.info())
            .with_context(|| format!("opening the pinned map {}", path.display()))?;
        if info.key_size() as usize != map.key || info.value_size() as usize != map.value {
            bail!(
                "{} has keys of {} and values of {} bytes, this agent has {} and {}; `portolan cleanup` removes it",
                path.display(),
                info.key_size(),
                info.value_size(),
                map.key,
                map.value
            );
        }
    }
    Ok(())
}
