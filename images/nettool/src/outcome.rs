//! Classes of what can come of an attempt at traffic. A class is data for the harness, not a verdict.

use std::io;

use serde::Serialize;

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Answered as the protocol asks.
    Ok,
    /// Refused: RST to a SYN, ICMP port unreachable, or ECONNREFUSED from a socket hook.
    Refused,
    /// No answer in time.
    Timeout,
    /// The connection was reset after it was established.
    Reset,
    /// No route, or ICMP host or net unreachable.
    NoRoute,
    /// HTTP status 4xx.
    #[serde(rename = "http-4xx")]
    Http4xx,
    /// HTTP status 5xx.
    #[serde(rename = "http-5xx")]
    Http5xx,
    /// An answer that does not parse, or ended early.
    BadBody,
    /// The attempt never left this host: the source port is taken, the source address is not ours, and so on.
    Local,
}

impl Outcome {
    /// Class of an error of connect, read or write.
    pub(crate) fn of_error(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => return Self::Refused,
            Some(libc::ETIMEDOUT) => return Self::Timeout,
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => return Self::Reset,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => return Self::NoRoute,
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Timeout,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::BadBody,
            _ => Self::Local,
        }
    }
}
