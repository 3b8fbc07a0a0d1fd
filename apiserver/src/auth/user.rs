//! The user behind a request.

use std::collections::BTreeMap;

/// The user behind a request. In process, without sockets, a request carries it as an extension
/// (`request.extensions_mut().insert(user)`); a request without one is made by [`User::admin`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `system:node:n1`, `system:serviceaccount:NAMESPACE:NAME`, or what a certificate's common name says.
    pub name: String,
    /// Identity beyond the name, empty for most; that of the object for a service account.
    pub uid: String,
    /// Groups, in the order in which they are shown.
    pub groups: Vec<String>,
    /// What else the authenticator knew: the pod that a token is bound to, for example.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Everyone who said who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everyone who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Those who may do everything, whatever the roles say.
pub const MASTERS: &str = "system:masters";
/// The name of those who did not say who they are.
pub const ANONYMOUS: &str = "system:anonymous";
/// Every service account.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// Every node.
pub const NODES: &str = "system:nodes";

impl User {
    /// A user with these groups, authenticated.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let groups = groups.iter().chain([&AUTHENTICATED]).map(|group| (*group).to_owned()).collect();
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Who asks in process if nobody is named: may do everything.
    pub fn admin() -> Self {
        Self::new("system:apiserver", &[MASTERS])
    }

    /// A service account, as its token would say.
    pub fn service_account(namespace: &str, name: &str, uid: impl Into<String>) -> Self {
        let of_namespace = format!("{SERVICE_ACCOUNTS}:{namespace}");
        let name = format!("system:serviceaccount:{namespace}:{name}");
        Self { uid: uid.into(), ..Self::new(name, &[SERVICE_ACCOUNTS, &of_namespace]) }
    }

    /// Somebody who did not say who they are.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// Whether the user is of this group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node's name, if this is a kubelet.
    pub fn node(&self) -> Option<&str> {
        self.name.strip_prefix("system:node:").filter(|name| !name.is_empty() && self.is_in(NODES))
    }
}
