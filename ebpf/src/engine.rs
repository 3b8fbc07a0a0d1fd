//! The NAT engine. A flow has an original tuple (what the client sent) and a wire tuple (what the backend sees). The
//! reply entry, whose key is the reversed wire tuple, is inserted with "must not exist": that reserves the wire tuple,
//! so that one client port may be used for a NodePort, a VIP and the backend's own address at the same time.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_prandom_u32, generated::bpf_ktime_get_coarse_ns, generated::bpf_loop};
use aya_ebpf::programs::TcContext;
use portolan_ebpf::{
    Addr, AddrKey, CONFIG_MASQUERADE, DIR_FORWARD, DIR_REPLY, Event, FAMILY_V4, FLOW_FIN_FORWARD, FLOW_FIN_REPLY,
    FLOW_RST, FLOW_SEEN_REPLY, FlowKey, FlowVal, Hook, NODE_ADDR_LOCAL, NodeConfig, flow_timeout_s, proto,
};

use crate::maps::{BACKENDS, DEVICES, ENDPOINTS, FLOWS, NODE_ADDRS, Scratch, config, count};
use crate::packet::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use crate::service::{self, Choice};
use crate::{rewrite, route};

/// How a packet goes on.
pub enum Outcome {
    /// Decided; routing comes next.
    Route,
    /// None of our business.
    Ignore,
    /// Refuse.
    Reject,
    /// Drop; the reason has been counted.
    Drop,
}

/// Draws of a source port before a new flow is dropped. Half full, 2^-16 of new flows fail. A port that nobody has is
/// better than one whose flow has ended (the other side may still wait in TIME_WAIT), so the first half looks for one.
const TRIES: u32 = 16;
/// `last_seen_ns` is written at most once a second: a hot flow must not dirty its cache line on every packet.
const TOUCH_NS: u64 = SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;
const BPF_NOEXIST: u64 = 1;
const BPF_EXIST: u64 = 2;

/// Looks the packet's flow up, or begins one, and rewrites the packet. There is one place that rewrites, whatever came
/// before it, because the verifier goes through what follows once for each.
#[inline(always)]
pub fn translate(ctx: &TcContext, s: &mut Scratch, hook: Hook) -> Outcome {
    let event = if known_reply(s) {
        Some(Event::Reply)
    } else if known_forward(s) {
        Some(Event::Forward)
    } else {
        match begin(ctx, s, hook) {
            Outcome::Route => None,
            other => return other,
        }
    };
    if rewrite::needed(s) {
        if rewrite::apply(ctx, s).is_err() {
            count(hook, Event::DropRewrite);
            return Outcome::Drop;
        }
        if let Some(event) = event {
            count(hook, event);
        }
    }
    Outcome::Route
}

#[inline(always)]
fn known_reply(s: &mut Scratch) -> bool {
    s.key = s.pkt;
    s.key.dir = DIR_REPLY;
    let Some(found) = FLOWS.get_ptr_mut(&s.key) else { return false };
    // SAFETY: the entry outlives the program run; a concurrent writer can only change flags and time.
    let found = unsafe { &mut *found };
    if opens(s) && found.closed() {
        // The responder of a connection that has ended dials its former client: that is a flow of its own.
        s.wire = *found;
        end_reply(s);
        return false;
    }
    touch(found, s.tcp_flags, FLOW_SEEN_REPLY, FLOW_FIN_REPLY);
    s.wire = *found;
    if found.svc_id != 0 && s.tcp_flags & (TCP_FIN | TCP_RST) != 0 {
        mark_forward_closed(s);
    }
    true
}

/// True for the packet that begins a TCP connection.
#[inline(always)]
fn opens(s: &Scratch) -> bool {
    s.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
}

/// Deletes both entries of the flow whose reply key is in `s.key` and whose reply value is in `s.wire`, and resets the
/// wire tuple.
#[inline(always)]
fn end_reply(s: &mut Scratch) {
    let _ = FLOWS.remove(&s.key);
    s.key = forward_of(&s.wire, s.pkt.proto);
    let _ = FLOWS.remove(&s.key);
    reset_wire(s);
}

/// The forward key of the flow that has this reply value.
#[inline(always)]
fn forward_of(reply: &FlowVal, protocol: u8) -> FlowKey {
    FlowKey {
        src: reply.dst,
        dst: reply.src,
        sport: reply.dport,
        dport: reply.sport,
        proto: protocol,
        family: FAMILY_V4,
        dir: DIR_FORWARD,
        pad: 0,
    }
}

