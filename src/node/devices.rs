//! Native devices: what carries traffic between this node and the rest of the world.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, bail};

use crate::sys::netlink::{Link, Netlink};

/// A native device with its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Native {
    /// The device.
    pub link: Link,
    /// Its first IPv4 address: the source of what is masqueraded there.
    pub address: Ipv4Addr,
}

/// The devices named, or else those with a default route and the one that carries the node's address.
///
/// # Errors
/// If a named device is not there or has no address, or none is found.
pub fn native(netlink: &mut Netlink, named: &[String], node_ip: Ipv4Addr) -> Result<Vec<Native>> {
    let links = netlink.links().context("listing links")?;
    let addresses = netlink.addresses().context("listing addresses")?;
    let address_of = |index: u32| {
        let of_device = addresses.iter().filter(|address| address.index == index);
        let v4: Vec<Ipv4Addr> = of_device
            .filter_map(|address| match address.address {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            })
            .collect();
        if v4.contains(&node_ip) { Some(node_ip) } else { v4.first().copied() }
    };
    let wanted: BTreeSet<u32> = if named.is_empty() {
        let by_route = netlink.routes().context("listing routes")?.into_iter().filter(|route| route.prefix == 0);
        let by_address = addresses.iter().filter(|address| address.address == IpAddr::V4(node_ip));
        by_route.map(|route| route.device).chain(by_address.map(|address| address.index)).collect()
    } else {
        let index = |name: &String| {
            let link = links.iter().find(|link| link.name == *name);
            link.map(|link| link.index)
                .with_context(|| format!("`devices` names {name}, which this node does not have"))
        };
        named.iter().map(index).collect::<Result<_>>()?
    };
    let mut natives = Vec::new();
    for link in links.into_iter().filter(|link| wanted.contains(&link.index)) {
        let Some(address) = address_of(link.index) else {
            bail!("device {} has no IPv4 address", link.name);
        };
        natives.push(Native { link, address });
    }
    if natives.is_empty() {
        bail!("no device has a default route or the node's address {node_ip}; name them in `devices`");
    }
    Ok(natives)
}

/// The node's own IPv4 addresses, without loopback.
///
/// # Errors
/// If the kernel refuses.
pub fn own_addresses(netlink: &mut Netlink) -> Result<BTreeSet<Ipv4Addr>> {
    let all = netlink.addresses().context("listing addresses")?;
    Ok(all
        .into_iter()
        .filter_map(|address| match address.address {
            IpAddr::V4(v4) if !v4.is_loopback() => Some(v4),
            _ => None,
        })
        .collect())
}
