//! `send-bad-checksum`: a planted fault. A datagram that looks right but for its UDP checksum; a receiver that verifies it
//! drops it and counts that.

use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

use anyhow::Context;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

/// Arguments of `send-bad-checksum`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Address and port that the datagram is for.
    target: SocketAddrV4,
}

/// Sends it.
///
/// # Errors
/// If this process may not open raw sockets, or there is no route.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Udp)
        .context("opening a raw socket")?;
    let mut datagram: Vec<u8> = Vec::new();
    let to = SockaddrIn::from(SocketAddrV4::new(*args.target.ip(), 0));
    // Of two different checksums one at least is wrong, whatever the addresses are.
    for checksum in [0xdead_u16, 0xbeef] {
        datagram.clear();
        for field in [9, args.target.port(), 12, checksum] {
            datagram.extend(field.to_be_bytes());
        }
        datagram.extend(b"oops");
        sendto(raw.as_raw_fd(), &datagram, &to, MsgFlags::empty())
            .with_context(|| format!("sending to {}", args.target))?;
    }
    Ok(())
}
