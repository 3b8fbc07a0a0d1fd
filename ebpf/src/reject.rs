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
/// Words that are quoted of a TCP packet behind its IP header: all of its own. Not fewer, because the kernel refuses to
/// cut a packet whose partial checksum lies further behind.
const QUOTE_TCP: usize = 5;
/// Words that are quoted of all else (RFC 792: 64 bits).
const QUOTE: usize = 2;
/// Where the checksum lies in a TCP header.
const CSUM_TCP: u32 = 16;
/// Where the checksum lies in a UDP header.
const CSUM_UDP: u32 = 6;
const BPF_ADJ_ROOM_MAC: u32 = 1;

/// Turns the packet into the refusal of itself and sends it back.
#[inline(always)]
pub fn port_unreachable(ctx: &TcContext, s: &mut Scratch, hook: Hook) -> i32 {
    let built = if s.l4 != ETH_LEN + 20 || s.later_fragment != 0 {
        Err(0)
    } else if s.pkt.proto == proto::TCP {
        build::<QUOTE_TCP>(ctx, s, CSUM_TCP)
    } else {
        build::<QUOTE>(ctx, s, CSUM_UDP)
    };
    if built.is_err() {
        count(hook, Event::DropRewrite);
        return DROP;
    }
    send_back(ctx, hook)
}

#[inline(always)]
fn build<const WORDS: usize>(ctx: &TcContext, s: &mut Scratch, checksum: u32) -> Result<(), i64> {
    let skb = ctx.skb.skb.cast();
    let length = 20 + 4 * WORDS as u32;
    s.buf = [0; 12];
    cut::<WORDS>(ctx, s, checksum)?;
    // SAFETY: a helper call on a valid context.
    let grown = unsafe { bpf_skb_adjust_room(skb, GROWTH as i32, BPF_ADJ_ROOM_MAC, 0) };
    if grown != 0 {
        return Err(grown as i64);
    }
    let icmp_sum = icmp_checksum(ctx, s)?;
    let mut ip = Ipv4 {
        vihl: 0x45,
        tos: 0xc0,
        len: ((GROWTH + length) as u16).to_be(),
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

/// Index in the checksum buffer of what is quoted behind the IP header.
const LAYER4: usize = 7;

/// Cuts the packet to what is quoted and puts what counts of it into the checksum buffer.
///
/// A packet that the machine itself made (another namespace or virtual machine) may still have a partial checksum: the
/// device completes it over what is left of the packet, after the ICMP checksum has been computed. Completing it makes
/// the layer 4 header sum up to the complement of the partial sum, whatever else is in it, so that is what counts then.
/// No helper tells that state, but the kernel refuses to cut such a packet before the end of its checksum.
#[inline(always)]
fn cut<const WORDS: usize>(ctx: &TcContext, s: &mut Scratch, checksum: u32) -> Result<(), i64> {
    let at = ETH_LEN + 20;
    let header = ctx.load::<[u32; WORDS]>(at as usize)?;
    let partial = ctx.load::<u16>((at + checksum) as usize)?;
    if tail(ctx, at + checksum + 1).is_err() {
        s.buf[LAYER4] = u32::from(!partial);
        return tail(ctx, at + 4 * WORDS as u32);
    }
    tail(ctx, at + 4 * WORDS as u32)?;
    ctx.store(at as usize, &header, 0)?;
    let mut word = 0;
    while word < WORDS {
        s.buf[LAYER4 + word] = header[word];
        word += 1;
    }
    Ok(())
}

#[inline(always)]
fn tail(ctx: &TcContext, length: u32) -> Result<(), i64> {
    // SAFETY: a helper call on a valid context.
    match unsafe { bpf_skb_change_tail(ctx.skb.skb.cast(), length, 0) } {
        0 => Ok(()),
        error => Err(error as i64),
    }
}

/// Checksum over the ICMP header and the quoted packet.
#[inline(always)]
fn icmp_checksum(ctx: &TcContext, s: &mut Scratch) -> Result<u16, i64> {
    s.buf[0] = 0x0303_0000_u32.to_be();
    let quoted = ctx.load::<[u32; 5]>((ETH_LEN + GROWTH) as usize)?;
    let mut at = 0;
    while at < 5 {
        s.buf[at + 2] = quoted[at];
        at += 1;
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
