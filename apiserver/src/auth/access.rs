//! What the server knows about access: keys, plug-ins, and the compiled roles.

use std::sync::Arc;

use super::keys::KeyError;
use super::rbac::{GROUP, Policy};
use super::token::Tokens;
use crate::store::Key;

/// Who made a token, if nothing else is said.
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// How requests are authenticated and admitted.
#[derive(Default)]
#[non_exhaustive]
pub struct AuthOptions {
    /// What service-account tokens are made and judged by; a key that ends with the process without.
    pub tokens: Option<Tokens>,
    /// Whether pods need a service account and get its token (admission plug-in ServiceAccount).
    pub service_accounts: bool,
    /// Whether kubelets may change only what is theirs (admission plug-in NodeRestriction).
    pub node_restriction: bool,
}

impl AuthOptions {
    /// What service-account tokens are made and judged by.
    #[must_use]
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Whether pods need a service account and get its token (admission plug-in ServiceAccount).
    #[must_use]
    pub fn service_accounts(mut self, needed: bool) -> Self {
        self.service_accounts = needed;
        self
    }

    /// Whether kubelets may change only what is theirs (admission plug-in NodeRestriction).
    #[must_use]
    pub fn node_restriction(mut self, restricted: bool) -> Self {
        self.node_restriction = restricted;
        self
    }
}

/// Part of the server's state.
pub struct Access {
    /// Tokens.
    pub tokens: Arc<Tokens>,
    /// Plug-in ServiceAccount.
    pub service_accounts: bool,
    /// Plug-in NodeRestriction.
    pub node_restriction: bool,
    /// Roles and bindings, until one of them changes.
    pub(super) policy: Option<Arc<Policy>>,
}

impl Access {
    /// From options.
    ///
    /// # Errors
    /// No key can be made, for want of randomness.
    pub fn new(options: AuthOptions) -> Result<Self, KeyError> {
        let tokens = match options.tokens {
            Some(tokens) => tokens,
            None => Tokens::generated(ISSUER)?,
        };
        let AuthOptions { service_accounts, node_restriction, .. } = options;
        Ok(Self { tokens: Arc::new(tokens), service_accounts, node_restriction, policy: None })
    }

    /// Notes that an object changed.
    pub fn follow(&mut self, key: &Key) {
        if key.resource.starts_with(GROUP) {
            self.policy = None;
        }
    }
}
