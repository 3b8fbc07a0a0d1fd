//! Socket LB: the destination is replaced once, in the system call, so that no packet needs translation.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{
    bpf_get_prandom_u32, bpf_get_socket_cookie,
    generated::{bpf_get_netns_cookie, bpf_set_retval},
};
use aya_ebpf::programs::SockAddrContext;
use portolan_ebpf::{Addr, CONFIG_SOCKET_LB, Event, Hook, SockRevKey, SockRevVal, proto};

use crate::engine::{is_loopback, is_own};
use crate::maps::{SOCK_REV, config, count};
use crate::service;

/// Verdict of a cgroup program: let the system call go on.
const ALLOW: i32 = 1;
/// Verdict: fail the system call with the error set by `bpf_set_retval`.
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// connect and sendmsg: from the dialled address to a backend.
#[inline(always)]
pub fn to_backend(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let Some(config) = config() else { return ALLOW };
    if config.flags & CONFIG_SOCKET_LB == 0 {
        return ALLOW;
    }
    // SAFETY: the context is valid; each field is read at its own width.
    let (ip, port, protocol) = unsafe {
        let sock = ctx.sock_addr;
        (
            core::ptr::read_volatile(&raw const (*sock).user_ip4),
            core::ptr::read_volatile(&raw const (*sock).user_port) as u16,
            core::ptr::read_volatile(&raw const (*sock).protocol) as u8,
        )
    };
    if protocol != proto::TCP && protocol != proto::UDP {
        return ALLOW;
    }
    let dialled = Addr::from_v4_be(ip);
    // In a pod 127.0.0.1 is the pod, not the node.
    // SAFETY: a helper on a valid context.
    let in_host = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } == config.host_netns_cookie;
    let own = is_own(&dialled) && (in_host || !is_loopback(&dialled));
    let Some(found) = service::frontend(&dialled, port, protocol, own, config) else { return ALLOW };
    count(hook, Event::Seen);
    let Some(live) = service::service(found.svc_id) else { return ALLOW };
    if live.count == 0 {
        count(hook, Event::RejectNoBackend);
        // SAFETY: a helper with a scalar.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
        return DENY;
    }
    // SAFETY: a helper on a valid context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // Datagrams of one socket stay with one backend, connections spread.
    // SAFETY: a helper without arguments.
    let number =
        if protocol == proto::UDP { (cookie ^ (cookie >> 32)) as u32 } else { unsafe { bpf_get_prandom_u32() } };
    let Some((_, backend)) = service::backend(found.svc_id, &live, number) else {
        count(hook, Event::DropNoSlot);
        return ALLOW;
    };
    let key = SockRevKey { cookie, addr: backend.addr, port: backend.port, pad: [0; 6] };
    let val = SockRevVal { addr: dialled, port, pad: 0, svc_id: found.svc_id };
    if SOCK_REV.insert(&key, &val, 0).is_err() {
        count(hook, Event::DropMapFull);
        return ALLOW;
    }
    count(hook, Event::ServiceNew);
    write(ctx, &backend.addr, backend.port);
    ALLOW
}

/// recvmsg and getpeername: from the backend to the address that was dialled.
#[inline(always)]
pub fn to_frontend(ctx: &SockAddrContext, hook: Hook) -> i32 {
    // SAFETY: as in `to_backend`.
    let (ip, port) = unsafe {
        let sock = ctx.sock_addr;
        (
            core::ptr::read_volatile(&raw const (*sock).user_ip4),
            core::ptr::read_volatile(&raw const (*sock).user_port) as u16,
        )
    };
    // SAFETY: a helper on a valid context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let key = SockRevKey { cookie, addr: Addr::from_v4_be(ip), port, pad: [0; 6] };
    // SAFETY: copied out at once.
    if let Some(dialled) = unsafe { SOCK_REV.get(&key) }.copied() {
        count(hook, Event::Reply);
        write(ctx, &dialled.addr, dialled.port);
    }
    ALLOW
}

#[inline(always)]
fn write(ctx: &SockAddrContext, addr: &Addr, port: u16) {
    // SAFETY: the context is valid and both fields are writable in these hooks.
    unsafe {
        let sock = ctx.sock_addr;
        core::ptr::write_volatile(&raw mut (*sock).user_ip4, addr.v4_be());
        core::ptr::write_volatile(&raw mut (*sock).user_port, u32::from(port));
    }
}
