//! The decision: administrators, then nodes, then roles.

use std::sync::Arc;

use super::attributes::Attributes;
use super::node;
use super::rbac::{Answer, Policy};
use super::user::{MASTERS, User};
use crate::failure::Outcome;
use crate::state::State;

/// What was decided about a request, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may go on.
    pub allowed: bool,
    /// For people and the audit log; often empty.
    pub reason: String,
}

impl State {
    /// The roles and bindings as they are now.
    pub fn policy(&mut self) -> Arc<Policy> {
        Arc::clone(self.access.policy.get_or_insert_with(|| Arc::new(Policy::read(&self.store))))
    }

    /// Whether the user may.
    pub fn decide(&mut self, user: &User, wanted: &Attributes) -> Decision {
        if user.is_in(MASTERS) {
            return Decision { allowed: true, reason: String::new() };
        }
        let policy = self.policy();
        let mut reasons = Vec::new();
        if let Some(name) = user.node() {
            let rules = policy.rules("ClusterRole", "", "system:node").unwrap_or_default();
            match node::authorize(&self.store, rules, name, wanted) {
                Ok(()) => return Decision { allowed: true, reason: String::new() },
                Err(reason) => reasons.push(reason),
            }
        }
        match policy.ask(user, wanted) {
            Answer::Allowed(reason) => return Decision { allowed: true, reason },
            Answer::Silent(reason) => reasons.push(reason),
        }
        reasons.retain(|reason| !reason.is_empty());
        Decision { allowed: false, reason: reasons.join("\n") }
    }

    /// Refuses what the user may not do.
    ///
    /// # Errors
    /// 403.
    pub fn permit(&mut self, user: &User, wanted: &Attributes) -> Outcome<Decision> {
        let decision = self.decide(user, wanted);
        match decision.allowed {
            true => Ok(decision),
            false => Err(wanted.forbidden(&user.name, &decision.reason)),
        }
    }
}
