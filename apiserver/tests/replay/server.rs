//! The servers that scripts are played against: ours, without sockets, or any other over TLS.

#![allow(clippy::unwrap_used, reason = "test code: a server that cannot be asked ends the test")]
#![allow(dead_code, reason = "not every test plays against a real server")]

use std::sync::Arc;

use apiserver::{ApiServer, Body, Options};
use futures::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server that can be asked.
#[derive(Clone)]
pub(crate) enum Server {
    Ours(ApiServer),
    Other(Arc<Other>),
}

/// A server behind TLS on loopback.
pub(crate) struct Other {
    pub(crate) port: u16,
    pub(crate) connector: TlsConnector,
    /// Bearer token of the administrator.
    pub(crate) token: String,
    /// What forgetting history takes there.
    pub(crate) compact: Box<dyn Fn(u64) -> futures::future::BoxFuture<'static, ()> + Send + Sync>,
}

impl Server {
    /// A fresh one of ours.
    pub(crate) fn ours() -> Self {
        Self::Ours(ApiServer::start(Options::default().seed(7)).unwrap())
    }

    pub(crate) fn administrator(&self) -> &str {
        match self {
            Self::Ours(_) => "",
            Self::Other(other) => &other.token,
        }
    }

    pub(crate) async fn compact(&self, revision: u64) {
        match self {
            Self::Ours(server) => server.compact(revision),
            Self::Other(other) => (other.compact)(revision).await,
        }
    }

    pub(crate) async fn handle(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        match self {
            Self::Ours(server) => server.handle(request).await,
            Self::Other(other) => match other.ask(request).await {
                Ok(answer) => answer,
                // A server that breaks the connection has not answered; no code means that.
                Err(_) => broken(),
            },
        }
    }
}

/// Stands for the answer that never came.
fn broken() -> Response<Body> {
    let body = Full::from("the connection was broken").boxed_unsync();
    Response::builder().status(599).body(body).unwrap()
}

impl Other {
    /// Asks on a connection of its own.
    pub(crate) async fn ask(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let stream = self.connector.connect("127.0.0.1".try_into()?, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        request.headers_mut().insert("host", format!("127.0.0.1:{}", self.port).parse()?);
        let answer = sender.send_request(request).await?;
        Ok(answer.map(|body| {
            // A connection that breaks ends the stream, as the player sees it.
            let frames = BodyStream::new(body).take_while(|frame| futures::future::ready(frame.is_ok()));
            let data = frames.filter_map(|frame| futures::future::ready(frame.ok().and_then(|f| f.into_data().ok())));
            StreamBody::new(data.map(|data| Ok(Frame::data(data)))).boxed_unsync()
        }))
    }
}
