//! From a dialled address to a backend.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use portolan_ebpf::{
    Addr, BackendVal, Event, FAMILY_V4, FRONTEND_CLUSTER_IP, FrontendKey, FrontendVal, Hook, NodeConfig, ServiceVal,
    SlotKey, proto,
};

use crate::engine::{is_own, is_pod_here};
use crate::maps::{BACKENDS, FRONTENDS, SERVICES, SLOTS, Scratch, count};

/// What a look-up said.
pub enum Choice {
    /// `wire` has the backend.
    Backend,
    /// The address is not a Service's.
    NoService,
    /// Refuse.
    Reject,
    /// Drop; counted.
    Drop,
}

/// Chooses a backend for the packet's destination and writes it to `s.wire`.
#[inline(always)]
pub fn choose(s: &mut Scratch, hook: Hook, config: &NodeConfig) -> Choice {
    let own = is_own(&s.pkt.dst);
    let ports = s.pkt.proto == proto::TCP || s.pkt.proto == proto::UDP;
    let found = if ports { frontend(&s.pkt.dst, s.pkt.dport, s.pkt.proto, own, config) } else { None };
    let outside = matches!(hook, Hook::FromNetdev);
    let Some(found) = found else {
        return unknown_port(s, hook, own, outside);
    };
    if outside && found.flags & FRONTEND_CLUSTER_IP != 0 {
        count(hook, Event::DropClusterIpFromOutside);
        return Choice::Drop;
    }
    let Some(service) = service(found.svc_id) else {
        count(hook, Event::DropNoSlot);
        return Choice::Drop;
    };
    if service.count == 0 {
        count(hook, Event::RejectNoBackend);
        return Choice::Reject;
    }
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    let Some((id, backend)) = backend(found.svc_id, &service, random) else {
        count(hook, Event::DropNoSlot);
        return Choice::Drop;
    };
    s.wire.dst = backend.addr;
    s.wire.dport = backend.port;
    s.wire.svc_id = found.svc_id;
    s.wire.backend_id = id;
    Choice::Backend
}

/// A VIP without that port is refused here; passed on, the packet would bounce between router and node until its TTL
/// ends (cilium/cilium #13329).
#[inline(always)]
fn unknown_port(s: &Scratch, hook: Hook, own: bool, outside: bool) -> Choice {
    if own {
        return Choice::NoService;
    }
    let Some(wildcard) = vip(&s.pkt.dst) else { return Choice::NoService };
    if outside && wildcard.flags & FRONTEND_CLUSTER_IP != 0 {
        count(hook, Event::DropClusterIpFromOutside);
        return Choice::Drop;
    }
    count(hook, Event::RejectNoPort);
    Choice::Reject
}

/// The entry that marks an address as a VIP.
#[inline(always)]
pub fn vip(addr: &Addr) -> Option<FrontendVal> {
    let key = FrontendKey { addr: *addr, port: 0, proto: 0, family: FAMILY_V4 };
    // SAFETY: copied out at once.
    unsafe { FRONTENDS.get(&key) }.copied()
}

/// Whether a packet whose ports are not known may be one that has to be translated. What the node's own sockets send and
/// get is left to the stack: it puts fragments together in any order.
#[inline(always)]
pub fn may_translate(s: &Scratch, hook: Hook) -> bool {
    matches!(hook, Hook::FromPod) || is_pod_here(&s.pkt.dst) || vip(&s.pkt.dst).is_some()
}

/// The frontend of an address and port; `own` says that the address is this node's, so NodePorts apply.
#[inline(always)]
pub fn frontend(dst: &Addr, port: u16, proto: u8, own: bool, config: &NodeConfig) -> Option<FrontendVal> {
    let mut key = FrontendKey { addr: *dst, port, proto, family: FAMILY_V4 };
    // SAFETY: copied out at once.
    if let Some(found) = unsafe { FRONTENDS.get(&key) } {
        return Some(*found);
    }
    let host = u16::from_be(port);
    if !own || host < config.node_port_min || host > config.node_port_max {
        return None;
    }
    key.addr = Addr::UNSPECIFIED;
    // SAFETY: copied out at once.
    unsafe { FRONTENDS.get(&key) }.copied()
}

/// The live generation of a service.
#[inline(always)]
pub fn service(id: u32) -> Option<ServiceVal> {
    // SAFETY: copied out at once; the value is replaced as a whole.
    unsafe { SERVICES.get(&id) }.copied()
}

/// A backend of the live generation, by a number that picks the slot.
#[inline(always)]
pub fn backend(svc_id: u32, service: &ServiceVal, number: u32) -> Option<(u32, BackendVal)> {
    if service.count == 0 {
        return None;
    }
    let key = SlotKey { svc_id, generation: service.generation, slot: number % service.count };
    // SAFETY: copied out at once.
    let id = unsafe { SLOTS.get(&key) }.copied()?;
    // SAFETY: copied out at once.
    let backend = unsafe { BACKENDS.get(&id) }.copied()?;
    Some((id, backend))
}
