//! The crate is introduced by its README, whose example is run as a doc test.
//!
#![doc = include_str!("../README.md")]

pub mod admission;
pub mod audit;
pub mod auth;
pub mod body;
pub mod clock;
pub mod controllers;
pub(crate) mod expiry;
pub mod failure;
pub mod fields;
pub(crate) mod go;
pub mod kinds;
pub mod patch;
pub mod proxy;
pub mod registry;
pub mod request;
pub mod schema;
pub mod selector;
pub mod server;
pub mod state;
pub mod store;
pub mod table;
pub mod testing;
pub mod verbs;
pub mod view;
pub mod watch;
pub mod yaml;

pub use server::{ApiServer, AsUser, HistoryError, Options, StartError};