/// The forward entry decides on port reuse, so it must know that the other side closed.
#[inline(always)]
fn mark_forward_closed(s: &mut Scratch) {
    s.key = forward_of(&s.wire, s.pkt.proto);
    if let Some(forward) = FLOWS.get_ptr_mut(&s.key) {
        // SAFETY: as above.
        unsafe { (*forward).flags |= FLOW_FIN_REPLY };
    }
}

#[inline(always)]
fn known_forward(s: &mut Scratch) -> bool {
    s.key = s.pkt;
    let Some(found) = FLOWS.get_ptr_mut(&s.key) else { return false };
    // SAFETY: as in `known_reply`.
    let found = unsafe { &mut *found };
    let closed = found.flags & (FLOW_FIN_FORWARD | FLOW_FIN_REPLY | FLOW_RST) != 0;
    // SAFETY: only tested for presence.
    let gone = found.svc_id != 0 && unsafe { BACKENDS.get(&found.backend_id) }.is_none();
    s.wire = *found;
    if (opens(s) && closed) || gone {
        forget(s);
        return false;
    }
    touch(found, s.tcp_flags, 0, FLOW_FIN_FORWARD);
    s.wire = *found;
    // The reply entry may have been evicted on its own: put it back, or the flow would die (cilium/cilium #29305).
    reply_of_wire(s);
    match FLOWS.get_ptr_mut(&s.key) {
        None => {
            s.val = reversed_original(s);
            let _ = FLOWS.insert(&s.key, &s.val, BPF_NOEXIST);
        }
        Some(reply) if s.tcp_flags & (TCP_FIN | TCP_RST) != 0 => {
            // SAFETY: as in `known_reply`.
            unsafe { (*reply).flags |= FLOW_FIN_FORWARD };
        }
        Some(_) => {}
    }
    true
}

/// Deletes both entries of the flow whose forward value is in `s.wire`, and resets the wire tuple.
#[inline(always)]
fn forget(s: &mut Scratch) {
    reply_of_wire(s);
    let _ = FLOWS.remove(&s.key);
    s.key = s.pkt;
    let _ = FLOWS.remove(&s.key);
    reset_wire(s);
}

/// Makes the wire tuple what was received.
#[inline(always)]
pub fn reset_wire(s: &mut Scratch) {
    s.wire = FlowVal {
        src: s.pkt.src,
        dst: s.pkt.dst,
        sport: s.pkt.sport,
        dport: s.pkt.dport,
        flags: 0,
        svc_id: 0,
        backend_id: 0,
        last_seen_ns: 0,
    };
}

#[inline(always)]
fn touch(flow: &mut FlowVal, tcp_flags: u32, seen: u32, fin: u32) {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if now.wrapping_sub(flow.last_seen_ns) > TOUCH_NS {
        flow.last_seen_ns = now;
    }
    let mut flags = seen;
    if tcp_flags & TCP_FIN != 0 {
        flags |= fin;
    }
    if tcp_flags & TCP_RST != 0 {
        flags |= FLOW_RST;
    }
    if flow.flags & flags != flags {
        flow.flags |= flags;
    }
}

/// A flow that is not known: choose a backend if it dials a Service, decide on SNAT, reserve the wire tuple.
#[inline(always)]
fn begin(ctx: &TcContext, s: &mut Scratch, hook: Hook) -> Outcome {
    let Some(config) = config() else { return Outcome::Ignore };
    let choice = if matches!(hook, Hook::ToPod) { Choice::NoService } else { service::choose(s, hook, config) };
    let is_service = match choice {
        Choice::Backend => true,
        Choice::NoService => false,
        Choice::Reject => return Outcome::Reject,
        Choice::Drop => return Outcome::Drop,
    };
    if !is_service && matches!(hook, Hook::ToLo) {
        return Outcome::Ignore;
    }
    let snat = source_to_use(ctx, s, hook, config, is_service);
    if let Some(addr) = snat {
        s.wire.src = Addr::from_v4_be(addr);
    }
    if s.later_fragment != 0 {
        // Its first fragment began the flow; reaching this means that entry is gone again.
        count(hook, Event::DropFragment);
        return Outcome::Drop;
    }
    match reserve(s, hook, config, snat.is_some()) {
        Ok(Reserved::Known) => {}
        Ok(Reserved::New) => count_new(hook, is_service, snat.is_some()),
        Err(outcome) => return outcome,
    }
    if rewrite::needed(s) {
        // `reserve` has left the time of this packet in the reply entry.
        let now = s.val.last_seen_ns;
        s.key = s.pkt;
        s.val = s.wire;
        s.val.last_seen_ns = now;
        if FLOWS.insert(&s.key, &s.val, 0).is_err() {
            count(hook, Event::DropMapFull);
            return Outcome::Drop;
        }
    }
    Outcome::Route
}

