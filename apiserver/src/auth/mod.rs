//! Who asks, and whether they may.

pub mod user;

pub use user::User;
