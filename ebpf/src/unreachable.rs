//! ICMP port unreachable (RFC 792) about the packet at hand.

use aya_ebpf::helpers::generated::bpf_skb_adjust_room;
use aya_ebpf::programs::TcContext;
use portolan_ebpf::proto;

use crate::maps::Scratch;
use crate::packet::ETH_LEN;
use crate::reject::{L4, checksum, ip_header, tail};

/// IPv4 header plus ICMP header.
const GROWTH: u32 = 28;
/// What is quoted behind the IP header: 64 bits.
const QUOTED: u32 = 8;
/// Where the checksum lies in a UDP header.
const UDP_CSUM: u32 = 6;
const BPF_ADJ_ROOM_MAC: u32 = 1;
/// Words of the ICMP header and the quoted IP header in the checksum buffer.
const BEFORE: usize = 7;

/// Turns the packet into the error.
#[inline(always)]
pub fn build(ctx: &TcContext, s: &mut Scratch) -> Result<(), i64> {
    s.buf = [0; 12];
    cut(ctx, s)?;
    // SAFETY: a helper call on a valid context.
    let grown = unsafe { bpf_skb_adjust_room(ctx.skb.skb.cast(), GROWTH as i32, BPF_ADJ_ROOM_MAC, 0) };
    if grown != 0 {
        return Err(grown as i64);
    }
    s.buf[0] = 0x0303_0000_u32.to_be();
    let quoted = ctx.load::<[u32; 5]>((ETH_LEN + GROWTH) as usize)?;
    let mut at = 0;
    while at < 5 {
        s.buf[at + 2] = quoted[at];
        at += 1;
    }
    let icmp: [u16; 4] = [0x0303_u16.to_be(), checksum(s), 0, 0];
    ctx.store(L4 as usize, &icmp, 0)?;
    ip_header(ctx, s, proto::ICMP, GROWTH + QUOTED)
}

/// Cuts the packet to what is quoted and puts what counts of that into the checksum buffer.
///
/// A packet that the machine itself made (another namespace or virtual machine) may still have a partial checksum: the
/// device completes it over what is left of the packet, after the ICMP checksum has been computed. Completing it makes
/// the layer 4 header sum up to the complement of the partial sum, whatever else is in it, so that is what counts then.
/// No helper tells that state, but the kernel refuses to cut such a packet before the end of its checksum.
#[inline(always)]
fn cut(ctx: &TcContext, s: &mut Scratch) -> Result<(), i64> {
    let header = ctx.load::<[u32; 2]>(L4 as usize)?;
    let partial = ctx.load::<u16>((L4 + UDP_CSUM) as usize)?;
    if tail(ctx, L4 + UDP_CSUM + 1).is_err() {
        s.buf[BEFORE] = u32::from(!partial);
        return tail(ctx, L4 + QUOTED);
    }
    tail(ctx, L4 + QUOTED)?;
    ctx.store(L4 as usize, &header, 0)?;
    s.buf[BEFORE] = header[0];
    s.buf[BEFORE + 1] = header[1];
    Ok(())
}
