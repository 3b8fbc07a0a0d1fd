//! The kubelet's HTTPS server on :10250: logs, exec, attach, port-forward and the list of pods, for the API server and administrators.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::auth::User;
use super::{Kubelet, KubeletConfig, PodId, attach, exec, logs, port_forward};

/// Longest time a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves on the node's address until the listener fails.
///
/// # Errors
/// If the credentials cannot be read or the address is taken.
pub(super) async fn run(kubelet: Arc<Kubelet>) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(&kubelet.config)?));
    let address = (kubelet.config.node_ip, 10250);
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address:?}"))?;
    serve(listener, acceptor, router(kubelet)).await
}

fn router(kubelet: Arc<Kubelet>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::serve))
        .route("/exec/{namespace}/{pod}/{container}", get(exec::serve).post(exec::serve))
        .route("/attach/{namespace}/{pod}/{container}", get(attach::serve).post(attach::serve))
        .route("/portForward/{namespace}/{pod}", get(port_forward::serve).post(port_forward::serve))
        .with_state(kubelet)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, router: Router) -> Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, &acceptor, router).await {
                eprintln!("kubelet: connection of {peer}: {error:#}");
            }
        });
    }
}

async fn connection(stream: TcpStream, acceptor: &TlsAcceptor, router: Router) -> Result<()> {
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let stream = handshake.context("no TLS handshake in time")?.context("TLS handshake")?;
    let chain = stream.get_ref().1.peer_certificates().context("the client showed no certificate")?;
    let user = User::of(chain.first().context("the client showed no certificate")?)?;
    let router = if user.may_use_kubelet() { router } else { forbidding(&user) };
    let service = TowerToHyperService::new(router);
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    connection.with_upgrades().await.context("serving")
}

/// What a user gets that may not use this server.
fn forbidding(user: &User) -> Router {
    let message =
        format!("Forbidden (user={}, groups={:?}, resource=nodes, subresource=proxy)", user.name, user.groups);
    Router::new().fallback(move || {
        let message = message.clone();
        async move { (StatusCode::FORBIDDEN, message) }
    })
}

/// Only clients with a certificate of the cluster's authority get as far as to be asked who they are.
fn tls(config: &KubeletConfig) -> Result<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&config.client_ca).context("reading the client CA")? {
        roots.add(certificate?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&config.serving_cert)
        .context("reading the serving certificate")?
        .collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&config.serving_key).context("reading the serving key")?;
    Ok(rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?)
}

/// The pods of this node as the API server has them.
async fn pods(State(kubelet): State<Arc<Kubelet>>) -> Json<Value> {
    let pods: Vec<Pod> = kubelet.pods.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}))
}

/// The pod of a request.
///
/// # Errors
/// With the answer that says why there is none.
pub(super) async fn find(kubelet: &Kubelet, namespace: &str, name: &str) -> Result<PodId, Response> {
    let api = Api::<Pod>::namespaced(kubelet.client.clone(), namespace);
    match api.get_opt(name).await {
        Ok(Some(pod)) => {
            Ok(PodId { namespace: namespace.to_owned(), name: name.to_owned(), uid: pod.uid().unwrap_or_default() })
        }
        Ok(None) => Err((StatusCode::NOT_FOUND, format!("pod {namespace}/{name} not found")).into_response()),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()),
    }
}

/// The pairs of a query, decoded.
pub(super) fn query(text: Option<String>) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'+' => bytes.push(b' '),
                b'%' => {
                    let digits: Vec<u8> = rest.by_ref().take(2).collect();
                    let code = std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                    bytes.extend(code);
                }
                other => bytes.push(other),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let text = text.unwrap_or_default();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
