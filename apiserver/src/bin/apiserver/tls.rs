//! TLS: the server's certificate, and whom the client's names.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::auth::User;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::flags::Flags;

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.with_context(|| format!("reading certificates of {}", path.display()))
}

/// Serves HTTP/2 and HTTP/1.1. A client may show a certificate; one of another authority ends the handshake.
///
/// # Errors
/// A file cannot be read, or key and certificate do not belong together.
pub(crate) fn acceptor(flags: &Flags) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = &flags.tls_private_key_file;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading {}", key.display()))?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &flags.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).with_context(|| format!("--client-ca-file {}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    let mut config = builder.with_single_cert(certificates(&flags.tls_cert_file)?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whom a certificate names, whose chain has been verified.
///
/// # Errors
/// It is no certificate, or a name in it no text.
pub(crate) fn user(certificate: &CertificateDer<'_>) -> Result<User> {
    let (_, parsed) = X509Certificate::from_der(certificate).context("reading the client's certificate")?;
    let subject = parsed.subject();
    let mut name = "";
    for part in subject.iter_common_name() {
        name = part.as_str().context("the common name of the client's certificate")?;
    }
    let mut groups = Vec::new();
    for part in subject.iter_organization() {
        groups.push(part.as_str().context("an organization of the client's certificate")?);
    }
    let mut user = User::new(name, &groups);
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("X509SHA256={hex}")]);
    Ok(user)
}
