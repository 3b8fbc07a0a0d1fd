//! The kubelet's HTTPS server: logs and exec for the API server, which is the only client it lets in.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::{Kubelet, PodId, container_pid};
use crate::cluster::enter;

/// Subprotocols of exec, the newest first; v5 can close standard input.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

pub(super) async fn run(kubelet: Arc<Kubelet>) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(&kubelet)?));
    let address = (kubelet.config.node_ip, 10250);
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs))
        .route("/exec/{namespace}/{pod}/{container}", get(exec))
        .with_state(kubelet);
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("listening on {address:?}"))?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = TowerToHyperService::new(router);
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.with_upgrades().await {
                eprintln!("kubelet connection: {error}");
            }
        });
    }
}

/// Only clients with a certificate of the cluster's authority; it gives those with clientAuth to components only.
fn tls(kubelet: &Kubelet) -> Result<rustls::ServerConfig> {
    let config = &kubelet.config;
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

async fn find(kubelet: &Kubelet, namespace: &str, name: &str) -> Result<PodId, Response> {
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
fn query(text: Option<String>) -> Vec<(String, String)> {
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

async fn logs(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
) -> Response {
    let id = match find(&kubelet, &namespace, &pod).await {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let options = query(raw);
    let option = |name: &str| options.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let is = |name: &str| option(name).is_some_and(|value| value == "true");
    let mut files: Vec<u32> = std::fs::read_dir(id.log_dir(&container))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_string_lossy().parse().ok())
        .collect();
    files.sort_unstable();
    let newest = if is("previous") { files.iter().rev().nth(1) } else { files.last() };
    let Some(number) = newest else {
        let message = format!("container {container:?} in pod {pod:?} has no such log");
        return (StatusCode::BAD_REQUEST, message).into_response();
    };
    let path = id.log_dir(&container).join(format!("{number}.log"));
    let stamps = is("timestamps");
    let text = tokio::fs::read_to_string(&path).await.unwrap_or_default();
    let lines: Vec<String> = text.lines().map(|line| plain(line, stamps)).collect();
    let tail = option("tailLines").and_then(|value| value.parse::<usize>().ok()).unwrap_or(lines.len());
    let mut first = lines[lines.len().saturating_sub(tail)..].join("\n");
    if !first.is_empty() {
        first.push('\n');
    }
    if !is("follow") {
        return first.into_response();
    }
    let offset = text.len();
    let stream = futures::stream::unfold((Some(first), offset), move |(pending, offset)| {
        let (path, id, container) = (path.clone(), id.clone(), container.clone());
        async move {
            if let Some(text) = pending {
                return Some((Ok::<_, std::io::Error>(text), (None, offset)));
            }
            loop {
                let text = tokio::fs::read(&path).await.unwrap_or_default();
                let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                if whole > offset {
                    let fresh = String::from_utf8_lossy(&text[offset..whole]);
                    let out: String = fresh.lines().map(|line| plain(line, stamps) + "\n").collect();
                    return Some((Ok(out), (None, whole)));
                }
                if container_pid(&id, &container).is_err() {
                    return None;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    });
    axum::body::Body::from_stream(stream).into_response()
}

/// A line of the CRI format without its prefix, or with the time stamp alone.
fn plain(line: &str, stamps: bool) -> String {
    let mut fields = line.splitn(4, ' ');
    let (stamp, text) = (fields.next().unwrap_or_default(), fields.nth(2).unwrap_or_default());
    if stamps { format!("{stamp} {text}") } else { text.to_owned() }
}

async fn exec(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let id = match find(&kubelet, &namespace, &pod).await {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let argv: Vec<String> =
        query(raw).into_iter().filter(|(key, _)| key == "command").map(|(_, value)| value).collect();
    let pid = match container_pid(&id, &container) {
        Ok(pid) if !argv.is_empty() => pid,
        Ok(_) => return (StatusCode::BAD_REQUEST, "no command").into_response(),
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error:#}")).into_response(),
    };
    let cgroup = id.cgroup().join(&container);
    let command = enter::command("/proc/self/exe".as_ref(), pid, Some(&cgroup), "ipc,uts,net,pid,mnt", &argv);
    upgrade.protocols(PROTOCOLS).on_upgrade(move |socket| async move {
        if let Err(error) = converse(socket, command).await {
            eprintln!("exec: {error:#}");
        }
    })
}

/// Channels of the protocol: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 255 (v5) closes another.
async fn converse(socket: WebSocket, command: std::process::Command) -> Result<()> {
    let mut child = Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (mut sender, mut receiver) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<Vec<u8>>(16);
    let copies = [
        tokio::spawn(copy(1, child.stdout.take().context("no pipe")?, out.clone())),
        tokio::spawn(copy(2, child.stderr.take().context("no pipe")?, out.clone())),
    ];
    drop(out);
    let mut stdin = child.stdin.take();
    let input = tokio::spawn(async move {
        while let Some(Ok(message)) = receiver.next().await {
            match message {
                Message::Binary(data) if data.first() == Some(&0) => {
                    if let Some(pipe) = &mut stdin
                        && pipe.write_all(&data[1..]).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Message::Binary(data) if data.first() == Some(&255) => stdin = None,
                Message::Close(_) => return,
                _ => {}
            }
        }
    });
    while let Some(data) = outgoing.recv().await {
        if sender.send(Message::Binary(data.into())).await.is_err() {
            return Ok(());
        }
    }
    for copy in copies {
        copy.await?;
    }
    let code = crate::sys::exit_code(child.wait().await?);
    let status = if code == 0 {
        json!({"metadata": {}, "status": "Success"})
    } else {
        json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
               "message": format!("command terminated with non-zero exit code: {code}"),
               "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
    };
    let mut frame = vec![3];
    frame.extend(serde_json::to_vec(&status)?);
    sender.send(Message::Binary(frame.into())).await.context("sending the status")?;
    // kubectl takes anything but a normal closure for a broken connection.
    let closure = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    sender.send(Message::Close(Some(closure))).await.context("closing")?;
    input.abort();
    Ok(())
}

async fn copy(channel: u8, mut from: impl tokio::io::AsyncRead + Unpin, to: mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        let mut frame = vec![channel];
        frame.extend_from_slice(&buffer[..length]);
        if to.send(frame).await.is_err() {
            return;
        }
    }
}
