//! Entry points of the kernel programs. Each hook runs the same engine once per packet and node; what differs is which
//! Services it may look up and how the packet goes on (`route`). A packet that has been through carries `MARK_DONE`.
#![no_std]
#![no_main]

mod engine;
mod icmp;
mod maps;
mod packet;
mod reject;
mod rewrite;
mod route;
mod service;
mod socket;
mod unreachable;

use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};
use portolan_ebpf::{Event, Hook, MARK_DONE, MARK_MASK};

use crate::engine::Outcome;
use crate::maps::{count, scratch};

/// tc verdict: not ours, the next program or the stack goes on (TCX_NEXT, and TC_ACT_UNSPEC for clsact).
const NEXT: i32 = -1;
/// tc verdict: drop.
const DROP: i32 = 2;

/// What a pod sends.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    run(&ctx, Hook::FromPod)
}

/// What the node itself sends to a pod.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    run(&ctx, Hook::ToPod)
}

/// What arrives at a native device.
#[classifier]
pub fn from_netdev(ctx: TcContext) -> i32 {
    run(&ctx, Hook::FromNetdev)
}

/// What the node itself sends out of a native device.
#[classifier]
pub fn to_netdev(ctx: TcContext) -> i32 {
    run(&ctx, Hook::ToNetdev)
}

/// What the node sends to its own addresses.
#[classifier]
pub fn to_lo(ctx: TcContext) -> i32 {
    run(&ctx, Hook::ToLo)
}

#[inline(always)]
fn run(ctx: &TcContext, hook: Hook) -> i32 {
    // SAFETY: the context is valid for the whole run of the program.
    let mark = unsafe { (*ctx.skb.skb).mark };
    if mark & MARK_MASK == MARK_DONE {
        return NEXT;
    }
    let Some(s) = scratch() else { return NEXT };
    let parsed = packet::parse(ctx, s);
    if matches!(parsed, packet::Parsed::NotIpv4) {
        return NEXT;
    }
    count(hook, Event::Seen);
    let outcome = match parsed {
        packet::Parsed::Flow => engine::translate(ctx, s, hook),
        packet::Parsed::IcmpError => icmp::translate_error(ctx, s, hook),
        packet::Parsed::Untracked => Outcome::Route,
        packet::Parsed::Invalid => {
            count(hook, Event::DropInvalid);
            return DROP;
        }
        packet::Parsed::FragmentWithoutFirst if service::may_translate(s, hook) => {
            count(hook, Event::DropFragment);
            return DROP;
        }
        packet::Parsed::FragmentWithoutFirst => return NEXT,
        packet::Parsed::NotIpv4 => return NEXT,
    };
    match outcome {
        Outcome::Route => route::go(ctx, s, hook),
        Outcome::Ignore => NEXT,
        Outcome::Reject => reject::refuse(ctx, s, hook),
        Outcome::Drop => DROP,
    }
}

/// TCP connect and UDP connect.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    socket::to_backend(&ctx, Hook::Connect4)
}

/// Each datagram of an unconnected UDP socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    socket::to_backend(&ctx, Hook::Sendmsg4)
}

/// The source address that recvfrom and recvmsg report.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::to_frontend(&ctx, Hook::Recvmsg4)
}

/// The address that getpeername reports.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    socket::to_frontend(&ctx, Hook::Getpeername4)
}

/// TCP connect and UDP connect of an IPv6 socket.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    socket::to_backend(&ctx, Hook::Connect6)
}

/// As `recvmsg4`, of an IPv6 socket.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    socket::to_frontend(&ctx, Hook::Recvmsg6)
}

/// As `getpeername4`, of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    socket::to_frontend(&ctx, Hook::Getpeername6)
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
