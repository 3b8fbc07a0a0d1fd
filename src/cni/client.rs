//! Talking to the agent: one JSON line each way per connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::api::attachment::Attachment;

/// Longest line on the socket.
pub const LINE_MAX: u64 = 1 << 20;
/// The agent answers from memory; if it does not within this time it is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// An address for a pod; the same again for the same attachment.
    Allocate {
        /// Container id.
        container_id: String,
        /// Interface name in the pod.
        ifname: String,
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
    },
    /// The veth is there: attach to it.
    Attach {
        /// Container id.
        container_id: String,
        /// Interface name in the pod.
        ifname: String,
        /// Index of the node's side.
        ifindex: u32,
        /// MAC address of the pod's side.
        pod_mac: [u8; 6],
        /// MAC address of the node's side.
        host_mac: [u8; 6],
    },
    /// The pod is gone.
    Release {
        /// Container id.
        container_id: String,
        /// Interface name in the pod.
        ifname: String,
    },
    /// Only these attachments are still valid: give back all others.
    Retain {
        /// The valid ones.
        valid: Vec<Attachment>,
    },
    /// Are you there?
    Ping,
    /// Everything `portolan status` shows.
    Status,
}

/// The agent's answer to [`Request::Allocate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocated {
    /// Address of the pod.
    pub address: Ipv4Addr,
    /// MTU of its interface.
    pub mtu: u32,
}

/// Why the agent could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers: the agent is down or starting.
    #[error("the agent does not answer on {socket}")]
    Unreachable {
        /// Path of the socket.
        socket: String,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// The agent said no.
    #[error("the agent refused: {0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("the agent's answer cannot be understood")]
    Garbled(#[source] serde_json::Error),
}

/// One answer on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Done.
    Ok(serde_json::Value),
    /// Refused, with the reason.
    Error(String),
}

/// Asks the agent at `socket`.
///
/// # Errors
/// See [`Error`].
pub fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, Error> {
    let line = exchange(socket, request)
        .map_err(|source| Error::Unreachable { socket: socket.display().to_string(), source })?;
    match serde_json::from_str(&line).map_err(Error::Garbled)? {
        Answer::Ok(value) => serde_json::from_value(value).map_err(Error::Garbled),
        Answer::Error(reason) => Err(Error::Refused(reason)),
    }
}

fn exchange(socket: &Path, request: &Request) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_MAX)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}
