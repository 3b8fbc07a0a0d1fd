//! Waiting for a source port: a client with one fixed port may meet its own former connection, which the kernel has not
//! finished closing (FIN_WAIT1, LAST_ACK, …). connect(2) says EADDRNOTAVAIL then, and only the end of that connection can
//! help. It is looked for in the kernel's own table, since a Service's address in it may have been replaced by a
//! backend's: by port, not by target.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::Source;

/// Time between two looks at the table.
const LOOK: Duration = Duration::from_millis(1);
/// A connection that is closed on both sides and only remembered: a new one may take its place where both ends use
/// timestamps (tcp_twsk_unique in the kernel).
const TIME_WAIT: u8 = 6;
/// A server's socket.
const LISTEN: u8 = 10;
/// Names of the states by their numbers in /proc/net/tcp (include/net/tcp_states.h).
const STATES: [&str; 13] = [
    "?",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// A connection in the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Own address, as the kernel writes it.
    local: String,
    port: u16,
    /// The other end, address and port as the kernel writes them.
    remote: String,
    state: u8,
}

impl Connection {
    /// Whether it keeps its port from being used again towards the same end.
    fn holds(&self) -> bool {
        self.state != TIME_WAIT && self.state != LISTEN
    }
}

impl std::fmt::Display for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = STATES.get(usize::from(self.state)).unwrap_or(&STATES[0]);
        write!(out, "{}:{} -> {} {state} (addresses as in /proc/net/tcp)", self.local, self.port, self.remote)
    }
}

/// Connects by `connect`, and where the fixed source port is still held by an earlier connection, once more when that one
/// is gone. Any other error, and this one where nothing holds the port, is returned at once. Returns how long it waited
/// besides.
///
/// # Errors
/// Those of `connect`; `AddrNotAvailable` with what holds the port, if that is still there after `timeout`.
pub(crate) fn connect_when_free<T>(
    source: Source,
    target: SocketAddr,
    timeout: Duration,
    mut connect: impl FnMut() -> io::Result<T>,
    mut pause: impl FnMut(),
) -> io::Result<(T, Duration)> {
    let began = Instant::now();
    let mut vacant = false;
    loop {
        let error = match connect() {
            Ok(done) => return Ok((done, began.elapsed())),
            Err(error) => error,
        };
        // What held the port may have gone between the call and the look at the table, but not twice.
        let Some(port) = source.source_port.filter(|_| is_taken(&error) && !vacant) else { return Err(error) };
        vacant = true;
        while let Some(holder) = holders(port, target)?.first() {
            vacant = false;
            if began.elapsed() > timeout {
                let text = format!("source port {port} is still held after {timeout:?} by {holder}");
                return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
            }
            pause();
        }
    }
}

/// Waits a moment between two looks.
pub(crate) fn pause() {
    std::thread::sleep(LOOK);
}

fn is_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

/// Connections that keep a port from being used.
fn holders(port: u16, target: SocketAddr) -> io::Result<Vec<Connection>> {
    let path = if target.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    let text = std::fs::read_to_string(path)?;
    Ok(parse(&text).into_iter().filter(|connection| connection.port == port && connection.holds()).collect())
}

/// The lines of /proc/net/tcp (proc_net_tcp.rst); the first is a heading.
fn parse(text: &str) -> Vec<Connection> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, port) = words.next()?.split_once(':')?;
        let remote = words.next()?.to_owned();
        Some(Connection {
            local: local.to_owned(),
            port: u16::from_str_radix(port, 16).ok()?,
            remote,
            state: u8::from_str_radix(words.next()?, 16).ok()?,
        })
    };
    text.lines().skip(1).filter_map(line).collect()
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
