//! Refusing what nobody serves: TCP by a reset, all else by ICMP port unreachable, both from the address that was
//! dialled. kube-proxy's REJECT answers TCP with ICMP too, but a connecting socket on the same machine gets that error
//! while the system call holds it, notes it as passing, and tries again after a second; a reset waits for the socket.

use aya_ebpf::bindings::BPF_F_INGRESS;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_redirect, bpf_redirect_peer, bpf_skb_change_tail};
use aya_ebpf::programs::TcContext;
use portolan_ebpf::{Event, Hook, proto};

use crate::maps::{Scratch, count};
use crate::packet::{ETH_LEN, Ipv4, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use crate::{DROP, route, unreachable};

/// Where the layer 4 header lies; packets with IP options are not refused but dropped.
pub const L4: u32 = ETH_LEN + 20;
/// Length of a TCP header without options.
const TCP_LEN: u32 = 20;
/// Where the checksum lies in a TCP header.
const TCP_CSUM: u32 = 16;

/// Turns the packet into the refusal of itself and sends it back.
#[inline(always)]
pub fn refuse(ctx: &TcContext, s: &mut Scratch, hook: Hook) -> i32 {
    let tcp = s.pkt.proto == proto::TCP;
    if tcp && s.tcp_flags & TCP_RST != 0 {
        // RFC 9293 section 3.5.2: a reset is never answered.
        return DROP;
    }
    let built = if s.l4 != L4 || s.later_fragment != 0 {
        Err(0)
    } else if tcp {
        reset(ctx, s)
    } else {
        unreachable::build(ctx, s)
    };
    if built.is_err() {
        count(hook, Event::DropRewrite);
        return DROP;
    }
    send_back(ctx, hook)
}

/// Makes the packet the reset that RFC 9293 section 3.10.7.1 wants for it.
#[inline(always)]
fn reset(ctx: &TcContext, s: &mut Scratch) -> Result<(), i64> {
    let numbers = ctx.load::<[u32; 2]>((L4 + 4) as usize)?;
    let header = u32::from(ctx.load::<u8>((L4 + 12) as usize)? >> 4) * 4;
    // The kernel refuses to cut a packet before the end of its checksum while that is partial: see `unreachable`.
    let partial = tail(ctx, L4 + TCP_CSUM + 1).is_err();
    tail(ctx, L4 + TCP_LEN)?;
    let (seq, ack, flags) = if s.tcp_flags & TCP_ACK != 0 {
        (numbers[1], 0, TCP_RST)
    } else {
        let data = s.ip_len.wrapping_sub(20).wrapping_sub(header);
        let signals = u32::from(s.tcp_flags & TCP_SYN != 0) + u32::from(s.tcp_flags & TCP_FIN != 0);
        (0, u32::from_be(numbers[0]).wrapping_add(data).wrapping_add(signals).to_be(), TCP_RST | TCP_ACK)
    };
    s.buf = [0; 12];
    // The pseudo header, then the header.
    s.buf[0] = s.pkt.dst.v4_be();
    s.buf[1] = s.pkt.src.v4_be();
    s.buf[2] = u32::from_ne_bytes([0, proto::TCP, 0, TCP_LEN as u8]);
    let pseudo = checksum(s);
    let [a, b] = s.pkt.dport.to_ne_bytes();
    let [c, d] = s.pkt.sport.to_ne_bytes();
    let mut words = [u32::from_ne_bytes([a, b, c, d]), seq, ack, u32::from_ne_bytes([0x50, flags as u8, 0, 0]), 0];
    let mut word = 0;
    while word < 5 {
        s.buf[3 + word] = words[word];
        word += 1;
    }
    // A device that completes a partial checksum expects the sum over the pseudo header in its place.
    words[4] = u32::from(if partial { !pseudo } else { checksum(s) });
    ctx.store(L4 as usize, &words, 0)?;
    ip_header(ctx, s, proto::TCP, TCP_LEN)
}

/// Cuts the packet to `length`, or fills it up with zeroes.
#[inline(always)]
pub fn tail(ctx: &TcContext, length: u32) -> Result<(), i64> {
    // SAFETY: a helper call on a valid context.
    match unsafe { bpf_skb_change_tail(ctx.skb.skb.cast(), length, 0) } {
        0 => Ok(()),
        error => Err(error as i64),
    }
}

/// The Internet checksum over the checksum buffer. Its unused words are zero and add nothing.
#[inline(always)]
pub fn checksum(s: &mut Scratch) -> u16 {
    // SAFETY: the buffer is 48 bytes.
    fold(unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, s.buf.as_mut_ptr(), 48, 0) } as u64)
}

/// Writes an IP header from the dialled address to the sender, with `length` bytes behind it.
#[inline(always)]
pub fn ip_header(ctx: &TcContext, s: &Scratch, protocol: u8, length: u32) -> Result<(), i64> {
    let mut ip = Ipv4 {
        vihl: 0x45,
        tos: 0,
        len: ((20 + length) as u16).to_be(),
        id: 0,
        frag: 0x4000_u16.to_be(),
        ttl: 64,
        proto: protocol,
        csum: 0,
        src: s.pkt.dst.v4_be(),
        dst: s.pkt.src.v4_be(),
    };
    // SAFETY: `ip` is 20 bytes of plain data.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, (&raw mut ip).cast(), 20, 0) };
    ip.csum = fold(sum as u64);
    ctx.store(ETH_LEN as usize, &ip, 0)
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
