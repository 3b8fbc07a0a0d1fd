//! The controllers that a cluster needs, on top of the server and through its API: each is a user of its own, sees what
//! everybody sees, and is refused what everybody is refused. Only the transport is missing, they call the `tower`
//! service directly.
//!
//! All share one cache that the watches fill (`cache`, `informer`). A change puts keys on the queues of whom it concerns
//! (`queue`); a reconciler then looks at the present state alone. What is decided is decided by pure functions; nothing
//! polls, and all waiting is on Tokio's clock.

mod cache;
mod children;
mod client;
mod context;
mod daemon;
mod deployment;
mod disruption;
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
mod running;
mod scheduler;
mod selection;
mod service_account;
mod stateful_set;
mod storage;
mod token_secrets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::auth::{User, aggregation};
use crate::server::ApiServer;
use context::Context;
use informer::{Detail, follow};
use kind::WATCHED;
pub use running::{RunningControllers, start};
pub use selection::{Controller, ControllerSelection, UnknownController};

/// What the controllers are told about the cluster, by the names of kube-controller-manager's flags; the defaults are its
/// own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ControllerOptions {
    /// Which controllers run.
    pub controllers: ControllerSelection,
    /// Range from which nodes get their pod ranges; none are given without.
    pub cluster_cidr: Option<Ipv4Net>,
    /// Length of a node's pod range.
    pub node_cidr_mask_size: u8,
    /// Certificate authority that `kube-root-ca.crt` holds in each namespace; none is published without.
    pub root_ca: Option<String>,
    /// Where the server is, for the endpoints of the service `kubernetes`; they are left alone without.
    pub advertise_address: Option<SocketAddr>,
    /// A node that has not been heard of for so long is unknown.
    pub node_monitor_grace_period: Duration,
    /// The same for a node that has never been heard of.
    pub node_startup_grace_period: Duration,
    /// How long pods of a node that is gone are left alone.
    pub pod_gc_quarantine: Duration,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            controllers: ControllerSelection::all(),
            cluster_cidr: None,
            node_cidr_mask_size: 24,
            root_ca: None,
            advertise_address: None,
            node_monitor_grace_period: Duration::from_secs(50),
            node_startup_grace_period: Duration::from_secs(60),
            pod_gc_quarantine: Duration::from_secs(40),
        }
    }
}

/// One by one, for `ControllerOptions` cannot be written as a whole outside of this crate: it grows.
impl ControllerOptions {
    /// Which controllers run.
    #[must_use]
    pub fn controllers(mut self, selection: ControllerSelection) -> Self {
        self.controllers = selection;
        self
    }

    /// Range from which nodes get their pod ranges.
    #[must_use]
    pub fn cluster_cidr(mut self, value: Ipv4Net) -> Self {
        self.cluster_cidr = Some(value);
        self
    }

    /// Length of a node's pod range.
    #[must_use]
    pub fn node_cidr_mask_size(mut self, value: u8) -> Self {
        self.node_cidr_mask_size = value;
        self
    }

    /// Certificate authority that `kube-root-ca.crt` holds in each namespace.
    #[must_use]
    pub fn root_ca(mut self, pem: impl Into<String>) -> Self {
        self.root_ca = Some(pem.into());
        self
    }

    /// Where the server is, for the endpoints of the Service `kubernetes`.
    #[must_use]
    pub fn advertise_address(mut self, value: SocketAddr) -> Self {
        self.advertise_address = Some(value);
        self
    }

    /// A node that has not been heard of for so long is unknown.
    #[must_use]
    pub fn node_monitor_grace_period(mut self, value: Duration) -> Self {
        self.node_monitor_grace_period = value;
        self
    }

    /// The same for a node that has never been heard of.
    #[must_use]
    pub fn node_startup_grace_period(mut self, value: Duration) -> Self {
        self.node_startup_grace_period = value;
        self
    }

    /// How long pods of a node that is gone are left alone.
    #[must_use]
    pub fn pod_gc_quarantine(mut self, value: Duration) -> Self {
        self.pod_gc_quarantine = value;
        self
    }
}

/// Runs the controllers until the future is dropped; [`start`] does so beside a test.
///
/// # Panics
/// Goes on with the panic of a controller.
pub async fn run(server: ApiServer, options: ControllerOptions) {
    let mut context = Context::new(server, options);
    namespace::start(&mut context);
    service_account::start(&mut context);
    token_secrets::start(&mut context);
    node::start(&mut context);
    scheduler::start(&mut context);
    daemon::start(&mut context);
    deployment::start(&mut context);
    replica_set::start(&mut context);
    stateful_set::start(&mut context);
    job::start(&mut context);
    disruption::start(&mut context);
    endpoints::start(&mut context);
    if context.options.controllers.has(Controller::GarbageCollector) {
        garbage::start(&mut context);
    }
    storage::start(&mut context);
    if context.options.controllers.has(Controller::ClusterRoleAggregation) {
        context.tasks.spawn(aggregation::run(context.server.clone()));
    }
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
