//! The controllers that a cluster needs, on top of the server and through its API: each is a user of its own, sees what
//! everybody sees, and is refused what everybody is refused. Only the transport is missing, they call the `tower`
//! service directly.
//!
//! All share one cache that the watches fill (`cache`, `informer`). A change puts keys on the queues of whom it concerns
//! (`queue`); a reconciler then looks at the present state alone. What is decided is decided by pure functions; nothing
//! polls, and all waiting is on Tokio's clock.

mod cache;
mod claims;
mod client;
mod daemon;
mod deployment;
mod endpoints;
mod events;
mod garbage;
mod history;
mod informer;
mod job;
mod kind;
mod namespace;
mod node;
mod object;
mod pods;
mod queue;
mod replica_set;
mod scheduler;
mod service_account;
mod stateful_set;
mod token_secrets;

use std::future::Future;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::task::JoinSet;

use crate::auth::User;
use crate::clock::Clock;
use crate::server::ApiServer;
use cache::{Cache, Change};
use client::{Client, Refused};
use events::{Events, Recorder};
use informer::{Detail, follow};
use kind::WATCHED;
use queue::Queue;

/// What the controllers are told about the cluster; the defaults are those of kube-controller-manager.
#[derive(Clone, Debug)]
pub struct ControllerOptions {
    /// Range from which nodes get their pod ranges; none are given without.
    pub cluster_range: Option<Ipv4Net>,
    /// Length of a node's pod range.
    pub node_mask: u8,
    /// Certificate authority that `kube-root-ca.crt` holds in each namespace; none is published without.
    pub root_ca: Option<String>,
    /// Where the server is, for the endpoints of the service `kubernetes`; they are left alone without.
    pub api_endpoint: Option<SocketAddr>,
    /// A node that has not been heard of for so long is unknown.
    pub node_grace: Duration,
    /// The same for a node that has never been heard of.
    pub node_startup_grace: Duration,
    /// How long pods of a node that is gone are left alone.
    pub lost_pod_grace: Duration,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            cluster_range: None,
            node_mask: 24,
            root_ca: None,
            api_endpoint: None,
            node_grace: Duration::from_secs(50),
            node_startup_grace: Duration::from_secs(60),
            lost_pod_grace: Duration::from_secs(40),
        }
    }
}

/// What every controller is made of.
struct Context {
    server: ApiServer,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    options: Arc<ControllerOptions>,
    events: Events,
    tasks: JoinSet<()>,
}

impl Context {
    /// The client of a controller with its own service account.
    fn client(&self, account: &str) -> Client {
        self.client_of("kube-controller-manager", User::service_account("kube-system", account, ""))
    }

    /// The client of any program and user.
    fn client_of(&self, program: &str, user: User) -> Client {
        Client::new(self.server.clone(), Arc::clone(&self.cache), program, user)
    }

    fn recorder(&self, component: &'static str, client: &Client) -> Recorder {
        self.events.recorder(component, client.clone())
    }

    /// Hands every change to `note`, which puts on the queue what needs a look.
    fn subscribe<K>(&self, queue: &Arc<Queue<K>>, note: impl Fn(&Cache, &Queue<K>, &Change) + Send + Sync + 'static)
    where
        K: Clone + Eq + Hash + Send + 'static,
    {
        let (cache, queue) = (Arc::downgrade(&self.cache), Arc::clone(queue));
        self.cache.subscribe(move |change| {
            if let Some(cache) = cache.upgrade() {
                note(&cache, &queue, change);
            }
        });
    }

    /// Works on a queue as soon as all watched kinds are known.
    fn work<K, F>(
        &mut self,
        controller: &'static str,
        queue: &Arc<Queue<K>>,
        reconcile: impl FnMut(K) -> F + Send + 'static,
    ) where
        K: Clone + Eq + Hash + std::fmt::Debug + Send + 'static,
        F: Future<Output = Result<(), Refused>> + Send,
    {
        let (cache, queue) = (Arc::clone(&self.cache), Arc::clone(queue));
        self.tasks.spawn(async move {
            cache.synced(&WATCHED).await;
            queue.work(controller, reconcile).await;
        });
    }
}

/// Runs all controllers until the future is dropped.
///
/// # Panics
/// Goes on with the panic of a controller.
pub async fn run(server: ApiServer, options: ControllerOptions) {
    let (clock, cache) = (server.clock(), Arc::new(Cache::default()));
    let events = Events::new(Arc::clone(&clock));
    let mut context = Context { server, cache, clock, options: Arc::new(options), events, tasks: JoinSet::new() };
    for kind in &WATCHED {
        context.cache.hold(kind);
    }
    namespace::start(&mut context);
    service_account::start(&mut context);
    token_secrets::start(&mut context);
    node::start(&mut context);
    scheduler::start(&mut context);
    claims::start(&mut context);
    daemon::start(&mut context);
    deployment::start(&mut context);
    replica_set::start(&mut context);
    stateful_set::start(&mut context);
    job::start(&mut context);
    endpoints::start(&mut context);
    garbage::start(&mut context);
    for kind in WATCHED {
        let client = context.client_of("kube-controller-manager", User::new("system:kube-controller-manager", &[]));
        context.tasks.spawn(follow(client, Arc::clone(&context.cache), kind, Detail::Whole));
    }
    let Context { mut tasks, events, .. } = context;
    tasks.spawn(events.write());
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
