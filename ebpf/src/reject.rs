//! Refusing: ICMP port unreachable back to the sender, as kube-proxy's REJECT does, for TCP too: a connecting socket
//! reports "connection refused" at once. The error's source is the address that was dialled.

use aya_ebpf::bindings::BPF_F_INGRESS;
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_redirect, bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_tail,
};
use aya_ebpf::programs::TcContext;
use portolan_ebpf::{Event, Hook, proto};

use crate::DROP;
use crate::maps::{Scratch, count};
use crate::packet::{ETH_LEN, Ipv4};
use crate::route;

/// IPv4 header plus ICMP header.
const GROWTH: u32 = 28;
/// Quoted bytes of a TCP packet: both headers. Not less, because the kernel refuses to cut a packet whose partial
/// checksum lies further behind.
const QUOTE_TCP: u32 = 40;
/// Quoted bytes otherwise (RFC 792: header and 64 bits).
const QUOTE: u32 = 28;
const BPF_ADJ_ROOM_MAC: u32 = 1;

/// Turns the packet into the refusal of itself and sends it back.
#[inline(always)]
pub fn port_unreachable(ctx: &TcContext, s: &mut Scratch, hook: Hook) -> i32 {
    let built = if s.l4 != ETH_LEN + 20 || s.later_fragment != 0 {
        Err(0)
    } else if s.pkt.proto == proto::TCP {
        build(ctx, s, QUOTE_TCP)
    } else {
        build(ctx, s, QUOTE)
    };
    if built.is_err() {
        count(hook, Event::DropRewrite);
        return DROP;
    }
    send_back(ctx, hook)
}

#[inline(always)]
fn build(ctx: &TcContext, s: &mut Scratch, quote: u32) -> Result<(), i64> {
    let skb = ctx.skb.skb.cast();
    // SAFETY: helper calls on a valid context.
    let cut = unsafe { bpf_skb_change_tail(skb, ETH_LEN + quote, 0) };
    if cut != 0 {
        return Err(cut as i64);
    }
    // SAFETY: as above.
    let grown = unsafe { bpf_skb_adjust_room(skb, GROWTH as i32, BPF_ADJ_ROOM_MAC, 0) };
    if grown != 0 {
        return Err(grown as i64);
    }
    let icmp_sum = icmp_checksum(ctx, s, quote)?;
    let mut ip = Ipv4 {
        vihl: 0x45,
        tos: 0xc0,
        len: ((GROWTH + quote) as u16).to_be(),
        id: 0,
        frag: 0x4000_u16.to_be(),
        ttl: 64,
        proto: proto::ICMP,
        csum: 0,
        src: s.pkt.dst.v4_be(),
        dst: s.pkt.src.v4_be(),
    };
    // SAFETY: `ip` is 20 bytes of plain data.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, (&raw mut ip).cast(), 20, 0) };
    ip.csum = fold(sum as u64);
    ctx.store(ETH_LEN as usize, &ip, 0)?;
    let icmp: [u16; 4] = [0x0303_u16.to_be(), icmp_sum, 0, 0];
    ctx.store((ETH_LEN + 20) as usize, &icmp, 0)
}

/// Checksum over the ICMP header and the quoted packet.
#[inline(always)]
fn icmp_checksum(ctx: &TcContext, s: &mut Scratch, quote: u32) -> Result<u16, i64> {
    let from = (ETH_LEN + GROWTH) as usize;
    s.buf = [0; 12];
    s.buf[0] = 0x0303_0000_u32.to_be();
    if quote == QUOTE_TCP {
        let quoted = ctx.load::<[u32; 10]>(from)?;
        let mut at = 0;
        while at < 10 {
            s.buf[at + 2] = quoted[at];
            at += 1;
        }
    } else {
        let quoted = ctx.load::<[u32; 7]>(from)?;
        let mut at = 0;
        while at < 7 {
            s.buf[at + 2] = quoted[at];
            at += 1;
        }
    }
    // SAFETY: the buffer is 48 bytes; its unused tail is zero and adds nothing.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, s.buf.as_mut_ptr(), 48, 0) };
    Ok(fold(sum as u64))
}

#[inline(always)]
fn fold(sum: u64) -> u16 {
    let mut sum = (sum & 0xffff_ffff) as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[inline(always)]
fn send_back(ctx: &TcContext, hook: Hook) -> i32 {
    // SAFETY: the context is valid.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    if matches!(hook, Hook::ToLo) {
        return route::into_lo(ctx, hook);
    }
    let (Ok(dst), Ok(src)) = (ctx.load::<[u8; 6]>(0), ctx.load::<[u8; 6]>(6)) else { return DROP };
    if route::set_macs(ctx, &src, &dst).is_err() {
        return DROP;
    }
    route::mark(ctx);
    // SAFETY: helper calls with scalars.
    unsafe {
        match hook {
            Hook::FromPod => bpf_redirect_peer(ifindex, 0) as i32,
            Hook::FromNetdev => bpf_redirect(ifindex, 0) as i32,
            _ => bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32,
        }
    }
}
