//! The CNI plugin: a short-lived process in the node's namespaces that makes the pod's veth. The agent gives the address
//! and attaches the programs; without it an ADD fails with "try again later".

pub mod client;
pub mod plugin;
pub mod protocol;
pub mod wire;

/// Socket of the agent.
pub const SOCKET: &str = "/run/portolan/cni.sock";
/// Link-local address that pods use as their gateway; it answers nothing, its MAC address is entered by hand.
pub const GATEWAY: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 1, 1);
