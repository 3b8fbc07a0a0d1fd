//! Addresses of pods from the node's podCIDR.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::endpoint::Attachment;

/// The podCIDR is full.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {capacity} addresses of {cidr} are in use")]
pub struct Exhausted {
    /// The podCIDR.
    pub cidr: Ipv4Net,
    /// Its number of addresses for pods.
    pub capacity: u32,
}

/// Who has which address. It goes round, so that an address is not reused while peers may still remember its last owner.
#[derive(Debug)]
pub struct Ipam {
    cidr: Ipv4Net,
    used: BTreeMap<Ipv4Addr, Attachment>,
    last: Option<Ipv4Addr>,
}

impl Ipam {
    /// All addresses of `cidr` free. The first and last are no host's (network and broadcast).
    #[must_use]
    pub fn new(cidr: Ipv4Net) -> Self {
        Self { cidr, used: BTreeMap::new(), last: None }
    }

    /// The podCIDR.
    #[must_use]
    pub fn cidr(&self) -> Ipv4Net {
        self.cidr
    }

    /// Number of addresses for pods.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.cidr.hosts().count()).unwrap_or(u32::MAX)
    }

    /// Number of addresses in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// Notes an address that is in use already. `false` if somebody else has it or it lies outside.
    pub fn reserve(&mut self, address: Ipv4Addr, owner: &Attachment) -> bool {
        if !self.cidr.contains(&address) {
            return false;
        }
        self.last = self.last.max(Some(address));
        self.used.entry(address).or_insert_with(|| owner.clone()) == owner
    }

    /// The address of `owner`: the one it has, or a free one.
    ///
    /// # Errors
    /// If none is free.
    pub fn allocate(&mut self, owner: &Attachment) -> Result<Ipv4Addr, Exhausted> {
        if let Some((address, _)) = self.used.iter().find(|(_, held)| *held == owner) {
            return Ok(*address);
        }
        let after = |address: &Ipv4Addr| self.last.is_none_or(|last| *address > last);
        let free = |address: &Ipv4Addr| !self.used.contains_key(address);
        let found = self.cidr.hosts().find(|address| after(address) && free(address));
        let found = found.or_else(|| self.cidr.hosts().find(free));
        let address = found.ok_or(Exhausted { cidr: self.cidr, capacity: self.capacity() })?;
        self.used.insert(address, owner.clone());
        self.last = Some(address);
        Ok(address)
    }

    /// Gives the address of `owner` back.
    pub fn release(&mut self, owner: &Attachment) -> Option<Ipv4Addr> {
        let address = self.used.iter().find(|(_, held)| *held == owner).map(|(address, _)| *address)?;
        self.used.remove(&address);
        Some(address)
    }
}

#[cfg(test)]
#[path = "ipam_tests.rs"]
mod tests;
