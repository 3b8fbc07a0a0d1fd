//! Our server on plain HTTP, for programs that need a socket.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use anyhow::Result;
use apiserver::{ApiServer, Options, User};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

/// Who brings nothing is the administrator, called as the recorded one: kubectl sends no token over plain HTTP.
fn known(request: &mut Request<Incoming>) {
    let user = User::new("admin", &["system:masters"]);
    request.extensions_mut().insert(User { uid: "admin".into(), ..user });
}

/// A fresh server on loopback; it ends with the runtime. The answer is a kubeconfig in the folder.
pub(crate) async fn ours(dir: &Path) -> Result<PathBuf> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let server = ApiServer::start(Options::default().advertise_address(address.clone()))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = server.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let server = server.clone();
                known(&mut request);
                async move { Ok::<_, Infallible>(server.handle(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "ours",
        "clusters": [{"name": "ours", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "admin", "user": {}}],
        "contexts": [{"name": "ours", "context": {"cluster": "ours", "user": "admin"}}]});
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("ours-{}.kubeconfig", address.replace(':', "-")));
    std::fs::write(&path, config.to_string())?;
    Ok(path)
}
