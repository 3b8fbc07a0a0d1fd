//! ICMP errors about a translated packet: the quoted packet and the addressee are translated back, or the sender would
//! not recognize it and path MTU discovery would go blind.

use aya_ebpf::programs::TcContext;
use portolan_ebpf::{Addr, DIR_FORWARD, DIR_REPLY, Event, FAMILY_V4, FlowKey, Hook, proto};

use crate::engine::Outcome;
use crate::maps::{FLOWS, Scratch, count};
use crate::packet::{IP_CSUM, IP_DST, IP_SRC, Ipv4};
use crate::rewrite;

/// Translates an ICMP error if the packet it quotes belongs to a known flow.
#[inline(always)]
pub fn translate_error(ctx: &TcContext, s: &mut Scratch, hook: Hook) -> Outcome {
    match translate(ctx, s) {
        Ok(true) => {
            count(hook, Event::IcmpError);
            Outcome::Route
        }
        Ok(false) => Outcome::Route,
        Err(_) => {
            count(hook, Event::DropRewrite);
            Outcome::Drop
        }
    }
}

#[inline(always)]
fn translate(ctx: &TcContext, s: &mut Scratch) -> Result<bool, i64> {
    let at = s.l4 + 8;
    let quoted = ctx.load::<Ipv4>(at as usize)?;
    if quoted.vihl != 0x45 {
        return Ok(false);
    }
    let echo = quoted.proto == proto::ICMP;
    let Some(ports) = quoted_ports(ctx, at + 20, quoted.proto)? else { return Ok(false) };
    // The quoted packet reversed: as a reply it would hit the reply entry if we sent the quoted one to a backend, as a
    // request the forward entry if we sent it to a client.
    s.key = FlowKey {
        src: Addr::from_v4_be(quoted.dst),
        dst: Addr::from_v4_be(quoted.src),
        sport: ports[1],
        dport: ports[0],
        proto: quoted.proto,
        family: FAMILY_V4,
        dir: DIR_REPLY,
        pad: 0,
    };
    // SAFETY: copied out at once.
    let mut found = unsafe { FLOWS.get(&s.key) }.copied();
    if found.is_none() {
        s.key.dir = DIR_FORWARD;
        // SAFETY: copied out at once.
        found = unsafe { FLOWS.get(&s.key) }.copied();
    }
    let Some(found) = found else { return Ok(false) };
    // `found` is what the reversed quoted tuple becomes; the quoted packet becomes the reverse of that.
    let (src, dst) = (found.dst.v4_be(), found.src.v4_be());
    inner_address(ctx, at, 12, quoted.src, src)?;
    inner_address(ctx, at, 16, quoted.dst, dst)?;
    if echo {
        let (old, new) = if ports[0] != 0 { (ports[0], found.dport) } else { (ports[1], found.sport) };
        rewrite::port(ctx, at + 24, old, new, (s.l4 + 2, 0))?;
    } else {
        rewrite::port(ctx, at + 20, ports[0], found.dport, (s.l4 + 2, 0))?;
        rewrite::port(ctx, at + 22, ports[1], found.sport, (s.l4 + 2, 0))?;
    }
    let (outer_src, outer_dst) = (s.pkt.src.v4_be(), s.pkt.dst.v4_be());
    if outer_dst == quoted.src && outer_dst != src {
        ctx.l3_csum_replace(IP_CSUM as usize, u64::from(outer_dst), u64::from(src), 4)?;
        ctx.store(IP_DST as usize, &src, 0)?;
        s.wire.dst = Addr::from_v4_be(src);
    }
    if outer_src == quoted.dst && outer_src != dst {
        ctx.l3_csum_replace(IP_CSUM as usize, u64::from(outer_src), u64::from(dst), 4)?;
        ctx.store(IP_SRC as usize, &dst, 0)?;
        s.wire.src = Addr::from_v4_be(dst);
    }
    Ok(true)
}

/// Source and destination port of the quoted packet as its flow's key has them: of an echo request the id is the source
/// port, of a reply the destination port. `None` for what has no flow.
#[inline(always)]
fn quoted_ports(ctx: &TcContext, l4: u32, protocol: u8) -> Result<Option<[u16; 2]>, i64> {
    match protocol {
        proto::TCP | proto::UDP => ctx.load::<[u16; 2]>(l4 as usize).map(Some),
        proto::ICMP => {
            let kind = ctx.load::<u8>(l4 as usize)?;
            let id = ctx.load::<u16>((l4 + 4) as usize)?;
            Ok(match kind {
                8 => Some([id, 0]),
                0 => Some([0, id]),
                _ => None,
            })
        }
        _ => Ok(None),
    }
}

/// Replaces an address of the quoted header. Its own checksum changes along, so that the sum over the ICMP message, and
/// with it the ICMP checksum, stays as it is.
#[inline(always)]
fn inner_address(ctx: &TcContext, at: u32, field: u32, old: u32, new: u32) -> Result<(), i64> {
    if old == new {
        return Ok(());
    }
    ctx.l3_csum_replace((at + 10) as usize, u64::from(old), u64::from(new), 4)?;
    ctx.store((at + field) as usize, &new, 0)
}
