//! Direct routes to the podCIDRs of other nodes on the same segment.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;

use crate::sys::netlink::{Netlink, ROUTE_PROTOCOL, Route};

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Name.
    pub name: String,
    /// InternalIP.
    pub address: Ipv4Addr,
    /// podCIDR, once it has one.
    pub pod_cidr: Option<Ipv4Net>,
}

/// The routes that should be there: a peer is reached directly if its address lies on a connected network; a peer behind
/// a router would need that router to know its podCIDR, which is not ours to arrange.
#[must_use]
pub fn desired(peers: &[Peer], connected: &[Route]) -> Vec<Route> {
    let device = |address: Ipv4Addr| {
        connected
            .iter()
            .filter(|route| route.gateway.is_none() && route.prefix > 0 && route.prefix < 32)
            .find(|route| Ipv4Net::new(route.destination, route.prefix).is_ok_and(|network| network.contains(&address)))
            .map(|route| route.device)
    };
    peers
        .iter()
        .filter_map(|peer| {
            let cidr = peer.pod_cidr?;
            Some(Route {
                destination: cidr.network(),
                prefix: cidr.prefix_len(),
                gateway: Some(peer.address),
                device: device(peer.address)?,
                protocol: ROUTE_PROTOCOL,
            })
        })
        .collect()
}

/// Adds what is missing and removes those of our routes to other nodes that are not desired.
///
/// # Errors
/// With the route that the kernel refused.
pub fn reconcile(netlink: &mut Netlink, peers: &[Peer]) -> Result<()> {
    let present = netlink.routes().context("listing routes")?;
    let desired = desired(peers, &present);
    for route in desired.iter().filter(|route| !present.contains(route)) {
        netlink.put_route(route).with_context(|| format!("adding route {route:?}"))?;
    }
    let ours = |route: &&Route| route.protocol == ROUTE_PROTOCOL && route.gateway.is_some();
    for route in present.iter().filter(ours).filter(|route| !desired.contains(route)) {
        netlink.delete_route(route).with_context(|| format!("removing route {route:?}"))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
