//! Reading a packet: from bytes to the tuple that names its flow.

use aya_ebpf::programs::TcContext;
use portolan_ebpf::{Addr, DIR_FORWARD, FAMILY_V4, FlowKey, FlowVal, FragKey, FragVal, proto};

use crate::maps::{FRAGMENTS, Scratch};

/// Length of the Ethernet header.
pub const ETH_LEN: u32 = 14;
/// Offset of the IPv4 header's checksum.
pub const IP_CSUM: u32 = ETH_LEN + 10;
/// Offset of the source address.
pub const IP_SRC: u32 = ETH_LEN + 12;
/// Offset of the destination address.
pub const IP_DST: u32 = ETH_LEN + 16;
/// Offset of the TTL.
pub const IP_TTL: u32 = ETH_LEN + 8;

/// TCP flags.
pub const TCP_FIN: u32 = 0x01;
/// SYN.
pub const TCP_SYN: u32 = 0x02;
/// RST.
pub const TCP_RST: u32 = 0x04;
/// ACK.
pub const TCP_ACK: u32 = 0x10;

/// IPv4 header without options.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    /// Version and header length.
    pub vihl: u8,
    /// Type of service.
    pub tos: u8,
    /// Total length.
    pub len: u16,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub frag: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub proto: u8,
    /// Header checksum.
    pub csum: u16,
    /// Source.
    pub src: u32,
    /// Destination.
    pub dst: u32,
}

/// What a packet is to the engine.
pub enum Parsed {
    /// TCP, UDP or ICMP echo: it has a tuple.
    Flow,
    /// An ICMP error about another packet.
    IcmpError,
    /// IPv4, but nothing that is tracked: it is only routed.
    Untracked,
    /// Not IPv4 (ARP, IPv6): left alone.
    NotIpv4,
    /// Malformed.
    Invalid,
    /// A fragment whose first part was not seen, so its flow is unknown.
    FragmentWithoutFirst,
}

/// Fills `s` from the packet.
#[inline(always)]
pub fn parse(ctx: &TcContext, s: &mut Scratch) -> Parsed {
    let Ok(ether) = ctx.load::<u16>(12) else { return Parsed::NotIpv4 };
    if ether != 0x0800_u16.to_be() {
        return Parsed::NotIpv4;
    }
    let Ok(ip) = ctx.load::<Ipv4>(ETH_LEN as usize) else { return Parsed::Invalid };
    let header = u32::from(ip.vihl & 0x0f) * 4;
    if ip.vihl >> 4 != 4 || header < 20 {
        return Parsed::Invalid;
    }
    s.l4 = ETH_LEN + header;
    s.ip_len = u32::from(u16::from_be(ip.len));
    s.tcp_flags = 0;
    s.pkt = FlowKey {
        src: Addr::from_v4_be(ip.src),
        dst: Addr::from_v4_be(ip.dst),
        sport: 0,
        dport: 0,
        proto: ip.proto,
        family: FAMILY_V4,
        dir: DIR_FORWARD,
        pad: 0,
    };
    let frag = u16::from_be(ip.frag);
    s.later_fragment = u32::from(frag & 0x1fff != 0);
    let parsed = if s.later_fragment != 0 { recall_fragment(s, &ip) } else { layer4(ctx, s, &ip, frag & 0x2000 != 0) };
    s.wire = FlowVal {
        src: s.pkt.src,
        dst: s.pkt.dst,
        sport: s.pkt.sport,
        dport: s.pkt.dport,
        flags: 0,
        svc_id: 0,
        backend_id: 0,
        last_seen_ns: 0,
    };
    parsed
}

#[inline(always)]
fn layer4(ctx: &TcContext, s: &mut Scratch, ip: &Ipv4, more: bool) -> Parsed {
    let l4 = s.l4 as usize;
    match ip.proto {
        proto::TCP | proto::UDP => {
            let Ok(ports) = ctx.load::<[u16; 2]>(l4) else { return Parsed::Invalid };
            s.pkt.sport = ports[0];
            s.pkt.dport = ports[1];
            if ip.proto == proto::TCP {
                let Ok(flags) = ctx.load::<u8>(l4 + 13) else { return Parsed::Invalid };
                s.tcp_flags = u32::from(flags);
            }
            remember_fragment(s, ip, more);
            Parsed::Flow
        }
        proto::ICMP => {
            let Ok(kind) = ctx.load::<u8>(l4) else { return Parsed::Invalid };
            match kind {
                0 | 8 => {
                    let Ok(id) = ctx.load::<u16>(l4 + 4) else { return Parsed::Invalid };
                    if kind == 8 {
                        s.pkt.sport = id;
                    } else {
                        s.pkt.dport = id;
                    }
                    remember_fragment(s, ip, more);
                    Parsed::Flow
                }
                3 | 11 | 12 => Parsed::IcmpError,
                _ => Parsed::Untracked,
            }
        }
        _ => Parsed::Untracked,
    }
}

#[inline(always)]
fn remember_fragment(s: &Scratch, ip: &Ipv4, more: bool) {
    if more {
        let key = frag_key(s, ip);
        let _ = FRAGMENTS.insert(&key, &FragVal { sport: s.pkt.sport, dport: s.pkt.dport }, 0);
    }
}

#[inline(always)]
fn recall_fragment(s: &mut Scratch, ip: &Ipv4) -> Parsed {
    if ip.proto != proto::TCP && ip.proto != proto::UDP && ip.proto != proto::ICMP {
        return Parsed::Untracked;
    }
    let key = frag_key(s, ip);
    // SAFETY: copied out at once.
    let Some(ports) = (unsafe { FRAGMENTS.get(&key) }) else { return Parsed::FragmentWithoutFirst };
    s.pkt.sport = ports.sport;
    s.pkt.dport = ports.dport;
    Parsed::Flow
}

#[inline(always)]
fn frag_key(s: &Scratch, ip: &Ipv4) -> FragKey {
    FragKey { src: s.pkt.src, dst: s.pkt.dst, id: ip.id, proto: ip.proto, family: FAMILY_V4 }
}
