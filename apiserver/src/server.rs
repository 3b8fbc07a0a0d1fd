//! The server: options, the way of a request, and the `tower` service.

mod answers;
mod caller;
mod documents;
mod options;
mod resources;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;

use crate::audit::Audit;
use crate::auth::access::Access;
use crate::auth::attributes::Attributes;
use crate::auth::keys::KeyError;
use crate::auth::token::Tokens;
use crate::auth::{User, gate};
use crate::clock::{Clock, IdGenerator, RuntimeClock};
use crate::expiry::Expiry;
use crate::failure::{Failure, qualified};
use crate::kinds::service::Allocations;
use crate::proxy::{self, KubeletOptions};
use crate::registry::Registry;
use crate::request::{Query, wants_yaml};
use crate::schema::builtin;
use crate::state::State;
use crate::store::{Event, LogError, Store, TooOld};
use crate::verbs::locked;
use answers::{failed, for_people, in_yaml, spread, text};
pub use caller::AsUser;
pub use options::Options;
use resources::Refusal;

/// Largest request body, as the real server has it.
const BODY_MAX: usize = 3 << 20;

/// Body of an answer; a watch's goes on.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The table of built-in resources is wrong.
    #[error("{0}")]
    Registry(String),
    /// No key can be made.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// What every cluster has could not be made.
    #[error("bootstrap: {0}")]
    Bootstrap(String),
}

/// What happened to a resource cannot be told.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// Nothing of this name is served; a custom resource is as long as its definition is there.
    #[error("no resource {0} is served")]
    UnknownResource(String),
    /// That much of history is gone.
    #[error(transparent)]
    TooOld(#[from] TooOld),
}

/// A Kubernetes-compatible API server; a `tower` service that is cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) state: Arc<Mutex<State>>,
    seed: u64,
    address: Arc<str>,
    unsupported_hint: Arc<str>,
    audit: Option<Arc<Audit>>,
    pub(crate) kubelets: Option<KubeletOptions>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the state: it may be locked by whoever prints this.
        formatter
            .debug_struct("ApiServer")
            .field("address", &self.address)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Starts a server.
    ///
    /// # Errors
    /// The log cannot be opened, or is damaged.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let store = match &options.data_log {
            Some(path) => Store::open(path, options.retention, options.durability)?,
            None => Store::in_memory(options.retention),
        };
        let registry = Registry::builtin(|name| builtin::types().get(name).cloned()).map_err(StartError::Registry)?;
        let clock = options.clock.unwrap_or_else(|| Arc::new(RuntimeClock::starting_at(jiff::Timestamp::now())));
        let allocations = Allocations::new(options.service_cluster_ip_range, options.service_node_port_range);
        let audit = options.audit_log.map(|sink| Arc::new(Audit::new(sink, Arc::clone(&clock))));
        let access = Access::new(options.auth)?;
        // What was made from the same seed before a restart is not made again.
        let chance = IdGenerator::seeded(options.seed.wrapping_add(store.revision()));
        let mut state = State { store, registry, chance, allocations, clock, access, expiry: Expiry::default() };
        let made = state.restore().and_then(|()| state.bootstrap());
        made.map_err(|failure| StartError::Bootstrap(failure.message))?;
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
            seed: options.seed,
            address: Arc::from(options.advertise_address),
            unsupported_hint: Arc::from(options.unsupported_hint),
            audit,
            kubelets: options.kubelets,
        })
    }

    /// Forgets history before a revision, as compaction does: older watches and exact lists are told 410.
    pub fn compact(&self, revision: u64) {
        locked(&self.state).store.compact(revision);
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        locked(&self.state).store.revision()
    }

    /// Follows the newest revision.
    pub fn head(&self) -> tokio::sync::watch::Receiver<u64> {
        locked(&self.state).store.head()
    }

    /// All cluster roles, and the newest revision among them.
    pub(crate) fn cluster_roles(&self) -> (u64, Vec<Arc<Value>>) {
        let state = locked(&self.state);
        let storage = Arc::from(format!("{}/clusterroles", crate::auth::rbac::GROUP));
        let roles: Vec<Arc<Value>> = state.store.list(&storage, "").map(|(_, role)| role).collect();
        let revision = |role: &Arc<Value>| role["metadata"]["resourceVersion"].as_str()?.parse().ok();
        (roles.iter().filter_map(revision).max().unwrap_or(0), roles)
    }

    /// What decides uids, generated names, addresses and ports.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What the server takes for now.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&locked(&self.state).clock)
    }

    /// What tokens are signed with.
    pub(crate) fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&locked(&self.state).access.tokens)
    }

    /// What was written to a resource after a revision, oldest first. It is named by its group, empty for core, and its
    /// plural, as in paths: `("", "services")`, `("apps", "deployments")`.
    ///
    /// # Errors
    /// There is no such resource, or that much of history is gone.
    pub fn history(&self, group: &str, plural: &str, after: u64) -> Result<Vec<Event>, HistoryError> {
        let state = locked(&self.state);
        let resource = state.registry.all().iter().find(|own| own.group == group && own.plural == plural);
        let resource = resource.ok_or_else(|| HistoryError::UnknownResource(qualified(plural, group)))?;
        Ok(state.store.events_after(&resource.storage, after, usize::MAX)?)
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let wanted = Attributes::of(&parts.method, parts.uri.path(), &Query::parse(parts.uri.query()));
        let (entered, trail) = {
            let mut state = locked(&self.state);
            let mut trail = self.audit.as_ref().map(|audit| audit.begin(&state.chance.uid(), &parts, &wanted));
            (gate::enter(&mut state, &parts, &wanted, &mut trail), trail)
        };
        let (yaml, head) = (wants_yaml(&parts.headers), parts.method == Method::HEAD);
        let for_people = wanted.verb != "watch" && for_people(&parts);
        let mut answer = match entered {
            Ok(user) => self.answer(user, parts, body).await,
            Err(failure) => self.failed(&failure),
        };
        if yaml {
            answer = in_yaml(answer);
        }
        if for_people && answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json") {
            answer = spread(answer).await;
        }
        if head {
            *answer.body_mut() = Full::default().boxed_unsync();
        }
        match trail {
            Some(trail) => trail.end(answer),
            None => answer,
        }
    }

    fn failed(&self, failure: &Failure) -> Response<Body> {
        failed(&failure.with_hint(&self.unsupported_hint))
    }

    async fn answer<B>(&self, user: Arc<User>, mut parts: http::request::Parts, body: B) -> Response<Body>
    where
        B: http_body::Body + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = match Limited::new(body, BODY_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => {
                return self.failed(&Failure::too_large(format!("the request body is larger than {BODY_MAX} bytes")));
            }
        };
        if let Some(answer) = proxy::serve(self, &mut parts, &body).await {
            return answer.unwrap_or_else(|failure| self.failed(&failure));
        }
        let query = Query::parse(parts.uri.query());
        let path = parts.uri.path();
        if let Some(answer) = self.document(&parts.method, path, &query, &parts.headers) {
            return answer.unwrap_or_else(|failure| self.failed(&failure));
        }
        match self.resource(&parts.method, path, query, &parts.headers, body, user) {
            Ok(answer) => answer,
            Err(Refusal::NoPath) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
            Err(Refusal::Failed(failure)) => self.failed(&failure),
        }
    }
}

impl<B> tower_service::Service<Request<B>> for ApiServer
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.handle(request).await) })
    }
}
