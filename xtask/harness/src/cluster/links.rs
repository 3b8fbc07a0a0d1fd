//! Links, addresses and routes of a network namespace, by rtnetlink.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{BridgeStpState, InfoData, InfoKind, InfoVeth};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::sys;

/// A namespace as rtnetlink shows it. Names of links are those inside.
pub(super) struct Links {
    handle: Handle,
}

/// Works on the links of a network namespace.
///
/// # Errors
/// If the namespace cannot be entered, or what `work` says.
pub(super) fn within<T: Send>(
    namespace: impl AsFd + Send,
    work: impl AsyncFnOnce(Links) -> Result<T> + Send,
) -> Result<T> {
    let done = sys::in_netns(namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            Ok(work(Links { handle }).await)
        })
    });
    done.context("entering the network namespace")?
}

fn index(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("there is no link {name}"))
}

impl Links {
    /// Adds a bridge that forwards at once, and sets it up.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn add_bridge(&self, name: &str) -> Result<()> {
        let bridge = LinkBridge::new(name).stp_state(BridgeStpState::Disabled).forward_delay(0).up().build();
        self.handle.link().add(bridge).execute().await.with_context(|| format!("adding bridge {name}"))
    }

    /// Adds a pair of links: `name` here, set up, and `peer` in another namespace, with that MAC address if one is given.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn add_veth(
        &self,
        name: &str,
        peer: &str,
        namespace: impl AsFd,
        mac: Option<[u8; 6]>,
    ) -> Result<()> {
        let mut other = LinkUnspec::new_with_name(peer).setns_by_fd(namespace.as_fd().as_raw_fd());
        if let Some(mac) = mac {
            other = other.address(mac.to_vec());
        }
        let pair = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other.build())))
            .up()
            .build();
        self.handle.link().add(pair).execute().await.with_context(|| format!("adding the pair {name} and {peer}"))
    }

    /// Makes a link a port of a bridge.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn set_bridge(&self, name: &str, bridge: &str) -> Result<()> {
        let port = LinkUnspec::new_with_index(index(name)?).controller(index(bridge)?).build();
        self.handle.link().set(port).execute().await.with_context(|| format!("making {name} a port of {bridge}"))
    }

    /// Sets a link up or down.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn set(&self, name: &str, up: bool) -> Result<()> {
        let link = LinkUnspec::new_with_index(index(name)?);
        let link = if up { link.up() } else { link.down() };
        let way = if up { "up" } else { "down" };
        self.handle.link().set(link.build()).execute().await.with_context(|| format!("setting {name} {way}"))
    }

    /// Removes a link.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        self.handle.link().del(index(name)?).execute().await.with_context(|| format!("removing {name}"))
    }

    /// Adds an address to a link.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn add_address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let request = self.handle.address().add(index(name)?, IpAddr::V4(address), prefix);
        request.execute().await.with_context(|| format!("adding {address}/{prefix} to {name}"))
    }

    /// Adds a route.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn add_route(&self, destination: Ipv4Net, gateway: Ipv4Addr) -> Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination.network(), destination.prefix_len())
            .gateway(gateway)
            .build();
        let added = self.handle.route().add(route).execute().await;
        added.with_context(|| format!("adding the route to {destination} by {gateway}"))
    }

    /// Adds the default route.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn add_default_route(&self, gateway: Ipv4Addr) -> Result<()> {
        self.add_route(Ipv4Net::default(), gateway).await
    }
}