#[inline(always)]
fn count_new(hook: Hook, is_service: bool, snat: bool) {
    if is_service {
        count(hook, Event::ServiceNew);
    }
    if snat {
        count(hook, Event::Snat);
    }
    if !is_service && !snat {
        count(hook, Event::Direct);
    }
}

/// The source address that the packet must get so that the answer comes back through this node, if any.
#[inline(always)]
fn source_to_use(ctx: &TcContext, s: &Scratch, hook: Hook, config: &NodeConfig, is_service: bool) -> Option<u32> {
    if is_service && s.wire.dst == s.pkt.src {
        // Hairpin: a pod must not see its own address as the peer's.
        return (!is_own(&s.pkt.src)).then_some(config.node_v4);
    }
    match hook {
        Hook::FromNetdev => (is_service && !is_here(&s.wire.dst)).then_some(config.node_v4),
        Hook::FromPod => {
            let dst = s.wire.dst.v4_be();
            let masquerade = config.flags & CONFIG_MASQUERADE != 0
                && dst & config.native_v4_mask != config.native_v4_addr
                && node_addr(&s.wire.dst) == 0
                && !is_pod_here(&s.wire.dst);
            if !masquerade {
                return None;
            }
            let device = route::device_towards(ctx, s)?;
            // SAFETY: copied out at once.
            unsafe { DEVICES.get(&device) }.map(|device| device.addr.v4_be())
        }
        Hook::ToLo => is_loopback(&s.pkt.src).then_some(config.node_v4),
        _ => None,
    }
}

/// How a wire tuple came to be this packet's.
enum Reserved {
    /// It is new.
    New,
    /// It was this flow's already: flows that need no rewriting have only this entry.
    Known,
}

/// Reserves the wire tuple by its reply entry; draws another source port where it is taken.
#[inline(always)]
fn reserve(s: &mut Scratch, hook: Hook, config: &NodeConfig, snat: bool) -> Result<Reserved, Outcome> {
    let (low, high) = (u32::from(config.snat_port_min), u32::from(config.snat_port_max));
    let span = if high >= low { high - low + 1 } else { 1 };
    let mut port = u32::from(u16::from_be(s.pkt.sport));
    let echo_reply = s.pkt.proto == proto::ICMP && s.pkt.sport == 0;
    if snat && !echo_reply && (port < low || port > high) {
        port = low + random_below(span);
    }
    s.val = reversed_original(s);
    let mut draw = Draw { s, port, low, span, once: u32::from(echo_reply), attempts: 0, end: End::Taken as u32 };
    // SAFETY: the callback takes what it is given here, and both live until the helper returns.
    unsafe { bpf_loop(TRIES, try_port as *mut c_void, (&raw mut draw).cast(), 0) };
    match draw.end {
        end if end == End::New as u32 => {
            if draw.attempts > 1 {
                count(hook, Event::PortMoved);
            }
            Ok(Reserved::New)
        }
        end if end == End::Reclaimed as u32 => {
            count(hook, Event::PortReclaimed);
            Ok(Reserved::New)
        }
        end if end == End::Known as u32 => Ok(Reserved::Known),
        end if end == End::MapFull as u32 => {
            count(hook, Event::DropMapFull);
            Err(Outcome::Drop)
        }
        _ => {
            count(hook, Event::DropNoPort);
            Err(Outcome::Drop)
        }
    }
}

/// What the draws of a source port work on. A callback of `bpf_loop`, and not a loop: the verifier then looks at one
/// draw in place of all sixteen, in each of the states in which it can be reached.
#[repr(C)]
struct Draw {
    s: *mut Scratch,
    port: u32,
    low: u32,
    span: u32,
    /// The port cannot be another.
    once: u32,
    attempts: u32,
    /// An `End`; a number, so that the verifier need not know that it is one of them.
    end: u32,
}

/// How the draws ended.
#[repr(u32)]
enum End {
    /// All ports that were drawn are taken.
    Taken,
    New,
    Reclaimed,
    Known,
    MapFull,
}

/// Tries one port; 1 if that was the last try.
unsafe extern "C" fn try_port(attempt: u32, draw: *mut c_void) -> i64 {
    // SAFETY: `reserve` gives its own `Draw`, which nobody else uses meanwhile.
    let draw = unsafe { &mut *draw.cast::<Draw>() };
    // SAFETY: as above; the scratch space is this CPU's.
    let s = unsafe { &mut *draw.s };
    s.wire.sport = (draw.port as u16).to_be();
    reply_of_wire(s);
    draw.attempts = attempt + 1;
    if FLOWS.insert(&s.key, &s.val, BPF_NOEXIST).is_ok() {
        draw.end = End::New as u32;
        return 1;
    }
    let Some(held) = FLOWS.get_ptr_mut(&s.key) else {
        draw.end = End::MapFull as u32;
        return 1;
    };
    // SAFETY: as in `known_reply`.
    let held = unsafe { &mut *held };
    if same_original(held, &s.val) {
        touch(held, s.tcp_flags, 0, FLOW_FIN_FORWARD);
        draw.end = End::Known as u32;
        return 1;
    }
    if attempt >= TRIES / 2 && has_ended(held, &s.val, s.pkt.proto) && take_over(s, held) {
        draw.end = End::Reclaimed as u32;
        return 1;
    }
    draw.port = draw.low + random_below(draw.span);
    i64::from(draw.once != 0)
}

