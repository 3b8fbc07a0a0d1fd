//! Tests of [`super`]: clients with certificates of all kinds against the server over real TLS.
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Mutex;

use axum::body::Body;
use axum::http::Request;
use k8s_openapi::api::core::v1::PodSpec;

use super::super::events::Events;
use super::*;
use crate::pki::Pki;

/// A directory that goes with the test.
struct Dir(std::path::PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kubelet-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn start(dir: &Path) -> std::net::SocketAddr {
    let config = KubeletConfig {
        node_name: "n".into(),
        node_ip: Ipv4Addr::LOCALHOST,
        kubeconfig: "".into(),
        client_ca: dir.join("ca.crt"),
        serving_cert: dir.join("kubelet.crt"),
        serving_key: dir.join("kubelet.key"),
        taints: Vec::new(),
    };
    let client = kube::Client::try_from(kube::Config::new("https://127.0.0.1:1".parse().unwrap())).unwrap();
    let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
    pod.metadata.name = Some("p".into());
    let pods = Mutex::new(std::iter::once(("uid".to_owned(), pod)).collect());
    let kubelet = Arc::new(Kubelet {
        events: Events::start(client.clone(), "n"),
        config,
        client,
        pods,
        running: Default::default(),
    });
    let acceptor = TlsAcceptor::from(Arc::new(tls(&kubelet.config).unwrap()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, acceptor, router(kubelet)));
    address
}

/// Status and text of a GET by the holder of `dir/NAME.crt`, or of nobody.
async fn get_as(dir: &Path, name: Option<&str>, address: std::net::SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match name {
        Some(name) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_file(dir.join(format!("{name}.crt")))?],
            PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key")))?,
        )?,
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(address.ip().into(), stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let answer = sender.send_request(Request::get(path).body(Body::empty())?).await?;
    let code = answer.status().as_u16();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), 1 << 20).await?;
    Ok((code, String::from_utf8(body.to_vec())?))
}

#[tokio::test]
async fn only_the_api_server_and_administrators_are_let_in() {
    let dir = Dir::new("auth");
    let pki = Pki::create(&dir.0).unwrap();
    pki.issue("kubelet", "system:node:n", Some("system:nodes"), &[Ipv4Addr::LOCALHOST.into()], &[]).unwrap();
    pki.issue("apiserver", "kube-apiserver-kubelet-client", None, &[], &[]).unwrap();
    pki.issue("admin", "jane", Some("system:masters"), &[], &[]).unwrap();
    pki.issue("mallory", "system:masters", Some("friends"), &[], &[]).unwrap();
    let address = start(&dir.0).await;
    for name in ["apiserver", "admin"] {
        let answer = get_as(&dir.0, Some(name), address, "/healthz").await.unwrap();
        assert_eq!(answer, (200, "ok".into()), "{name}");
    }
    for (name, user) in [("kubelet", "system:node:n"), ("mallory", "system:masters")] {
        for path in ["/healthz", "/pods", "/exec/ns/pod/c?command=id"] {
            let (code, text) = get_as(&dir.0, Some(name), address, path).await.unwrap();
            assert_eq!(code, 403, "{name} {path}: {text}");
            assert!(text.contains(&format!("user={user},")), "{text}");
        }
    }
}

#[tokio::test]
async fn without_a_certificate_of_this_cluster_there_is_no_connection() {
    let dir = Dir::new("stranger");
    let pki = Pki::create(&dir.0).unwrap();
    pki.issue("kubelet", "system:node:n", Some("system:nodes"), &[Ipv4Addr::LOCALHOST.into()], &[]).unwrap();
    let other = Pki::create(&dir.0.join("other")).unwrap();
    other.issue("admin", "jane", Some("system:masters"), &[], &[]).unwrap();
    for end in ["crt", "key"] {
        std::fs::copy(dir.0.join(format!("other/admin.{end}")), dir.0.join(format!("stranger.{end}"))).unwrap();
    }
    let address = start(&dir.0).await;
    assert!(get_as(&dir.0, None, address, "/healthz").await.is_err());
    assert!(get_as(&dir.0, Some("stranger"), address, "/healthz").await.is_err());
}

#[tokio::test]
async fn pods_are_listed() {
    let dir = Dir::new("pods");
    let pki = Pki::create(&dir.0).unwrap();
    pki.issue("kubelet", "system:node:n", Some("system:nodes"), &[Ipv4Addr::LOCALHOST.into()], &[]).unwrap();
    pki.issue("admin", "jane", Some("system:masters"), &[], &[]).unwrap();
    let (code, text) = get_as(&dir.0, Some("admin"), start(&dir.0).await, "/pods").await.unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &list["kind"], &list["items"][0]["metadata"]["name"]), (200, &json!("PodList"), &json!("p")));
}
