//! Serves plain HTTP on an address given as the argument; for trying it by hand and for replaying recordings.
//! `POST /compact` with `{"revision": "N"}`, forgets history up to N.

use std::net::SocketAddr;

use apiserver::{ApiServer, Options};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into()).parse()?;
    let options = Options::default().advertise_address(address.to_string());
    let server = ApiServer::start(match std::env::args().nth(2) {
        Some(log) => options.data_log(log),
        None => options,
    })?;
    let listener = TcpListener::bind(address).await?;
    println!("serving on http://{address}");
    loop {
        let (stream, _) = listener.accept().await?;
        let server = server.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let server = server.clone();
                async move {
                    if request.uri().path() == "/compact" {
                        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                        server.compact(body["revision"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0));
                        return Ok::<_, std::convert::Infallible>(http::Response::default());
                    }
                    Ok(server.handle(request).await)
                }
            });
            if let Err(error) = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await
            {
                eprintln!("connection: {error}");
            }
        });
    }
}
