//! Between what `core` decides on and the kernel's keys and values.

use std::net::{IpAddr, Ipv4Addr};

use aya::maps::MapError;
use portolan_core::datapath::{FrontendEntry, FrontendKey, SlotKey};
use portolan_core::service::{Backend, FrontendKind, Protocol};
use portolan_ebpf as abi;

/// Address and family of the ABI.
#[must_use]
pub fn addr(address: IpAddr) -> (abi::Addr, u8) {
    match address {
        // As the address of a frontend, "unspecified" stands for all of a node's addresses, in either family.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (abi::Addr::UNSPECIFIED, abi::FAMILY_V4),
        IpAddr::V4(v4) => (abi::Addr::from_v4_be(u32::from(v4).to_be()), abi::FAMILY_V4),
        IpAddr::V6(v6) => {
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(v6.octets().chunks_exact(4)) {
                *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            (abi::Addr { words }, abi::FAMILY_V6)
        }
    }
}

/// The address of the ABI as the standard library's.
#[must_use]
pub fn ip(addr: &abi::Addr, family: u8) -> IpAddr {
    if family == abi::FAMILY_V4 {
        return Ipv4Addr::from(u32::from_be(addr.v4_be())).into();
    }
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(addr.words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    octets.into()
}

/// Key of the maps `endpoints` and `node_addrs`.
#[must_use]
pub fn addr_key(address: Ipv4Addr) -> abi::AddrKey {
    abi::AddrKey { addr: abi::Addr::from_v4_be(u32::from(address).to_be()), family: abi::FAMILY_V4, pad: [0; 3] }
}

pub(super) fn backend(backend: &Backend) -> abi::BackendVal {
    let (addr, family) = addr(backend.address);
    abi::BackendVal { addr, port: backend.port.to_be(), proto: backend.protocol.number(), family }
}

pub(super) fn backend_back(value: &abi::BackendVal) -> Option<Backend> {
    Some(Backend {
        address: ip(&value.addr, value.family),
        port: u16::from_be(value.port),
        protocol: protocol(value.proto)?,
    })
}

pub(super) fn slot(key: SlotKey) -> abi::SlotKey {
    abi::SlotKey { svc_id: key.service, generation: key.generation, slot: key.slot }
}

pub(super) fn slot_back(key: &abi::SlotKey) -> SlotKey {
    SlotKey { service: key.svc_id, generation: key.generation, slot: key.slot }
}

pub(super) fn frontend_key(key: &FrontendKey) -> abi::FrontendKey {
    let (addr, family) = addr(key.address);
    abi::FrontendKey { addr, port: key.port.to_be(), proto: key.protocol.map_or(0, Protocol::number), family }
}

pub(super) fn frontend_key_back(key: &abi::FrontendKey) -> Option<FrontendKey> {
    let protocol = if key.proto == 0 { None } else { Some(protocol(key.proto)?) };
    Some(FrontendKey { address: ip(&key.addr, key.family), port: u16::from_be(key.port), protocol })
}

pub(super) fn frontend_val(entry: FrontendEntry) -> abi::FrontendVal {
    let kind = match entry.kind {
        FrontendKind::ClusterIp => abi::FRONTEND_CLUSTER_IP,
        FrontendKind::NodePort => abi::FRONTEND_NODE_PORT,
        FrontendKind::LoadBalancer => abi::FRONTEND_LOAD_BALANCER,
        FrontendKind::ExternalIp => abi::FRONTEND_EXTERNAL_IP,
    };
    let wildcard = if entry.service == 0 { abi::FRONTEND_WILDCARD } else { 0 };
    abi::FrontendVal { svc_id: entry.service, flags: kind | wildcard }
}

pub(super) fn frontend_val_back(value: abi::FrontendVal) -> Option<FrontendEntry> {
    let kinds = [
        (abi::FRONTEND_CLUSTER_IP, FrontendKind::ClusterIp),
        (abi::FRONTEND_NODE_PORT, FrontendKind::NodePort),
        (abi::FRONTEND_LOAD_BALANCER, FrontendKind::LoadBalancer),
        (abi::FRONTEND_EXTERNAL_IP, FrontendKind::ExternalIp),
    ];
    let (_, kind) = kinds.into_iter().find(|(bit, _)| value.flags & bit != 0)?;
    Some(FrontendEntry { service: value.svc_id, kind })
}

fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.number() == number)
}

/// Removing what is not there is what was wanted.
pub(super) fn gone_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
