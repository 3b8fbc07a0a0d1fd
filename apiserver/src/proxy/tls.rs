//! Kubelets over TLS, with the server's own client certificate.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Connecting, Connection, KubeletDialer};

/// Connects by TCP and TLS, and shows a client certificate.
pub struct TlsKubeletDialer {
    connector: TlsConnector,
}

/// Credentials for kubelets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read, or holds something else.
    #[error("{0}: {1}")]
    File(String, rustls::pki_types::pem::Error),
    /// Certificate and key do not belong together, or an authority is none.
    #[error("{0}: {1}")]
    Tls(String, rustls::Error),
}

impl TlsKubeletDialer {
    /// Reads the certificate to show, its key, and the authority of kubelets' serving certificates (all PEM).
    ///
    /// # Errors
    /// A file cannot be read, or they do not fit together.
    pub fn new(certificate: &Path, key: &Path, authority: &Path) -> Result<Self, CredentialError> {
        let file = |path: &Path| {
            let path = path.display().to_string();
            move |error| CredentialError::File(path, error)
        };
        let all = |path: &Path| -> Result<Vec<CertificateDer<'static>>, CredentialError> {
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(file(path))
        };
        let mut roots = RootCertStore::empty();
        for one in all(authority)? {
            roots.add(one).map_err(|error| CredentialError::Tls(authority.display().to_string(), error))?;
        }
        let shown = |error| CredentialError::Tls(certificate.display().to_string(), error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(shown)?;
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(file(key))?;
        let builder = builder.with_root_certificates(roots);
        let config = builder.with_client_auth_cert(all(certificate)?, key_der).map_err(shown)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }
}

impl KubeletDialer for TlsKubeletDialer {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let stream = self.connector.connect(name, stream).await?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }
}
