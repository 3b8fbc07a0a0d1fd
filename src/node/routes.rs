//! Direct routes to the podCIDRs of other nodes on the same segment.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
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

/// Adds what is missing and removes those of our routes to other nodes that are not desired. Somebody else's route to the
/// same destination stays as it is: it may be there for a reason that we do not know.
///
/// # Errors
/// With the route that the kernel refused, or that somebody else's is in the way of; the others are done.
pub fn reconcile(netlink: &mut Netlink, peers: &[Peer]) -> Result<()> {
    let present = netlink.routes().context("listing routes")?;
    let desired = desired(peers, &present);
    let ours = |route: &&Route| route.protocol == ROUTE_PROTOCOL && route.gateway.is_some();
    let mut failed = Vec::new();
    for route in desired.iter().filter(|route| !present.contains(route)) {
        let same = |other: &&Route| other.destination == route.destination && other.prefix == route.prefix;
        let done = match present.iter().find(same) {
            Some(held) if !ours(&held) => Err(format!("{} is there already, and it is not portolan's", Shown(held))),
            Some(_) => netlink.put_route(route).map_err(|error| error.to_string()),
            None => netlink.add_route(route).map_err(|error| error.to_string()),
        };
        failed.extend(done.err().map(|reason| format!("adding {}: {reason}", Shown(route))));
    }
    for route in present.iter().filter(ours).filter(|route| !desired.contains(route)) {
        let done = netlink.delete_route(route);
        failed.extend(done.err().map(|reason| format!("removing {}: {reason}", Shown(route))));
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// A route as `ip route` would name it.
struct Shown<'a>(&'a Route);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Route { destination, prefix, gateway, device, protocol } = self.0;
        write!(out, "route {destination}/{prefix}")?;
        if let Some(gateway) = gateway {
            write!(out, " via {gateway}")?;
        }
        write!(out, " dev #{device} proto {protocol}")
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
