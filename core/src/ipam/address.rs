//! Ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Family of an address; IPv4-mapped IPv6 counts as IPv6.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Why a block is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// `cidr` is no prefix.
    #[error("cidr {0:?} is not an address with a prefix length")]
    Cidr(String),
    /// `start` or `stop` is no address.
    #[error("{field} {text:?} is not an address")]
    Address {
        /// Name of the field.
        field: &'static str,
        /// Its content.
        text: String,
    },
    /// Neither `cidr` nor `start`.
    #[error("a block needs cidr, or start and optionally stop")]
    Empty,
    /// `stop` lies before `start`, or is of another family.
    #[error("stop {stop} does not follow start {start}")]
    Order {
        /// First address.
        start: IpAddr,
        /// Last address.
        stop: IpAddr,
    },
}

/// Addresses of one family, first and last included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// Family.
    pub family: Family,
    /// First address as a number.
    pub first: u128,
    /// Last address as a number.
    pub last: u128,
}

impl Range {
    /// All addresses of a prefix; host bits are masked off.
    ///
    /// # Errors
    /// If the text is no prefix.
    pub fn from_cidr(text: &str) -> Result<Self, RangeError> {
        let net: IpNet = text.parse().map_err(|_| RangeError::Cidr(text.to_owned()))?;
        Ok(Self { family: Family::of(net.network()), first: number(net.network()), last: number(net.broadcast()) })
    }

    /// From `start` to `stop`.
    ///
    /// # Errors
    /// If they are no addresses, or in the wrong order.
    pub fn from_bounds(start: &str, stop: Option<&str>) -> Result<Self, RangeError> {
        let parse = |field, text: &str| {
            text.parse::<IpAddr>().map_err(|_| RangeError::Address { field, text: text.to_owned() })
        };
        let first = parse("start", start)?;
        let last = stop.map_or(Ok(first), |stop| parse("stop", stop))?;
        if Family::of(first) != Family::of(last) || number(first) > number(last) {
            return Err(RangeError::Order { start: first, stop: last });
        }
        Ok(Self { family: Family::of(first), first: number(first), last: number(last) })
    }

    /// Number of addresses; one too few for all of IPv6.
    #[must_use]
    pub fn count(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether the address lies within.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.family == Family::of(address) && (self.first..=self.last).contains(&number(address))
    }

    /// Whether both have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// The address at an offset, if it lies within.
    #[must_use]
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        let number = self.first.checked_add(offset).filter(|number| *number <= self.last)?;
        Some(address(self.family, number))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} - {}", address(self.family, self.first), address(self.family, self.last))
    }
}

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// A number as an address.
pub(super) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // Numbers of this family come from IPv4 addresses and from steps within their range.
        Family::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from(number).into(),
    }
}
