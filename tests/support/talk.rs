//! Servers that tell how they see their client, and clients that wait only so long.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket,
    sockopt::{ReuseAddr, SendTimeout},
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::world::Ns;

/// How long an answer may take. Everything is on one machine: what takes longer was lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a server saw a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The server's own address.
    pub server: SocketAddrV4,
    /// The client's address as the server sees it.
    pub client: SocketAddrV4,
}

impl Seen {
    fn parse(text: &str) -> io::Result<Self> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is not what the server says"));
        let (server, client) = text.trim().split_once(' ').ok_or_else(bad)?;
        Ok(Self { server: server.parse().map_err(|_| bad())?, client: client.parse().map_err(|_| bad())? })
    }
}

/// Starts a TCP server: each connection gets a line that says how the server sees it, then its bytes back. It ends with
/// the test's process.
pub fn tcp_server(ns: &Ns, address: Ipv4Addr, port: u16) {
    serve_tcp(ns, address, port, usize::MAX);
}

/// Starts a TCP server that stops listening with its first connection.
pub fn tcp_server_once(ns: &Ns, address: Ipv4Addr, port: u16) {
    serve_tcp(ns, address, port, 1);
}

fn serve_tcp(ns: &Ns, address: Ipv4Addr, port: u16, connections: usize) {
    let listener = ns.run(|| TcpListener::bind((address, port))).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || echo(stream));
        }
    });
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    writeln!(stream, "{} {}", stream.local_addr()?, stream.peer_addr()?)?;
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}

/// Starts a UDP server: each datagram is answered with a line as above, padded to the datagram's length.
pub fn udp_server(ns: &Ns, address: Ipv4Addr, port: u16) {
    let socket = ns.run(|| UdpSocket::bind((address, port))).unwrap();
    std::thread::spawn(move || -> io::Result<()> {
        let mut buffer = vec![0; 65536];
        loop {
            let (length, client) = socket.recv_from(&mut buffer)?;
            let mut answer = format!("{} {client}", socket.local_addr()?).into_bytes();
            answer.resize(length.max(answer.len()), b' ');
            socket.send_to(&answer, client)?;
        }
    });
}

/// A TCP connection and how the server sees it.
pub struct Connection {
    pub stream: TcpStream,
    pub seen: Seen,
}

impl Connection {
    /// Sends some bytes and expects them back.
    pub fn echo(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes())?;
        let mut back = vec![0; text.len()];
        self.stream.read_exact(&mut back)?;
        if back == text.as_bytes() { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
    }
}

/// Connects over TCP, from `from` if given.
pub fn dial(ns: &Ns, from: Option<SocketAddrV4>, to: SocketAddrV4) -> io::Result<Connection> {
    let stream = ns.run(|| connect_from(from, to))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    let mut byte = [0];
    let mut reader = &stream;
    while !line.ends_with('\n') {
        reader.read_exact(&mut byte)?;
        line.push(char::from(byte[0]));
    }
    Ok(Connection { seen: Seen::parse(&line)?, stream })
}

/// The bare connection: [`dial`] without waiting for the server's line.
pub fn connect_from(from: Option<SocketAddrV4>, to: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, SendTimeout, &TimeVal::seconds(PATIENCE.as_secs() as i64))?;
    if let Some(from) = from {
        bind(socket.as_raw_fd(), &SockaddrIn::from(from))?;
    }
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(TcpStream::from(socket))
}

/// A connected UDP socket.
pub fn udp_socket(ns: &Ns, from: SocketAddrV4, to: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = ns.run(|| UdpSocket::bind(from))?;
    socket.connect(SocketAddr::V4(to))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends a datagram of `length` bytes and returns how the server saw it; the answer must have the same length.
pub fn ask(socket: &UdpSocket, length: usize) -> io::Result<Seen> {
    socket.send(&vec![b'x'; length])?;
    let mut buffer = vec![0; 65536];
    let received = socket.recv(&mut buffer)?;
    if received < length {
        return Err(io::Error::other(format!("sent {length} bytes, {received} came back")));
    }
    Seen::parse(&String::from_utf8_lossy(&buffer[..received]))
}

/// Any port of any address.
pub fn anywhere() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)
}

/// Short for an address and a port.
pub fn at(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}
