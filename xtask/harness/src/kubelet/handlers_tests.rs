//! Tests of [`super`], against servers that keep what they were asked.
use std::net::{Ipv4Addr, SocketAddr};

use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::pki::Pki;

fn target(port: u16) -> Target {
    let id = PodId { namespace: "n".into(), name: "p".into(), uid: "u".into() };
    let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]});
    Target { id, container: serde_json::from_value(container).unwrap(), address: "127.0.0.1".into() }
}

fn action(fields: Value) -> HTTPGetAction {
    serde_json::from_value(fields).unwrap()
}

/// Answers one connection with `answer` and tells what it was asked.
async fn server(answer: &'static str, tls: Option<rustls::ServerConfig>) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, questions) = mpsc::channel(1);
    tokio::spawn(async move {
        async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
            let mut question = vec![0; 4096];
            let length = stream.read(&mut question).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.ok();
            String::from_utf8_lossy(&question[..length]).to_lowercase()
        }
        let (stream, _) = listener.accept().await.unwrap();
        let question = match tls {
            Some(config) => {
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
                talk(acceptor.accept(stream).await.unwrap(), answer).await
            }
            None => talk(stream, answer).await,
        };
        asked.send(question).await.unwrap();
    });
    (address, questions)
}

#[tokio::test]
async fn headers_path_and_named_port_are_used() {
    let (address, mut asked) = server("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", None).await;
    let get = action(json!({"port": "web", "path": "ready?x=1", "httpHeaders": [
        {"name": "Host", "value": "shop.example"}, {"name": "X-Own", "value": "yes"}]}));
    http_get(&target(address.port()), &get).await.unwrap();
    let question = asked.recv().await.unwrap();
    assert!(question.starts_with("get /ready?x=1 http/1.1\r\n"), "{question}");
    assert!(question.contains("host: shop.example\r\n") && question.contains("x-own: yes\r\n"), "{question}");
    assert_eq!(question.matches("host:").count(), 1, "{question}");
}

#[tokio::test]
async fn other_codes_and_unknown_schemes_fail() {
    let (address, _asked) = server("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", None).await;
    let error = http_get(&target(1), &action(json!({"port": address.port()}))).await.unwrap_err().to_string();
    assert!(error.contains("503"), "{error}");
    let (address, _asked) = server("", None).await;
    let get = action(json!({"port": address.port(), "scheme": "GOPHER"}));
    assert!(http_get(&target(1), &get).await.unwrap_err().to_string().contains("GOPHER"));
}

#[tokio::test]
async fn https_asks_whoever_answers() {
    let dir = std::env::temp_dir().join(format!("kubelet-https-{}", std::process::id()));
    let pki = Pki::create(&dir).unwrap();
    pki.issue("s", "somebody", None, &[], &["else.where"]).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(dir.join("s.crt")).unwrap()],
            PrivateKeyDer::from_pem_file(dir.join("s.key")).unwrap(),
        )
        .unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let (address, mut asked) = server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some(config)).await;
    http_get(&target(1), &action(json!({"port": address.port(), "scheme": "HTTPS"}))).await.unwrap();
    assert!(asked.recv().await.unwrap().starts_with("get / http/1.1"));
}
