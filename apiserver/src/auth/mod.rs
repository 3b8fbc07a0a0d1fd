//! Who asks, and whether they may.
//!
//! A request is authenticated (`authenticate`: certificate, token, or nobody), may be made in another's name, and is then
//! decided on (`authorize`: administrators, nodes by what their pods use, roles). Requests in process say who they are with
//! an extension (`ApiServer::as_user` adds it), and are trusted; without one they are an administrator's.

pub mod access;
pub mod aggregation;
pub mod attributes;
pub mod authenticate;
pub mod authorize;
pub mod bootstrap;
pub mod escalation;
pub mod gate;
pub mod keys;
pub(crate) mod node;
pub mod rbac;
pub mod review;
pub mod token;
pub mod token_request;
pub mod user;

pub use access::AuthOptions;
pub use authenticate::Credentials;
pub use user::User;
