//! The programs in the kernel. They are pinned below `programs/<object>/`, so that an agent that starts again with the
//! same BPF object takes them over: the verifier reads some hundred thousand instructions, which would be the most of
//! an agent's start. `<object>` names the bytes of the object; programs of another object are never used, nor are
//! programs that were loaded for other maps than the pinned ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::maps::MapInfo;
use aya::programs::{CgroupSockAddr, CgroupSockAddrAttachType, Program, ProgramError, ProgramInfo, SchedClassifier};
use aya::{Ebpf, EbpfLoader};

use super::shape;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/portolan.bpf.o");

/// Programs at devices.
const CLASSIFIERS: [&str; 5] = ["from_pod", "to_pod", "from_netdev", "to_netdev", "to_lo"];

/// Programs of socket LB, and where they are attached.
pub const SOCK_ADDRS: [(&str, CgroupSockAddrAttachType); 7] = [
    ("connect4", CgroupSockAddrAttachType::Connect4),
    ("sendmsg4", CgroupSockAddrAttachType::UDPSendMsg4),
    ("recvmsg4", CgroupSockAddrAttachType::UDPRecvMsg4),
    ("getpeername4", CgroupSockAddrAttachType::GetPeerName4),
    ("connect6", CgroupSockAddrAttachType::Connect6),
    ("recvmsg6", CgroupSockAddrAttachType::UDPRecvMsg6),
    ("getpeername6", CgroupSockAddrAttachType::GetPeerName6),
];

/// Verified programs, each with its pin.
pub(super) struct Programs {
    classifiers: BTreeMap<&'static str, SchedClassifier>,
    sock_addrs: BTreeMap<&'static str, CgroupSockAddr>,
}

impl Programs {
    /// Takes over the pinned programs, or has the kernel verify and pin them. Creates the pinned maps where they are
    /// missing.
    ///
    /// # Errors
    /// If the kernel refuses a program (with the verifier's words) or a pin.
    pub(super) fn open(pins: &Path) -> Result<Self> {
        let dir = dir(pins);
        if let Some(programs) = Self::adopt(&dir, pins)? {
            tracing::debug!(dir = %dir.display(), "took over the pinned programs");
            return Ok(programs);
        }
        load(&dir, pins)?;
        Self::pinned(&dir)
    }

    /// The pinned programs, if all are there and use the pinned maps.
    fn adopt(dir: &Path, pins: &Path) -> Result<Option<Self>> {
        let mut wanted = BTreeMap::new();
        for map in shape::MAPS {
            let path = pins.join("maps").join(map.name);
            if !path.exists() {
                return Ok(None);
            }
            let info = MapInfo::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
            wanted.insert(map.name.to_owned(), info.id());
        }
        let mut used = BTreeSet::new();
        for name in names() {
            let path = dir.join(name);
            if !path.exists() {
                return Ok(None);
            }
            let info = ProgramInfo::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
            used.extend(info.map_ids()?.unwrap_or_default());
        }
        let mut found = BTreeMap::new();
        for id in used {
            let info = MapInfo::from_id(id).with_context(|| format!("looking at map {id}"))?;
            let name = info.name_as_str().unwrap_or_default().to_owned();
            if wanted.contains_key(&name) {
                found.insert(name, id);
            }
        }
        if found != wanted {
            tracing::info!(dir = %dir.display(), "the pinned programs belong to other maps; loading them anew");
            return Ok(None);
        }
        Self::pinned(dir).map(Some)
    }

    fn pinned(dir: &Path) -> Result<Self> {
        let place = |name: &str| dir.join(name);
        let said = |name: &str| format!("opening {}", place(name).display());
        let classifiers = CLASSIFIERS
            .into_iter()
            .map(|name| Ok((name, SchedClassifier::from_pin(place(name)).with_context(|| said(name))?)))
            .collect::<Result<_>>()?;
        let sock_addrs = SOCK_ADDRS
            .into_iter()
            .map(|(name, kind)| Ok((name, CgroupSockAddr::from_pin(place(name), kind).with_context(|| said(name))?)))
            .collect::<Result<_>>()?;
        Ok(Self { classifiers, sock_addrs })
    }

    /// A program for devices.
    ///
    /// # Errors
    /// If there is none of this name.
    pub(super) fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        self.classifiers.get_mut(name).with_context(|| format!("the BPF object has no program {name} for devices"))
    }

    /// A program of socket LB.
    ///
    /// # Errors
    /// If there is none of this name.
    pub(super) fn sock_addr(&mut self, name: &str) -> Result<&mut CgroupSockAddr> {
        self.sock_addrs.get_mut(name).with_context(|| format!("the BPF object has no program {name} for cgroups"))
    }

    /// Removes the pins of the programs of other objects; links that still run one keep it alive.
    ///
    /// # Errors
    /// If a directory cannot be removed.
    pub(super) fn remove_others(pins: &Path) -> Result<()> {
        let (all, own) = (pins.join("programs"), dir(pins));
        for entry in std::fs::read_dir(&all).with_context(|| format!("reading {}", all.display()))? {
            let path = entry?.path();
            if path != own {
                std::fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(())
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    CLASSIFIERS.into_iter().chain(SOCK_ADDRS.into_iter().map(|(name, _)| name))
}

/// Where the programs of this agent's object are pinned.
fn dir(pins: &Path) -> PathBuf {
    pins.join("programs").join(format!("{:016x}", shape::fnv1a(OBJECT)))
}

/// Loads the object, with the pinned maps, and pins its programs. `dir` holds all programs of one load or is not there:
/// they share maps that have no pin.
fn load(dir: &Path, pins: &Path) -> Result<()> {
    let mut loader = EbpfLoader::new();
    for map in shape::MAPS {
        loader.map_pin_path(map.name, pins.join("maps").join(map.name));
    }
    let mut ebpf = loader.load(OBJECT).context("loading the BPF object; the kernel needs BTF and BPF (Linux 6.6)")?;
    // A name with a dot is refused by bpffs.
    let fresh = dir.with_file_name("new");
    for stale in [fresh.as_path(), dir] {
        match std::fs::remove_dir_all(stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", stale.display()));
            }
            _ => {}
        }
    }
    std::fs::create_dir_all(&fresh).with_context(|| format!("creating {}", fresh.display()))?;
    for name in names() {
        load_one(&mut ebpf, name, &fresh.join(name))?;
    }
    std::fs::rename(&fresh, dir).with_context(|| format!("renaming {} to {}", fresh.display(), dir.display()))
}

fn load_one(ebpf: &mut Ebpf, name: &str, pin: &Path) -> Result<()> {
    let program = ebpf.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?;
    let loaded = match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    loaded.with_context(|| format!("the kernel refused BPF program {name}"))?;
    program.pin(pin).with_context(|| format!("pinning {}", pin.display()))
}
