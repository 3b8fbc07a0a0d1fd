//! Rewriting a packet to its wire tuple, with incremental checksums (RFC 1624) by the kernel's helpers, which know about
//! partial checksums and GSO.

use aya_ebpf::programs::TcContext;
use portolan_ebpf::proto;

use crate::maps::Scratch;
use crate::packet::{IP_CSUM, IP_DST, IP_SRC, IP_TTL};

const BPF_F_PSEUDO_HDR: u64 = 0x10;
const BPF_F_MARK_MANGLED_0: u64 = 0x20;

/// True if the wire tuple differs from what was received.
#[inline(always)]
pub fn needed(s: &Scratch) -> bool {
    s.wire.src != s.pkt.src || s.wire.dst != s.pkt.dst || s.wire.sport != s.pkt.sport || s.wire.dport != s.pkt.dport
}

/// Writes the wire tuple into the packet.
#[inline(always)]
pub fn apply(ctx: &TcContext, s: &Scratch) -> Result<(), i64> {
    let checksum = if s.later_fragment != 0 {
        None
    } else {
        match s.pkt.proto {
            proto::TCP => Some((s.l4 + 16, 0)),
            proto::UDP => Some((s.l4 + 6, BPF_F_MARK_MANGLED_0)),
            _ => None,
        }
    };
    address(ctx, IP_SRC, s.pkt.src.v4_be(), s.wire.src.v4_be(), checksum)?;
    address(ctx, IP_DST, s.pkt.dst.v4_be(), s.wire.dst.v4_be(), checksum)?;
    if s.later_fragment != 0 {
        return Ok(());
    }
    if let Some(checksum) = checksum {
        port(ctx, s.l4, s.pkt.sport, s.wire.sport, checksum)?;
        port(ctx, s.l4 + 2, s.pkt.dport, s.wire.dport, checksum)?;
    } else if s.pkt.proto == proto::ICMP {
        // An echo request carries its id as the source port, a reply as the destination port.
        let (old, new) =
            if s.pkt.sport != s.wire.sport { (s.pkt.sport, s.wire.sport) } else { (s.pkt.dport, s.wire.dport) };
        port(ctx, s.l4 + 4, old, new, (s.l4 + 2, 0))?;
    }
    Ok(())
}

#[inline(always)]
fn address(ctx: &TcContext, at: u32, old: u32, new: u32, checksum: Option<(u32, u64)>) -> Result<(), i64> {
    if old == new {
        return Ok(());
    }
    if let Some((offset, flags)) = checksum {
        ctx.l4_csum_replace(offset as usize, u64::from(old), u64::from(new), flags | BPF_F_PSEUDO_HDR | 4)?;
    }
    ctx.l3_csum_replace(IP_CSUM as usize, u64::from(old), u64::from(new), 4)?;
    ctx.store(at as usize, &new, 0)
}

/// Replaces a 16-bit field under the checksum at `checksum.0`.
#[inline(always)]
pub fn port(ctx: &TcContext, at: u32, old: u16, new: u16, checksum: (u32, u64)) -> Result<(), i64> {
    if old == new {
        return Ok(());
    }
    ctx.l4_csum_replace(checksum.0 as usize, u64::from(old), u64::from(new), checksum.1 | 2)?;
    ctx.store(at as usize, &new, 0)
}

/// Takes one hop off the TTL; `false` if it would reach zero.
#[inline(always)]
pub fn decrement_ttl(ctx: &TcContext) -> Result<bool, i64> {
    let old = ctx.load::<[u8; 2]>(IP_TTL as usize)?;
    if old[0] <= 1 {
        return Ok(false);
    }
    let new = [old[0] - 1, old[1]];
    let (old, new) = (u16::from_ne_bytes(old), u16::from_ne_bytes(new));
    ctx.l3_csum_replace(IP_CSUM as usize, u64::from(old), u64::from(new), 2)?;
    ctx.store(IP_TTL as usize, &new, 0)?;
    Ok(true)
}
