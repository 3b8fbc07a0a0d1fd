//! As much of nfnetlink as a table with one base chain needs (linux/netfilter/nf_tables.h): messages as bytes, a batch as
//! one transaction, and the counter of a chain.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH: (u16, u16) = (0x10, 0x11);
/// Nested attribute.
const NESTED: u16 = 0x8000;
/// Length of `struct nlmsghdr` and of `struct nfgenmsg`, bytes.
const HEADERS: (usize, usize) = (16, 4);

/// What is asked for.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(crate) enum Kind {
    /// `NFT_MSG_NEWTABLE`.
    NewTable = 0,
    /// `NFT_MSG_DELTABLE`.
    DeleteTable = 2,
    /// `NFT_MSG_NEWCHAIN`.
    NewChain = 3,
    /// `NFT_MSG_GETCHAIN`.
    GetChain = 4,
    /// `NFT_MSG_GETGEN`.
    Generation = 16,
}

/// Attributes in the order in which they were added.
#[derive(Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A text.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// A number; in network byte order, as everything of nf_tables.
    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// A long number.
    pub(crate) fn long(self, kind: u16, value: u64) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// As they are sent.
    #[cfg(test)]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Attributes within an attribute.
    pub(crate) fn nested(self, kind: u16, value: &Self) -> Self {
        self.put(kind | NESTED, &value.0)
    }
}

/// The value of an attribute.
pub(crate) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [l0, l1, k0, k1, rest @ ..] = bytes {
        let length = usize::from(u16::from_ne_bytes([*l0, *l1])).checked_sub(4)?;
        let value = rest.get(..length)?;
        if u16::from_ne_bytes([*k0, *k1]) & !NESTED == wanted {
            return Some(value);
        }
        bytes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// A socket in the calling thread's network namespace.
pub(crate) struct Nfnetlink {
    socket: OwnedFd,
}

impl Nfnetlink {
    /// Opens it.
    ///
    /// # Errors
    /// If the kernel has no nfnetlink.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        // The kernel answers before send returns; a limit keeps a misunderstanding from hanging.
        setsockopt(&socket, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(5, 0))?;
        Ok(Self { socket })
    }

    /// Changes that come about together or not at all.
    ///
    /// # Errors
    /// What the kernel says of the first that it refuses.
    pub(crate) fn commit(&self, changes: &[(Kind, Attributes)]) -> io::Result<()> {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE) as u16;
        let mut batch = message(BATCH.0, libc::NLM_F_REQUEST as u16, 0, SUBSYSTEM, &[]);
        for (kind, attributes) in changes {
            batch.extend(message(SUBSYSTEM << 8 | *kind as u16, flags, IPV4, 0, &attributes.0));
        }
        batch.extend(message(BATCH.1, libc::NLM_F_REQUEST as u16, 0, SUBSYSTEM, &[]));
        self.send(&batch)?;
        let mut acknowledged = 0;
        while acknowledged < changes.len() {
            for answer in self.receive()? {
                answer?;
                acknowledged += 1;
            }
        }
        Ok(())
    }

    /// Asks, and returns the attributes of the answer.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn get(&self, kind: Kind, attributes: &Attributes) -> io::Result<Vec<u8>> {
        let kind = SUBSYSTEM << 8 | kind as u16;
        self.send(&message(kind, libc::NLM_F_REQUEST as u16, IPV4, 0, &attributes.0))?;
        let first = self.receive()?.into_iter().next();
        first.unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no answer")))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sendto(self.socket.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// The messages of one datagram: attributes, or what was refused; an acknowledgement is an empty one.
    fn receive(&self) -> io::Result<Vec<io::Result<Vec<u8>>>> {
        let mut buffer = vec![0; 64 << 10];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        Ok(answers(&buffer[..length]))
    }
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = HEADERS.0 + HEADERS.1 + attributes.len();
    let mut bytes = u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number and port: one question at a time.
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

fn answers(mut bytes: &[u8]) -> Vec<io::Result<Vec<u8>>> {
    let mut all = Vec::new();
    while bytes.len() >= HEADERS.0 {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let Some(payload) = bytes.get(HEADERS.0..length) else { break };
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        all.push(if i32::from(kind) == libc::NLMSG_ERROR {
            match payload.first_chunk::<4>().map(|code| i32::from_ne_bytes(*code)) {
                Some(0) => Ok(Vec::new()),
                code => Err(io::Error::from_raw_os_error(-code.unwrap_or(-libc::EPROTO))),
            }
        } else {
            Ok(payload.get(HEADERS.1..).unwrap_or_default().to_vec())
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

#[cfg(test)]
#[path = "nftables_tests.rs"]
mod tests;
