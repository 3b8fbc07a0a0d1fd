//! A Kubernetes-compatible API server.

pub mod failure;
pub mod fields;
pub mod patch;
pub mod registry;
pub mod request;
pub mod schema;
pub mod selector;
pub mod store;