#[inline(always)]
fn same_original(held: &FlowVal, ours: &FlowVal) -> bool {
    held.src == ours.src && held.dst == ours.dst && held.sport == ours.sport && held.dport == ours.dport
}

/// Whether the flow that holds a wire tuple is over, so that another may have it before the agent sweeps it away.
#[inline(always)]
fn has_ended(held: &FlowVal, ours: &FlowVal, protocol: u8) -> bool {
    held.closed() || ours.last_seen_ns.saturating_sub(held.last_seen_ns) > flow_timeout_s(protocol, held) * SECOND_NS
}

/// Puts this packet's flow (`s.val`) in the place of one that has ended, whose reply value is `held` and whose reply key
/// is in `s.key`.
#[inline(always)]
fn take_over(s: &mut Scratch, held: &FlowVal) -> bool {
    let forward = forward_of(held, s.pkt.proto);
    if let Some(other) = FLOWS.get_ptr_mut(&forward) {
        // SAFETY: as in `known_reply`.
        let other = unsafe { &*other };
        // The former owner may have begun anew with another wire tuple in the meantime.
        let here = other.sport == s.wire.sport && other.src == s.wire.src && other.dst == s.wire.dst;
        if here && FLOWS.remove(&forward).is_err() {
            return false;
        }
    }
    FLOWS.insert(&s.key, &s.val, BPF_EXIST).is_ok()
}

#[inline(always)]
fn random_below(span: u32) -> u32 {
    // SAFETY: a helper without arguments.
    let drawn = unsafe { bpf_get_prandom_u32() };
    // Without the check, which the compiler cannot leave out here, it would call the panic handler.
    drawn.checked_rem(span).unwrap_or(0)
}

/// Sets `s.key` to the tuple of an answer to the wire tuple.
#[inline(always)]
fn reply_of_wire(s: &mut Scratch) {
    s.key = FlowKey {
        src: s.wire.dst,
        dst: s.wire.src,
        sport: s.wire.dport,
        dport: s.wire.sport,
        proto: s.pkt.proto,
        family: FAMILY_V4,
        dir: DIR_REPLY,
        pad: 0,
    };
}

/// What an answer must look like to the client: the original tuple, reversed.
#[inline(always)]
fn reversed_original(s: &Scratch) -> FlowVal {
    FlowVal {
        src: s.pkt.dst,
        dst: s.pkt.src,
        sport: s.pkt.dport,
        dport: s.pkt.sport,
        flags: 0,
        svc_id: s.wire.svc_id,
        backend_id: s.wire.backend_id,
        // SAFETY: a helper without arguments.
        last_seen_ns: unsafe { bpf_ktime_get_coarse_ns() },
    }
}

/// `NODE_ADDR_*` bits of an address, 0 if it is no node's.
#[inline(always)]
pub fn node_addr(addr: &Addr) -> u32 {
    let key = AddrKey { addr: *addr, family: FAMILY_V4, pad: [0; 3] };
    // SAFETY: copied out at once.
    unsafe { NODE_ADDRS.get(&key) }.copied().unwrap_or(0)
}

/// True for the node's own addresses.
#[inline(always)]
pub fn is_own(addr: &Addr) -> bool {
    node_addr(addr) & NODE_ADDR_LOCAL != 0 || is_loopback(addr)
}

/// True for pods of this node.
#[inline(always)]
pub fn is_pod_here(addr: &Addr) -> bool {
    let key = AddrKey { addr: *addr, family: FAMILY_V4, pad: [0; 3] };
    // SAFETY: only tested for presence.
    unsafe { ENDPOINTS.get(&key) }.is_some()
}

/// True if packets to the address end on this node.
#[inline(always)]
fn is_here(addr: &Addr) -> bool {
    is_own(addr) || is_pod_here(addr)
}

/// 127.0.0.0/8.
#[inline(always)]
pub fn is_loopback(addr: &Addr) -> bool {
    addr.v4_be() & 0xff00_0000_u32.to_be() == 0x7f00_0000_u32.to_be()
}
