//! The API server as a process, in the place of kube-apiserver: TLS, certificates, tokens, roles, an audit log, and a log
//! from which it starts again.

mod certs;
mod connection;
mod flags;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use apiserver::{ApiServer, controllers};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use flags::Flags;

fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(flags))
}

async fn run(mut flags: Flags) -> Result<()> {
    let certificates = flags.complete().context("--cert-dir")?;
    let clients = Arc::new(tls::Clients::new(&flags)?);
    let acceptor = tls::acceptor(&flags, &clients)?;
    let address = SocketAddr::from((flags.bind_address, flags.secure_port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    // Port 0 is one that is free: who started this reads it in the next line.
    let address = listener.local_addr().context("the address that is listened on")?;
    flags.secure_port = address.port();
    let server = ApiServer::start(flags.options()?)?;
    if let Some(certificates) = certificates {
        let host = flags.advertise_address.map_or_else(|| certs::reachable(flags.bind_address), Into::into);
        let path = certificates.kubeconfig(SocketAddr::from((host, flags.secure_port)))?;
        tracing::info!("kubeconfig of an administrator: {}", path.display());
    }
    tracing::info!(%address, revision = server.revision(), seed = server.seed(), "serving");
    let (stop, stopping) = watch::channel(false);
    let mut served = tokio::spawn(connection::serve(listener, acceptor, clients, server.clone(), stopping));
    let mut background = tokio::task::JoinSet::new();
    if !flags.controllers.is_empty() {
        background.spawn(controllers::run(server.clone(), flags.controller_options()?));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut served => {
            ended.context("serving")?;
            bail!("nothing is served any more");
        }
        Some(ended) = background.join_next() => {
            // A process without its controllers is no cluster: whoever started it starts it again.
            ended.context("a controller")?;
            bail!("a controller ended");
        }
    }
    tracing::info!("ending");
    background.shutdown().await;
    stop.send_replace(true);
    served.await.context("serving")
}
