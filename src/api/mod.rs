//! Types and strings that the API server, the user and the rooms of portolan share. Each string lives here once.

pub mod attachment;
pub mod config;
pub mod manifests;
pub mod pool;
pub mod strings;
