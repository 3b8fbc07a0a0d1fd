//! Client sockets with a bounded connect, an optional source address and port, and nothing between them and the wire: no
//! resolver, no proxy, no happy eyeballs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockopt, setsockopt, sockopt,
};

use crate::port;

/// Where a client's packets come from.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Source {
    /// Source port; the same for every request.
    #[arg(long)]
    pub(crate) source_port: Option<u16>,
    /// Source address.
    #[arg(long)]
    pub(crate) source_address: Option<IpAddr>,
}

impl Source {
    fn bind_address(self, target: SocketAddr) -> Option<SocketAddr> {
        if self.source_port.is_none() && self.source_address.is_none() {
            return None;
        }
        let unspecified =
            if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        Some(SocketAddr::new(self.source_address.unwrap_or(unspecified), self.source_port.unwrap_or(0)))
    }
}

fn open(kind: SockType, target: SocketAddr, source: Source) -> io::Result<OwnedFd> {
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket::socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    if let Some(address) = source.bind_address(target) {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    }
    Ok(fd)
}

/// A TCP connection, with what it took.
pub(crate) struct Connected {
    /// Blocking, with the rest of the time as its read and write timeout.
    pub(crate) stream: TcpStream,
    /// How long the handshake took.
    pub(crate) took: Duration,
    /// How long the source port was waited for before.
    pub(crate) waited: Duration,
}

/// Connects within the timeout. A source port that an earlier connection still holds is waited for before, as long at
/// most.
///
/// # Errors
/// As connect(2); `TimedOut` if the handshake did not end in time; `AddrNotAvailable` if the port did not become free.
pub(crate) fn tcp(target: SocketAddr, source: Source, timeout: Duration) -> io::Result<Connected> {
    let mut started = Instant::now();
    let connect = || {
        started = Instant::now();
        connect(target, source, timeout)
    };
    let (stream, all) = port::connect_when_free(source, target, timeout, connect, port::pause)?;
    let took = started.elapsed();
    let left = timeout.saturating_sub(took).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))?;
    Ok(Connected { stream, took, waited: all.saturating_sub(took) })
}

/// One try to connect, on a socket of its own: what is left of a failed one is no state to go on from.
///
/// # Errors
/// As connect(2); `TimedOut` if the handshake did not end in time.
pub(crate) fn connect(target: SocketAddr, source: Source, timeout: Duration) -> io::Result<TcpStream> {
    let started = Instant::now();
    let fd = open(SockType::Stream, target, source)?;
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) => {}
        Err(Errno::EINPROGRESS) => wait_connected(&fd, started, timeout)?,
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn wait_connected(fd: &OwnedFd, started: Instant, timeout: Duration) -> io::Result<()> {
    loop {
        let left = timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to the SYN"));
        }
        // Rounded up: a poll of 0 ms would spin through the last millisecond.
        let wait = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], wait) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        return match getsockopt(fd, sockopt::SocketError)? {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        };
    }
}

/// A connected UDP socket, so that ICMP errors come back as errors of the socket.
///
/// # Errors
/// As connect(2) on a datagram socket.
pub(crate) fn udp(target: SocketAddr, source: Source) -> io::Result<UdpSocket> {
    let fd = open(SockType::Datagram, target, source)?;
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(target))?;
    let socket = UdpSocket::from(fd);
    socket.set_nonblocking(false)?;
    Ok(socket)
}
