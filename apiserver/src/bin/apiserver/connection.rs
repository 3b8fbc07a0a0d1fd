//! Connections: TLS, then HTTP/2 or HTTP/1.1, each request with the credentials of its connection.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use apiserver::{ApiServer, Body, Credentials, User};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::tls::{self, Clients};

/// Longest time a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest time a client may take to send the head of a request, as with kube-apiserver.
const REQUEST_HEAD: Duration = Duration::from_secs(32);
/// How long nothing is accepted after that has failed: what is missing then (files, memory) comes back when others go.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Longest time that requests get to end when the server ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves until it is told to stop; then streams end, and what is under way is answered.
pub(crate) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    clients: Arc<Clients>,
    server: ApiServer,
    mut stopping: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!("accepting a connection: {error}");
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let (acceptor, server, stopping) = (acceptor.clone(), server.clone(), stopping.clone());
        let clients = Arc::clone(&clients);
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let peer = stream.peer_addr();
            if let Err(error) = connection(stream, &acceptor, clients, server, stopping, watcher).await {
                tracing::debug!(?peer, "connection: {error:#}");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(FAREWELL, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end within {FAREWELL:?}");
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    clients: Arc<Clients>,
    server: ApiServer,
    stopping: watch::Receiver<bool>,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<()> {
    let peer = stream.peer_addr()?.ip();
    stream.set_nodelay(true)?;
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let stream = handshake.context("no TLS handshake in time")?.context("TLS handshake")?;
    let chain =
        stream.get_ref().1.peer_certificates().map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect());
    let caller = Caller::new(clients, chain, peer);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (server, stopping) = (server.clone(), stopping.clone());
        request.extensions_mut().insert(caller.credentials());
        async move {
            let answer = server.handle(request).await;
            Ok::<_, Infallible>(if is_stream(&answer) { answer.map(|body| until(body, stopping)) } else { answer })
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    watcher.watch(connection).await.map_err(anyhow::Error::from_boxed).context("serving")
}

/// Who is at the other end.
struct Caller {
    clients: Arc<Clients>,
    chain: Option<Vec<CertificateDer<'static>>>,
    /// Whom the chain names, and until when it needs not be judged again.
    known: Option<(User, UnixTime)>,
    peer: IpAddr,
}

impl Caller {
    fn new(clients: Arc<Clients>, chain: Option<Vec<CertificateDer<'static>>>, peer: IpAddr) -> Self {
        let judged = chain.as_ref().and_then(|chain| {
            let user = clients.user(chain, UnixTime::now()).ok()?;
            Some((user, tls::valid_until(chain).ok()?))
        });
        Self { clients, chain, known: judged, peer }
    }

    /// A connection may outlive the certificate that it was opened with, so this is asked for each request.
    fn credentials(&self) -> Credentials {
        let now = UnixTime::now();
        let certificate = self.chain.as_ref().map(|chain| match &self.known {
            Some((user, until)) if now <= *until => Ok(user.clone()),
            _ => self.clients.user(chain, now).map_err(|error| format!("{error:#}")),
        });
        Credentials { certificate, peer: Some(self.peer) }
    }
}

fn is_stream(answer: &Response<Body>) -> bool {
    http_body::Body::size_hint(answer.body()).exact().is_none()
}

/// A stream that ends, whole, when the server does.
fn until(body: Body, mut stopping: watch::Receiver<bool>) -> Body {
    let stopped = Box::pin(async move {
        // A sender that is gone means the same.
        let _ = stopping.wait_for(|stop| *stop).await;
    });
    Until { body, stopped }.boxed_unsync()
}

struct Until {
    body: Body,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match Pin::new(&mut self.body).poll_frame(poller) {
            Poll::Pending => self.stopped.as_mut().poll(poller).map(|()| None),
            ready => ready,
        }
    }
}
