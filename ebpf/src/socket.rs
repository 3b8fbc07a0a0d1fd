//! Socket LB: the destination is replaced once, in the system call, so that no packet needs translation.
//!
//! An IPv6 socket that dials an IPv4-mapped address (RFC 4291 section 2.5.5.2) speaks IPv4: Go, Java and Node.js do so by
//! default. Its connect, recvmsg and getpeername come by the IPv6 hooks; its sendmsg is handed to IPv4 by the kernel.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{
    bpf_get_prandom_u32, bpf_get_socket_cookie,
    generated::{bpf_get_netns_cookie, bpf_set_retval},
};
use aya_ebpf::programs::SockAddrContext;
use portolan_ebpf::{Addr, CONFIG_SOCKET_LB, Event, Hook, NodeConfig, SockRevKey, SockRevVal, proto};

use crate::engine::{is_loopback, is_own};
use crate::maps::{SOCK_REV, config, count};
use crate::service;

/// Verdict of a cgroup program: let the system call go on.
const ALLOW: i32 = 1;
/// Verdict: fail the system call with the error set by `bpf_set_retval`.
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// The destination that the system call names.
struct Dialled {
    addr: Addr,
    port: u16,
    protocol: u8,
}

/// connect and sendmsg: from the dialled address to a backend.
#[inline(always)]
pub fn to_backend(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let Some(config) = config() else { return ALLOW };
    if config.flags & CONFIG_SOCKET_LB == 0 {
        return ALLOW;
    }
    let Some(dialled) = read(ctx, hook) else { return ALLOW };
    if dialled.protocol != proto::TCP && dialled.protocol != proto::UDP {
        return ALLOW;
    }
    // In a pod 127.0.0.1 is the pod, not the node.
    // SAFETY: a helper on a valid context.
    let in_host = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } == config.host_netns_cookie;
    let own = is_own(&dialled.addr) && (in_host || !is_loopback(&dialled.addr));
    match choose(&dialled, own, config, ctx, hook) {
        Some(Ok(backend)) => write(ctx, hook, &backend.0, backend.1),
        Some(Err(())) => {
            // SAFETY: a helper with a scalar.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            return DENY;
        }
        None => {}
    }
    ALLOW
}

/// The backend for what was dialled, `Err` to refuse, `None` if it is no Service's or the tc programs are to decide.
#[inline(always)]
fn choose(
    dialled: &Dialled,
    own: bool,
    config: &NodeConfig,
    ctx: &SockAddrContext,
    hook: Hook,
) -> Option<Result<(Addr, u16), ()>> {
    let Some(found) = service::frontend(&dialled.addr, dialled.port, dialled.protocol, own, config) else {
        if own || service::vip(&dialled.addr).is_none() {
            return None;
        }
        count(hook, Event::Seen);
        count(hook, Event::RejectNoPort);
        return Some(Err(()));
    };
    count(hook, Event::Seen);
    let live = service::service(found.svc_id)?;
    if live.count == 0 {
        count(hook, Event::RejectNoBackend);
        return Some(Err(()));
    }
    // SAFETY: a helper on a valid context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // Datagrams of one socket stay with one backend, connections spread.
    let number = if dialled.protocol == proto::UDP {
        (cookie ^ (cookie >> 32)) as u32
    } else {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    };
    let Some((_, backend)) = service::backend(found.svc_id, &live, number) else {
        count(hook, Event::DropNoSlot);
        return None;
    };
    let key = SockRevKey { cookie, addr: backend.addr, port: backend.port, pad: [0; 6] };
    let val = SockRevVal { addr: dialled.addr, port: dialled.port, pad: 0, svc_id: found.svc_id };
    if SOCK_REV.insert(&key, &val, 0).is_err() {
        count(hook, Event::DropMapFull);
        return None;
    }
    count(hook, Event::ServiceNew);
    Some(Ok((backend.addr, backend.port)))
}

/// recvmsg and getpeername: from the backend to the address that was dialled.
#[inline(always)]
pub fn to_frontend(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let Some(peer) = read(ctx, hook) else { return ALLOW };
    // SAFETY: a helper on a valid context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let key = SockRevKey { cookie, addr: peer.addr, port: peer.port, pad: [0; 6] };
    // SAFETY: copied out at once.
    if let Some(dialled) = unsafe { SOCK_REV.get(&key) }.copied() {
        count(hook, Event::Reply);
        write(ctx, hook, &dialled.addr, dialled.port);
    }
    ALLOW
}

#[inline(always)]
const fn is_v6(hook: Hook) -> bool {
    matches!(hook, Hook::Connect6 | Hook::Recvmsg6 | Hook::Getpeername6)
}

/// The address in the context; `None` for IPv6 proper.
#[inline(always)]
fn read(ctx: &SockAddrContext, hook: Hook) -> Option<Dialled> {
    let sock: *mut bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the context is valid; each field is read at its own width.
    unsafe {
        let port = core::ptr::read_volatile(&raw const (*sock).user_port) as u16;
        let protocol = core::ptr::read_volatile(&raw const (*sock).protocol) as u8;
        let addr = if is_v6(hook) {
            let mut words = [0; 4];
            words[0] = core::ptr::read_volatile(&raw const (*sock).user_ip6[0]);
            words[1] = core::ptr::read_volatile(&raw const (*sock).user_ip6[1]);
            words[2] = core::ptr::read_volatile(&raw const (*sock).user_ip6[2]);
            words[3] = core::ptr::read_volatile(&raw const (*sock).user_ip6[3]);
            if words[0] != 0 || words[1] != 0 || words[2] != 0xffff_u32.to_be() {
                return None;
            }
            Addr { words }
        } else {
            Addr::from_v4_be(core::ptr::read_volatile(&raw const (*sock).user_ip4))
        };
        Some(Dialled { addr, port, protocol })
    }
}

#[inline(always)]
fn write(ctx: &SockAddrContext, hook: Hook, addr: &Addr, port: u16) {
    let sock: *mut bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the context is valid and the fields are writable in these hooks. The mapped prefix stays as it is.
    unsafe {
        if is_v6(hook) {
            core::ptr::write_volatile(&raw mut (*sock).user_ip6[3], addr.v4_be());
        } else {
            core::ptr::write_volatile(&raw mut (*sock).user_ip4, addr.v4_be());
        }
        core::ptr::write_volatile(&raw mut (*sock).user_port, u32::from(port));
    }
}
