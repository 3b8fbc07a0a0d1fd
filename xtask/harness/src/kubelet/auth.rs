//! Who may use the kubelet's server. A real kubelet asks the API server (authorization mode Webhook) whether the user of
//! the client's certificate may use `nodes/proxy`; here the two that a cluster made by kubeadm lets in are known.

use anyhow::{Context, Result};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Group of the administrators, to whom everything is allowed.
const MASTERS: &str = "system:masters";
/// Name under which the API server shows itself to kubelets.
const API_SERVER: &str = "kube-apiserver-kubelet-client";

/// Whom a client certificate names: the common name is the user, each organization a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

impl User {
    /// Reads the subject of a certificate whose chain has been verified.
    ///
    /// # Errors
    /// If it is no certificate, or a name in it no text.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).context("reading the client's certificate")?;
        let mut user = Self { name: String::new(), groups: Vec::new() };
        for name in parsed.subject().iter_common_name() {
            name.as_str().context("the common name of the client's certificate")?.clone_into(&mut user.name);
        }
        for name in parsed.subject().iter_organization() {
            user.groups.push(name.as_str().context("an organization of the client's certificate")?.to_owned());
        }
        Ok(user)
    }

    /// Whether the user may use the kubelet's server.
    pub(super) fn may_use_kubelet(&self) -> bool {
        self.name == API_SERVER || self.groups.iter().any(|group| group == MASTERS)
    }
}
