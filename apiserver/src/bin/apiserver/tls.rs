//! TLS: the server's certificate, and whom the client's names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use apiserver::User;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::flags::Flags;

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.with_context(|| format!("reading certificates of {}", path.display()))
}

/// Judges the certificates of clients.
pub(crate) struct Clients(Option<Arc<dyn ClientCertVerifier>>);

impl Clients {
    /// By the authority that the flags name; without one there are no client certificates.
    ///
    /// # Errors
    /// The authority cannot be read.
    pub(crate) fn new(flags: &Flags) -> Result<Self> {
        let Some(path) = &flags.client_ca_file else { return Ok(Self(None)) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            roots.add(certificate).with_context(|| format!("--client-ca-file {}", path.display()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self(Some(verifier.build()?)))
    }

    /// Whom a chain names at this moment, the client's own certificate first.
    ///
    /// # Errors
    /// Why it is not good: another authority, another use, not yet or no longer valid.
    pub(crate) fn user(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<User> {
        let verifier = self.0.as_ref().context("no authority for client certificates (--client-ca-file)")?;
        let (own, between) = chain.split_first().context("an empty chain")?;
        verifier.verify_client_cert(own, between, now)?;
        user(own)
    }
}

/// Takes any certificate whose key the client has. Whether it is good is said by authentication: then a bad one is a 401
/// and not a broken connection, and a token beside it still counts, as with the real server.
#[derive(Debug)]
struct Shown(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Shown {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _own: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Serves HTTP/2 and HTTP/1.1. A client may show a certificate.
///
/// # Errors
/// A file cannot be read, or key and certificate do not belong together.
pub(crate) fn acceptor(flags: &Flags, clients: &Clients) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let files = flags.tls_cert_file.as_ref().zip(flags.tls_private_key_file.as_ref());
    let (certificate, key) = files.context("--tls-cert-file and --tls-private-key-file")?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading {}", key.display()))?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &clients.0 {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(Shown(Arc::clone(verifier)))),
    };
    let mut config = builder.with_single_cert(certificates(certificate)?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// When the first certificate of a chain ends.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn valid_until(chain: &[CertificateDer<'_>]) -> Result<UnixTime> {
    let mut first = u64::MAX;
    for certificate in chain {
        let (_, parsed) = X509Certificate::from_der(certificate).context("reading the client's certificate")?;
        first = first.min(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0));
    }
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(first)))
}

/// Whom a certificate names, whose chain has been verified.
///
/// # Errors
/// It is no certificate, or a name in it no text.
fn user(certificate: &CertificateDer<'_>) -> Result<User> {
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
