//! Targets: `http://A.B.C.D:PORT/path`, `tcp://A.B.C.D:PORT`, `udp://A.B.C.D:PORT`. Addresses only: what is resolved by
//! name would test the resolver, and a static binary has none.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Protocol spoken to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// One HTTP/1.1 GET on a connection of its own.
    Http,
    /// Connect, then close.
    Tcp,
    /// One datagram, one echo.
    Udp,
}

/// Where a probe goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As written, so that results can be matched to requests.
    pub(crate) text: String,
    /// Protocol.
    pub(crate) scheme: Scheme,
    /// Address and port.
    pub(crate) address: SocketAddr,
    /// Path and query of an HTTP request.
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("`{text}` lacks a scheme (http, tcp, udp)"))?;
        let (scheme, default_port) = match scheme {
            "http" => (Scheme::Http, Some(80)),
            "tcp" => (Scheme::Tcp, None),
            "udp" => (Scheme::Udp, None),
            other => return Err(format!("unknown scheme `{other}` (http, tcp, udp)")),
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let address = authority.parse::<SocketAddr>().or_else(|_| {
            let ip: IpAddr = authority
                .parse()
                .map_err(|_| format!("`{authority}` is not an address with a port; names are not resolved"))?;
            let port = default_port.ok_or_else(|| format!("`{text}` lacks a port"))?;
            Ok::<_, String>(SocketAddr::new(ip, port))
        })?;
        Ok(Self { text: text.to_owned(), scheme, address, path: path.to_owned() })
    }
}
