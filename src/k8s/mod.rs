//! Kubernetes: the connection, leadership, and Events.

pub mod backoff;
pub mod client;
pub mod clock;
pub mod events;
pub mod fence;
pub mod lease;
