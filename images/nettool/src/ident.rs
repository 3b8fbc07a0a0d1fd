//! Who this process is: read from its own namespaces each time it is asked, never remembered, so that the answer is true
//! at that moment.

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use serde::Serialize;

use crate::sys;

/// Identity of a workload.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Identity {
    /// Host name of the UTS namespace, which is the pod's name.
    pub(crate) pod: String,
    /// IPv4 address of `eth0`; empty if there is none.
    pub(crate) address: String,
    /// Prefix length of that address.
    pub(crate) prefix: u32,
    /// Cookie of the network namespace.
    pub(crate) netns_cookie: u64,
}

impl Identity {
    /// Reads name, address and cookie.
    ///
    /// # Errors
    /// If the kernel does not answer; an interface without an address is not an error.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let pod = nix::unistd::gethostname().context("hostname")?.to_string_lossy().into_owned();
        let (address, prefix) = eth0()?.unwrap_or_default();
        let socket =
            std::net::UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| std::net::UdpSocket::bind(("0.0.0.0", 0)))?;
        let netns_cookie = sys::netns_cookie(&socket).context("SO_NETNS_COOKIE")?;
        Ok(Self { pod, address, prefix, netns_cookie })
    }
}

/// First IPv4 address of `eth0` with its prefix length.
fn eth0() -> anyhow::Result<Option<(String, u32)>> {
    for entry in getifaddrs().context("interface addresses")? {
        if entry.interface_name != "eth0" {
            continue;
        }
        if let Some(address) = entry.address.as_ref().and_then(|address| address.as_sockaddr_in()) {
            let mask =
                entry.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in()).map_or(0, |mask| u32::from(mask.ip()));
            return Ok(Some((address.ip().to_string(), mask.leading_ones())));
        }
    }
    Ok(None)
}

/// Answer to a request: who answers and what it saw of the asker.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Answer {
    /// Who answers.
    #[serde(flatten)]
    pub(crate) identity: Identity,
    /// Address of the peer as this socket saw it.
    pub(crate) peer_address: String,
    /// Port of the peer as this socket saw it.
    pub(crate) peer_port: u16,
    /// Local address of the connection or datagram.
    pub(crate) server_address: String,
    /// Local port.
    pub(crate) server_port: u16,
    /// Payload of the request, for UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<String>,
}
