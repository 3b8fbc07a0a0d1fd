//! Requests that a node's kubelet answers: logs, exec, attach, port-forward, and `nodes/proxy`.
//!
//! How a kubelet is reached is the caller's to say (`KubeletDialer`); here it is found out which one, what it is asked, and
//! its answer is handed on. An upgraded connection is passed through byte by byte, whatever protocol it speaks.

mod destination;
mod forward;
#[cfg(feature = "process")]
pub mod tls;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::failure::{Failure, Outcome};
use crate::request::{Query, Target};
use crate::server::{ApiServer, Body};
use crate::verbs::locked;

/// A connection to a kubelet, ready for HTTP/1.1.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// What connecting comes to.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send + 'a>>;

/// How kubelets are reached.
pub trait KubeletDialer: Send + Sync {
    /// Connects to the kubelet at an address and port of a node.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a>;
}

const ADDRESS_TYPES: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];

/// The way to the kubelets, and which of a node's addresses is taken.
#[derive(Clone)]
#[non_exhaustive]
pub struct KubeletOptions {
    /// Connects.
    pub dialer: Arc<dyn KubeletDialer>,
    /// Types of node addresses, the preferred one first.
    pub preferred_address_types: Vec<String>,
}

impl KubeletOptions {
    /// With the order of addresses that `kubeadm` has.
    pub fn new(dialer: Arc<dyn KubeletDialer>) -> Self {
        Self { dialer, preferred_address_types: ADDRESS_TYPES.map(str::to_owned).to_vec() }
    }

    /// With another order of addresses.
    #[must_use]
    pub fn preferred_address_types(mut self, types: Vec<String>) -> Self {
        self.preferred_address_types = types;
        self
    }
}

/// What a kubelet is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    Log,
    Exec,
    Attach,
    PortForward,
    Node,
}

impl Errand {
    fn of(target: &Target) -> Option<Self> {
        if !target.group.is_empty() || target.version != "v1" || target.name.is_empty() || target.watch {
            return None;
        }
        match (target.resource.as_str(), target.subresource.as_str()) {
            ("pods", "log") => Some(Self::Log),
            ("pods", "exec") => Some(Self::Exec),
            ("pods", "attach") => Some(Self::Attach),
            ("pods", "portforward") => Some(Self::PortForward),
            ("nodes", "proxy") => Some(Self::Node),
            _ => None,
        }
    }

    fn allows(self, method: &http::Method) -> bool {
        match self {
            Self::Log => *method == http::Method::GET,
            Self::Node => true,
            _ => matches!(*method, http::Method::GET | http::Method::POST),
        }
    }
}

/// Answers the request if it is one for a kubelet; else gives it back.
pub(crate) async fn serve(server: &ApiServer, parts: &mut Parts, body: &Bytes) -> Option<Outcome<Response<Body>>> {
    let target = Target::parse(parts.uri.path())?;
    let errand = Errand::of(&target)?;
    Some(run(server, errand, &target, parts, body).await)
}

async fn run(
    server: &ApiServer,
    errand: Errand,
    target: &Target,
    parts: &mut Parts,
    body: &Bytes,
) -> Outcome<Response<Body>> {
    if !errand.allows(&parts.method) {
        return Err(Failure::method_not_allowed());
    }
    let query = Query::parse(parts.uri.query());
    let preferred = match &server.kubelets {
        Some(way) => way.preferred_address_types.clone(),
        None => ADDRESS_TYPES.map(str::to_owned).to_vec(),
    };
    let place = destination::find(&locked(&server.state), errand, target, &query, &parts.uri, &preferred)?;
    let Some(place) = place else {
        // The pod is on no node yet, so it has written nothing.
        let mut empty = Response::new(Body::default());
        *empty.status_mut() = http::StatusCode::NO_CONTENT;
        return Ok(empty);
    };
    let Some(way) = &server.kubelets else {
        return Err(Failure::unsupported(&format!(
            "{}/{} without a way to kubelets",
            target.resource, target.subresource
        )));
    };
    match errand {
        Errand::Log => forward::log(way, &place).await,
        Errand::Node => forward::plain(way, &place, parts, body).await,
        _ => {
            if !parts.headers.contains_key(http::header::UPGRADE) {
                return Err(Failure::bad_request("Upgrade request required"));
            }
            let Some(client) = parts.extensions.remove::<OnUpgrade>() else {
                let what =
                    format!("{}/{} over a transport that cannot be upgraded", target.resource, target.subresource);
                return Err(Failure::unsupported(&what));
            };
            forward::upgrade(way, &place, parts, client).await
        }
    }
}
