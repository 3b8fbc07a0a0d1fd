//! The UDP echo: answers from the address that was dialled (`IP_PKTINFO`), which matters where a host has several.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};

/// Longest datagram that is echoed, bytes.
const DATAGRAM_MAX: usize = 2048;

/// Binds the port and asks for the destination address of each datagram.
///
/// # Errors
/// If the port is taken.
pub(super) fn bind(port: u16) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    Ok(socket)
}

/// Echoes for ever; a datagram that cannot be answered is reported on stderr and forgotten.
pub(super) fn serve(socket: &UdpSocket) {
    loop {
        if let Err(error) = echo_one(socket) {
            eprintln!("udp: {error:#}");
        }
    }
}

fn echo_one(socket: &UdpSocket) -> anyhow::Result<()> {
    let mut buffer = [0; DATAGRAM_MAX];
    let mut control = nix::cmsg_space!(nix::libc::in_pktinfo);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let (length, peer) = (message.bytes, message.address);
    let info = message.cmsgs()?.find_map(|item| match item {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
        _ => None,
    });
    let (Some(peer), Some(mut info)) = (peer, info) else {
        anyhow::bail!("datagram without addresses");
    };
    let dialled = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
    let local = SocketAddr::V4(SocketAddrV4::new(dialled, socket.local_addr()?.port()));
    let payload = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let from = SocketAddr::V4(SocketAddrV4::new(peer.ip(), peer.port()));
    let answer = serde_json::to_vec(&super::answer(from, local, Some(payload))?)?;
    // Send from the dialled address by whatever route there is, not by the interface of arrival.
    info.ipi_ifindex = 0;
    info.ipi_spec_dst = info.ipi_addr;
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(&answer)],
        &[ControlMessage::Ipv4PacketInfo(&info)],
        MsgFlags::empty(),
        Some(&peer),
    )?;
    Ok(())
}
