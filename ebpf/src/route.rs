//! Routing: into a pod on this node, to the node's own stack, or out of a device, by BPF and not by the kernel's
//! forwarding, so that a forward policy in netfilter does not see the traffic of pods.

use aya_ebpf::bindings::{BPF_F_INGRESS, bpf_fib_lookup as FibParams, bpf_redir_neigh};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use aya_ebpf::programs::TcContext;
use portolan_ebpf::{AddrKey, EndpointVal, Event, FAMILY_V4, Hook, MARK_DONE, MARK_MASK};

use crate::engine::is_own;
use crate::maps::{ENDPOINTS, Scratch, config, count};
use crate::rewrite::decrement_ttl;
use crate::{DROP, NEXT};

const AF_INET: u8 = 2;
const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGH: i64 = 7;

/// Sends the packet on from `hook` by its (rewritten) destination.
#[inline(always)]
pub fn go(ctx: &TcContext, s: &mut Scratch, hook: Hook) -> i32 {
    match hook {
        Hook::FromPod | Hook::FromNetdev => forward(ctx, s, hook),
        _ => from_host(ctx, s, hook),
    }
}

/// A packet that came in from a pod or from a device.
#[inline(always)]
fn forward(ctx: &TcContext, s: &mut Scratch, hook: Hook) -> i32 {
    if let Some(pod) = pod(s) {
        return into_pod(ctx, &pod, hook);
    }
    if is_own(&s.wire.dst) {
        if is_own(&s.wire.src) {
            return into_lo(ctx, hook);
        }
        count(hook, Event::ToStack);
        return NEXT;
    }
    out_by_fib(ctx, s, hook)
}

/// A packet that the node itself sends: only if its destination changed must it take another way than the kernel chose.
#[inline(always)]
fn from_host(ctx: &TcContext, s: &mut Scratch, hook: Hook) -> i32 {
    mark(ctx);
    if s.wire.dst == s.pkt.dst || matches!(hook, Hook::ToPod) {
        return NEXT;
    }
    if let Some(pod) = pod(s) {
        count(hook, Event::RedirectPod);
        // SAFETY: helper call with scalars; redirect_peer is for ingress only, so the node's side transmits.
        return unsafe { bpf_redirect_neigh(pod.ifindex, core::ptr::null_mut(), 0, 0) as i32 };
    }
    if is_own(&s.wire.dst) {
        if matches!(hook, Hook::ToLo) {
            return NEXT;
        }
        return into_lo(ctx, hook);
    }
    out_by_fib(ctx, s, hook)
}

#[inline(always)]
fn pod(s: &Scratch) -> Option<EndpointVal> {
    let key = AddrKey { addr: s.wire.dst, family: FAMILY_V4, pad: [0; 3] };
    // SAFETY: copied out at once.
    unsafe { ENDPOINTS.get(&key) }.copied()
}

#[inline(always)]
fn into_pod(ctx: &TcContext, pod: &EndpointVal, hook: Hook) -> i32 {
    match decrement_ttl(ctx) {
        Ok(true) => {}
        Ok(false) => return NEXT,
        Err(_) => return fail(hook),
    }
    if set_macs(ctx, &pod.pod_mac, &pod.host_mac).is_err() {
        return fail(hook);
    }
    count(hook, Event::RedirectPod);
    // SAFETY: helper call with scalars.
    unsafe { bpf_redirect_peer(pod.ifindex, 0) as i32 }
}

/// Delivers a packet whose both ends are this node. The stack would take it for a martian on any other device.
#[inline(always)]
pub fn into_lo(ctx: &TcContext, hook: Hook) -> i32 {
    let Some(config) = config() else { return fail(hook) };
    if set_macs(ctx, &[0; 6], &[0; 6]).is_err() {
        return fail(hook);
    }
    mark(ctx);
    count(hook, Event::ToStack);
    // SAFETY: helper call with scalars.
    unsafe { bpf_redirect(config.lo_ifindex, u64::from(BPF_F_INGRESS)) as i32 }
}

#[inline(always)]
fn out_by_fib(ctx: &TcContext, s: &mut Scratch, hook: Hook) -> i32 {
    let Some(fib) = look_up(ctx, s) else {
        // No way that BPF could take (no route, or one that needs the stack's answer): the stack says so.
        count(hook, Event::ToStack);
        return NEXT;
    };
    if matches!(hook, Hook::FromPod | Hook::FromNetdev) {
        match decrement_ttl(ctx) {
            Ok(true) => {}
            Ok(false) => return NEXT,
            Err(_) => return fail(hook),
        }
    }
    mark(ctx);
    count(hook, Event::RedirectDevice);
    // SAFETY: `bpf_redir_neigh` is plain data for which zeroes are valid.
    let mut hop: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    hop.nh_family = u32::from(AF_INET);
    // SAFETY: a plain union; the look-up wrote the next hop's IPv4 address.
    hop.__bindgen_anon_1.ipv4_nh = unsafe { fib.__bindgen_anon_4.ipv4_dst };
    // SAFETY: `hop` lives on the stack and its size is given.
    unsafe { bpf_redirect_neigh(fib.ifindex, &mut hop, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}

/// The device that traffic to the wire tuple's destination leaves by.
#[inline(always)]
pub fn device_towards(ctx: &TcContext, s: &Scratch) -> Option<u32> {
    look_up(ctx, s).map(|fib| fib.ifindex)
}

#[inline(always)]
fn look_up(ctx: &TcContext, s: &Scratch) -> Option<FibParams> {
    // SAFETY: `bpf_fib_lookup` is plain data for which zeroes are valid.
    let mut fib: FibParams = unsafe { core::mem::zeroed() };
    fib.family = AF_INET;
    fib.l4_protocol = s.pkt.proto;
    // SAFETY: the context is valid.
    fib.ifindex = unsafe { (*ctx.skb.skb).ifindex };
    fib.__bindgen_anon_3.ipv4_src = s.wire.src.v4_be();
    fib.__bindgen_anon_4.ipv4_dst = s.wire.dst.v4_be();
    // SAFETY: context and parameters are valid, the size is theirs.
    let code = unsafe { bpf_fib_lookup(ctx.skb.skb.cast(), &mut fib, size_of::<FibParams>() as i32, 0) } as i64;
    (code == FIB_SUCCESS || code == FIB_NO_NEIGH).then_some(fib)
}

/// Writes both MAC addresses.
#[inline(always)]
pub fn set_macs(ctx: &TcContext, dst: &[u8; 6], src: &[u8; 6]) -> Result<(), i64> {
    ctx.store(0, dst, 0)?;
    ctx.store(6, src, 0)
}

/// Marks the packet as done, so that later hooks on this node let it pass.
#[inline(always)]
pub fn mark(ctx: &TcContext) {
    // SAFETY: the context is valid; `mark` is writable for tc programs.
    unsafe { (*ctx.skb.skb).mark = ((*ctx.skb.skb).mark & !MARK_MASK) | MARK_DONE };
}

#[inline(always)]
fn fail(hook: Hook) -> i32 {
    count(hook, Event::DropRewrite);
    DROP
}
