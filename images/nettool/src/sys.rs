//! What only the C interface offers: namespace cookies, TCP_INFO and packet sockets.
#![allow(unsafe_code, reason = "socket options and addresses that neither std nor nix wrap")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `SO_NETNS_COOKIE` (Linux 5.14): identifies the network namespace of a socket, never reused while the machine is up.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Reads a plain-data socket option.
fn get_option<T: Default + Copy>(fd: &impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is writable for `length` bytes, the kernel writes at most that much, and T is plain data.
    let result =
        unsafe { libc::getsockopt(fd.as_fd().as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Cookie of the network namespace that the socket belongs to.
///
/// # Errors
/// On kernels before 5.14.
pub(crate) fn netns_cookie(socket: &impl AsFd) -> io::Result<u64> {
    get_option(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE)
}

/// The part of the kernel's `struct tcp_info` that is of use here; the layout is ABI and only ever grows at its end.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawTcpInfo {
    bytes: [u8; 8],
    words: [u32; 24],
    rates: [u64; 4],
    segs: [u32; 2],
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs: [u32; 2],
    delivery_rate: u64,
    times: [u64; 3],
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
    dsack_dups: u32,
    reord_seen: u32,
    rcv_ooopack: u32,
    snd_wnd: u32,
}

/// What TCP knows about a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TcpInfo {
    /// Segments retransmitted over the connection's life, the SYN's included.
    pub(crate) total_retransmits: u32,
    /// Segments that arrived out of order.
    pub(crate) out_of_order: u32,
}

/// Reads `TCP_INFO`.
///
/// # Errors
/// If the socket is not TCP.
pub(crate) fn tcp_info(socket: &impl AsFd) -> io::Result<TcpInfo> {
    let raw: RawTcpInfo = get_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Ok(TcpInfo { total_retransmits: raw.words[23], out_of_order: raw.rcv_ooopack })
}

/// A packet socket for ARP on one interface: payloads without the Ethernet header.
pub(crate) struct ArpSocket {
    fd: OwnedFd,
    ifindex: i32,
}

fn link_address(ifindex: i32, mac: [u8; 6]) -> libc::sockaddr_ll {
    let mut address = [0_u8; 8];
    address[..6].copy_from_slice(&mac);
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    }
}

impl ArpSocket {
    /// Opens the socket, bound to the interface.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or if the interface does not exist.
    pub(crate) fn open(ifindex: i32) -> io::Result<Self> {
        let protocol = i32::from((libc::ETH_P_ARP as u16).to_be());
        // SAFETY: plain system call without pointers.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just returned by socket(2) and is owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let address = link_address(ifindex, [0; 6]);
        // SAFETY: `address` is a valid sockaddr_ll of the given size.
        let result =
            unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32) };
        if result == 0 { Ok(Self { fd, ifindex }) } else { Err(io::Error::last_os_error()) }
    }

    /// Broadcasts a payload.
    ///
    /// # Errors
    /// If the device is down or refuses the packet.
    pub(crate) fn broadcast(&self, payload: &[u8]) -> io::Result<()> {
        let address = link_address(self.ifindex, [0xff; 6]);
        // SAFETY: payload and address are valid for the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                payload.as_ptr().cast(),
                payload.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives one payload, or `None` after the timeout.
    ///
    /// # Errors
    /// If the socket fails.
    pub(crate) fn receive(&self, buffer: &mut [u8], timeout: std::time::Duration) -> io::Result<Option<usize>> {
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
        match ready {
            0 => return Ok(None),
            ready if ready < 0 => return Err(io::Error::last_os_error()),
            _ => {}
        }
        // SAFETY: `buffer` is writable for its length.
        let received = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(Some(received as usize)) }
    }
}
