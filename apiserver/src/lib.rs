//! The crate is introduced by its README, whose example is run as a doc test.
//!
#![doc = include_str!("../README.md")]
// Rooms are closed to the outside here and nowhere else; what they show to each other they call `pub`.
#![allow(unreachable_pub, reason = "the list of re-exports below says what is public")]

mod admission;
mod audit;
mod auth;
mod body;
mod clock;
pub mod controllers;
mod expiry;
mod failure;
mod fields;
mod go;
mod kinds;
mod patch;
mod proxy;
mod registry;
mod request;
mod schema;
mod selector;
mod server;
mod state;
mod store;
mod table;
pub mod testing;
mod verbs;
mod view;
mod watch;
mod yaml;

// The server.
pub use server::{ApiServer, AsUser, Body, HistoryError, Options, StartError};
pub use store::{Durability, Event as HistoryEvent, Key as ObjectKey, LogError, Retention, TooOld};

// Who asks.
pub use auth::access::ISSUER as DEFAULT_ISSUER;
pub use auth::keys::{KeyError, PublicKey, SigningKey};
pub use auth::token::Tokens;
pub use auth::{AuthOptions, Credentials, User};

// What is given to it.
pub use clock::{Clock, RuntimeClock};
#[cfg(feature = "process")]
pub use proxy::tls::{CredentialError, TlsKubeletDialer};
pub use proxy::{Connecting, Connection, KubeletDialer, KubeletOptions};
