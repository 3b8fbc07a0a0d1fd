//! Kubernetes: the connection, leadership, and writes.

pub mod client;
pub mod lease;
