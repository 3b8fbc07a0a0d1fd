//! The way in: who asks, for whom, and whether they may; each step leaves its mark in the audit log.

use std::sync::Arc;

use http::request::Parts;

use super::attributes::Attributes;
use super::authenticate::{authenticate, impersonate};
use super::user::User;
use crate::audit::Trail;
use crate::failure::Outcome;
use crate::state::State;

/// The user for whom the request goes on.
///
/// # Errors
/// 401, 403.
pub fn enter(state: &mut State, request: &Parts, wanted: &Attributes, trail: &mut Option<Trail>) -> Outcome<Arc<User>> {
    let mut user = authenticate(state, &request.headers, &request.extensions)?;
    if let Some(trail) = trail {
        trail.user(&user);
    }
    if let Some(other) = impersonate(state, &user, &request.headers)? {
        if let Some(trail) = trail {
            trail.impersonated(&other);
        }
        user = other;
    }
    let decision = state.decide(&user, wanted);
    if let Some(trail) = trail {
        trail.decided(&decision);
    }
    match decision.allowed {
        true => Ok(Arc::new(user)),
        false => Err(wanted.forbidden(&user.name, &decision.reason)),
    }
}
