//! A client on one connection at a time: HTTP/1.1 over TLS.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pki::{Authority, Issued};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Asks one server.
#[derive(Clone)]
pub(crate) struct Client {
    port: u16,
    connector: TlsConnector,
    token: Option<String>,
}

/// An open connection.
pub(crate) struct Open {
    sender: SendRequest<Full<Bytes>>,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(port: u16, authority: &Authority, shown: Option<&Issued>) -> Self {
        let certificates = |pem: &str| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&authority.pem()) {
            roots.add(certificate).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(certificates(&issued.chain), key).unwrap()
            }
        };
        Self { port, connector: TlsConnector::from(Arc::new(config)), token: None }
    }

    /// A client of any server.
    pub(crate) fn with(port: u16, connector: TlsConnector, token: &str) -> Self {
        Self { port, connector, token: Some(token.to_owned()) }
    }

    /// The same client, with a bearer token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub(crate) async fn open(&self) -> Result<Open, Error> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect("127.0.0.1".try_into()?, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Open { sender, token: self.token.clone() })
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value), Error> {
        self.open().await?.ask(method, path, body).await
    }
}

impl Open {
    /// Sends a request; the answer's body is still to come.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Error> {
        self.sender.ready().await?;
        let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1");
        request = match method {
            "PATCH" => request.header("content-type", "application/merge-patch+json"),
            _ => request.header("content-type", "application/json"),
        };
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = Full::from(body.map(Value::to_string).unwrap_or_default());
        Ok(self.sender.send_request(request.body(body)?).await?)
    }

    /// Code and body; what is no JSON is a text.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value), Error> {
        let answer = self.send(method, path, body).await?;
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Ok((code, serde_json::from_slice(&bytes).unwrap_or_else(|_| text())))
    }
}
