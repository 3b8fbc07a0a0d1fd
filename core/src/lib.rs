//! What portolan decides, as pure functions over plain values.
//!
//! No clock, no randomness, no I/O, no Kubernetes types: callers turn objects into these values, ask for a decision,
//! and carry it out. Everything here can be tested without root and without a cluster.
#![forbid(unsafe_code)]

pub mod datapath;
pub mod ipam;
pub mod service;
