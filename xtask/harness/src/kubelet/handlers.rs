//! What probes and lifecycle hooks do: an HTTP request, a connection, a command in the container, a pause.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Body;
use axum::http::{Request, header};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{PodId, exec};

/// How much of an answer is read.
const ANSWER_MAX: usize = 10 * 1024;

/// What a handler is run for.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) id: PodId,
    pub(super) container: Container,
    /// Address of the pod.
    pub(super) address: String,
}

/// A lifecycle hook.
///
/// # Errors
/// If it fails.
pub(super) async fn hook(target: &Target, handler: &LifecycleHandler) -> Result<()> {
    if let Some(exec) = &handler.exec {
        return command(target, exec.command.as_deref().unwrap_or_default()).await;
    }
    if let Some(get) = &handler.http_get {
        return http_get(target, get).await;
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
        return Ok(());
    }
    bail!("this kind of lifecycle hook is not supported by the harness's kubelet")
}

/// A command in the container, as the container's user.
///
/// # Errors
/// If it does not end with 0, with what it wrote.
pub(super) async fn command(target: &Target, argv: &[String]) -> Result<()> {
    let mut command = exec::command(&target.id, &target.container.name, argv, None)?;
    let output = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output().await;
    let output = output.context("running the command")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said[..said.len().min(ANSWER_MAX)]).trim().to_owned();
        bail!("{}: {said}", output.status);
    }
    Ok(())
}

/// A connection.
///
/// # Errors
/// If there is none.
pub(super) async fn tcp(target: &Target, action: &TCPSocketAction) -> Result<()> {
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.address);
    let port = port(&target.container, &action.port)?;
    TcpStream::connect((host, port)).await.with_context(|| format!("connecting to {host}:{port}")).map(drop)
}

/// A GET. Any answer from 200 to 399 is good; certificates are not verified, as with a real kubelet.
///
/// # Errors
/// With what was wrong.
pub(super) async fn http_get(target: &Target, action: &HTTPGetAction) -> Result<()> {
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.address);
    let port = port(&target.container, &action.port)?;
    let stream = TcpStream::connect((host, port)).await.with_context(|| format!("connecting to {host}:{port}"))?;
    let request = request(action, host, port)?;
    let code = match action.scheme.as_deref().unwrap_or("HTTP") {
        "HTTP" => exchange(stream, request).await?,
        "HTTPS" => {
            let name = ServerName::try_from(host.to_owned()).with_context(|| format!("host {host:?}"))?;
            let stream = tokio_rustls::TlsConnector::from(Arc::new(any_server()?)).connect(name, stream).await;
            exchange(stream.context("TLS handshake")?, request).await?
        }
        other => bail!("httpGet.scheme {other:?} is neither HTTP nor HTTPS"),
    };
    if !(200..400).contains(&code) {
        bail!("HTTP probe failed with statuscode: {code}");
    }
    Ok(())
}

fn request(action: &HTTPGetAction, host: &str, port: u16) -> Result<Request<Body>> {
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut request = Request::get(path);
    let headers = || action.http_headers.iter().flatten();
    let given = |name: &str| headers().any(|header| header.name.eq_ignore_ascii_case(name));
    for (name, value) in [
        (header::HOST, format!("{host}:{port}")),
        (header::USER_AGENT, "kube-probe/e2e".to_owned()),
        (header::ACCEPT, "*/*".to_owned()),
    ] {
        if !given(name.as_str()) {
            request = request.header(name, value);
        }
    }
    for own in headers() {
        request = request.header(&own.name, &own.value);
    }
    request.header(header::CONNECTION, "close").body(Body::empty()).context("the request of an httpGet")
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, request: Request<Body>) -> Result<u16> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let talk = async {
        let answer = sender.send_request(request).await.context("no HTTP answer")?;
        let code = answer.status().as_u16();
        let mut body = Body::new(answer.into_body()).into_data_stream();
        let mut read = 0;
        while let Some(Ok(chunk)) = body.next().await {
            read += chunk.len();
            if read >= ANSWER_MAX {
                break;
            }
        }
        Ok(code)
    };
    // Both end with this call: a probe that has timed out leaves no connection behind.
    tokio::pin!(talk);
    tokio::select! {
        code = &mut talk => code,
        ended = connection => match ended {
            Ok(()) => talk.await,
            Err(error) => Err(error).context("HTTP"),
        },
    }
}

fn any_server() -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyServer(provider.clone()));
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Whoever answers: a probe asks whether, not who.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn port(container: &Container, port: &IntOrString) -> Result<u16> {
    match port {
        IntOrString::Int(number) => Ok(u16::try_from(*number)?),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            let number = named.map(|port| port.container_port).with_context(|| format!("no port named {name:?}"))?;
            Ok(u16::try_from(number)?)
        }
    }
}

#[cfg(test)]
#[path = "handlers_tests.rs"]
mod tests;
