//! `arp-probe`: asks the segment who has an address. Nobody answering is a finding only if the same probe is answered for
//! an address that does exist, so the harness always asks for one such too.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use serde::Serialize;

use crate::sys::ArpSocket;

/// Length of an ARP packet for Ethernet and IPv4, bytes.
const ARP_LENGTH: usize = 28;

/// Arguments of `arp-probe`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Device to ask on.
    #[arg(long, default_value = "eth0")]
    dev: String,
    /// How long to listen for answers, after the last question.
    #[arg(long, default_value = "500ms", value_parser = crate::parse_duration)]
    timeout: Duration,
    /// Questions for each address.
    #[arg(long, default_value_t = 2)]
    count: u32,
    /// Addresses to ask for.
    #[arg(required = true)]
    addresses: Vec<Ipv4Addr>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Claim {
    address: Ipv4Addr,
    mac: String,
}

/// Asks, listens, and prints every claim.
///
/// # Errors
/// If the device does not exist or packet sockets are not allowed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (mac, own) = device(&args.dev)?;
    let ifindex = nix::net::if_::if_nametoindex(args.dev.as_str()).with_context(|| format!("device {}", args.dev))?;
    let socket = ArpSocket::open(i32::try_from(ifindex)?).context("packet socket")?;
    let mut claims = Vec::new();
    for round in 0..args.count {
        for address in &args.addresses {
            socket
                .broadcast(&request(mac, own, *address))
                .with_context(|| format!("ask for {address} on {}", args.dev))?;
        }
        let wait = if round + 1 == args.count { args.timeout } else { Duration::from_millis(50) };
        listen(&socket, &args.addresses, wait, &mut claims)?;
    }
    crate::print_json(&serde_json::json!({ "asked": args.addresses, "claims": claims }))
}

fn listen(socket: &ArpSocket, addresses: &[Ipv4Addr], wait: Duration, claims: &mut Vec<Claim>) -> anyhow::Result<()> {
    let end = Instant::now() + wait;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let mut buffer = [0; 128];
        let Some(length) = socket.receive(&mut buffer, left)? else { return Ok(()) };
        if let Some(claim) = claim(&buffer[..length])
            && addresses.contains(&claim.address)
            && !claims.contains(&claim)
        {
            claims.push(claim);
        }
    }
}

/// MAC and IPv4 address of a device.
fn device(name: &str) -> anyhow::Result<([u8; 6], Ipv4Addr)> {
    let (mut mac, mut own) = (None, None);
    for entry in getifaddrs()?.filter(|entry| entry.interface_name == name) {
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            mac = link.addr();
        } else if let Some(ip) = address.as_sockaddr_in() {
            own.get_or_insert(ip.ip());
        }
    }
    Ok((mac.with_context(|| format!("device {name} has no MAC address"))?, own.unwrap_or(Ipv4Addr::UNSPECIFIED)))
}

/// An ARP request (RFC 826).
fn request(mac: [u8; 6], own: Ipv4Addr, wanted: Ipv4Addr) -> [u8; ARP_LENGTH] {
    let mut packet = [0; ARP_LENGTH];
    packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    packet[8..14].copy_from_slice(&mac);
    packet[14..18].copy_from_slice(&own.octets());
    packet[24..28].copy_from_slice(&wanted.octets());
    packet
}

/// Who claims which address in an ARP reply.
fn claim(packet: &[u8]) -> Option<Claim> {
    if packet.len() < ARP_LENGTH || packet[..8] != [0, 1, 8, 0, 6, 4, 0, 2] {
        return None;
    }
    let mac: Vec<String> = packet[8..14].iter().map(|byte| format!("{byte:02x}")).collect();
    let address = Ipv4Addr::new(packet[14], packet[15], packet[16], packet[17]);
    Some(Claim { address, mac: mac.join(":") })
}
