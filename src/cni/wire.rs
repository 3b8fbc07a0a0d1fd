//! Making and removing a pod's veth.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;

use super::GATEWAY;
use crate::sys::netlink::{Link, Netlink, ROUTE_PROTOCOL, Route};
use crate::sys::{netns, sysctl};

/// The two ends of a veth.
pub struct Pair {
    /// The node's side.
    pub host: Link,
    /// The pod's side.
    pub pod: Link,
}

/// Makes the pair and configures both ends. Doing it again repairs what is missing.
///
/// # Errors
/// If the kernel refuses; what was made stays, for `remove` or another try.
pub fn make(device: &str, ifname: &str, namespace: &File, address: Ipv4Addr, mtu: u32) -> io::Result<Pair> {
    let mut node = Netlink::open()?;
    match node.add_veth(device, ifname, namespace, mtu) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let host = find(&mut node, device)?;
    // The node routes to the pod by this device alone; a reply of a Service has that Service's address as its source.
    sysctl::set(&format!("ipv4/conf/{device}/rp_filter"), "0")?;
    node.set_up(host.index)?;
    let host_mac = host.mac;
    let pod = netns::within(namespace, || inside(ifname, address, host_mac))??;
    node.put_neighbour(host.index, address, pod.mac)?;
    let route = Route { destination: address, prefix: 32, gateway: None, device: host.index, protocol: ROUTE_PROTOCOL };
    node.put_route(&route)?;
    Ok(Pair { host, pod })
}

/// In the pod's namespace: address, gateway, routes.
fn inside(ifname: &str, address: Ipv4Addr, host_mac: [u8; 6]) -> io::Result<Link> {
    let mut netlink = Netlink::open()?;
    let lo = find(&mut netlink, "lo")?;
    netlink.set_up(lo.index)?;
    let link = find(&mut netlink, ifname)?;
    netlink.add_address(link.index, address, 32)?;
    netlink.set_up(link.index)?;
    netlink.put_neighbour(link.index, GATEWAY, host_mac)?;
    let protocol = ROUTE_PROTOCOL;
    let to_gateway = Route { destination: GATEWAY, prefix: 32, gateway: None, device: link.index, protocol };
    let default =
        Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway: Some(GATEWAY), device: link.index, protocol };
    netlink.put_route(&to_gateway)?;
    netlink.put_route(&default)?;
    Ok(link)
}

/// Whether both ends are there and the pod's has its address.
///
/// # Errors
/// `NotFound` with what is missing.
pub fn check(device: &str, ifname: &str, namespace: &File, address: Ipv4Addr) -> io::Result<()> {
    find(&mut Netlink::open()?, device)?;
    netns::within(namespace, || {
        let mut netlink = Netlink::open()?;
        let link = find(&mut netlink, ifname)?;
        let has = netlink.addresses()?.iter().any(|held| held.index == link.index && held.address == address);
        if has { Ok(()) } else { Err(io::Error::new(io::ErrorKind::NotFound, format!("{ifname} has not {address}"))) }
    })?
}

/// Removes the pair.
///
/// # Errors
/// If the kernel refuses; a pair that is not there is no error.
pub fn remove(device: &str) -> io::Result<()> {
    Netlink::open()?.delete_link(device)
}

fn find(netlink: &mut Netlink, name: &str) -> io::Result<Link> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no device {name}"));
    netlink.link(name)?.ok_or_else(missing)
}
