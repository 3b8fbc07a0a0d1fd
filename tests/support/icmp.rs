//! Raw ICMP and raw IP: pings, the errors about them, and fragments in any order.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::world::Ns;

const PATIENCE: Duration = Duration::from_secs(2);

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A raw ICMP socket in a namespace: it hears all ICMP that reaches the namespace.
pub struct Pinger(OwnedFd);

impl Pinger {
    pub fn new(ns: &Ns) -> Self {
        let open = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp);
        let socket = ns.run(open).unwrap();
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(100)).unwrap();
        Self(socket)
    }

    /// Sends an echo request with `length` bytes of data.
    pub fn echo(&self, to: Ipv4Addr, id: u16, length: usize) {
        let mut message = vec![8, 0, 0, 0, (id >> 8) as u8, id as u8, 0, 1];
        message.resize(8 + length, 0x5a);
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        sendto(self.0.as_raw_fd(), &message, &address(to), MsgFlags::empty()).unwrap();
    }

    /// The next ICMP message (with its IP header) for which `wanted` holds, or an error when none comes in time.
    pub fn wait(&self, wanted: impl Fn(&Packet) -> bool) -> io::Result<Packet> {
        let start = Instant::now();
        let mut buffer = vec![0; 65536];
        while start.elapsed() < PATIENCE {
            let Ok(length) = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { continue };
            let packet = Packet(buffer[..length].to_vec());
            if wanted(&packet) {
                return Ok(packet);
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no such ICMP message came"))
    }
}

fn address(to: Ipv4Addr) -> SockaddrIn {
    let [a, b, c, d] = to.octets();
    SockaddrIn::new(a, b, c, d, 0)
}

/// An IPv4 packet without options that carries ICMP.
#[derive(Debug)]
pub struct Packet(Vec<u8>);

impl Packet {
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15])
    }

    pub fn kind(&self) -> u8 {
        self.0[20]
    }

    /// Identifier of an echo message.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.0[24], self.0[25]])
    }

    /// Length of the data of an echo message.
    pub fn data(&self) -> usize {
        self.0.len() - 28
    }

    /// The packet that an error quotes.
    pub fn quoted(&self) -> Quoted<'_> {
        Quoted(&self.0[28..])
    }

    /// Whether the sum over the whole ICMP message is right.
    pub fn sum_is_right(&self) -> bool {
        checksum(&self.0[20..]) == 0
    }
}

/// A quoted packet.
#[derive(Debug)]
pub struct Quoted<'a>(&'a [u8]);

impl Quoted<'_> {
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15])
    }

    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[16], self.0[17], self.0[18], self.0[19])
    }

    /// Identifier of a quoted echo message.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.0[24], self.0[25]])
    }

    /// Whether the sum over the quoted IP header is right.
    pub fn sum_is_right(&self) -> bool {
        checksum(&self.0[..20]) == 0
    }
}

/// Sends a UDP datagram in two fragments, the second first.
pub fn udp_second_fragment_first(ns: &Ns, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) {
    let open = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
    let socket = ns.run(open).unwrap();
    let mut datagram = Vec::new();
    for field in [from.1, to.1, (8 + data.len()) as u16, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(data);
    let cut = 512;
    for (offset, part) in [(cut, &datagram[cut..]), (0, &datagram[..cut])] {
        let more = if offset == 0 { 0x2000 } else { 0 };
        let mut packet = vec![0x45, 0];
        packet.extend(((20 + part.len()) as u16).to_be_bytes());
        packet.extend(0x4242_u16.to_be_bytes());
        packet.extend((more | (offset / 8) as u16).to_be_bytes());
        packet.extend([64, 17, 0, 0]);
        packet.extend(from.0.octets());
        packet.extend(to.0.octets());
        packet.extend(part);
        sendto(socket.as_raw_fd(), &packet, &address(to.0), MsgFlags::empty()).unwrap();
    }
}
