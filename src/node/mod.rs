//! A node's own network: addresses of its pods, its devices, routes to other nodes.

pub mod devices;
pub mod endpoint;
pub mod ipam;
pub mod kernel;
pub mod routes;
