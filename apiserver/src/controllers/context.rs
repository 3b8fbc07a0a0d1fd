//! What every controller is: a user of the server with a queue of what needs a look, some changes that put things on it,
//! and a look.

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::cache::{Cache, Change};
use super::client::{Client, Refused};
use super::events::{Events, Recorder};
use super::kind::WATCHED;
use super::queue::Queue;
use super::{ControllerOptions, selection};
use crate::auth::User;
use crate::clock::Clock;
use crate::server::ApiServer;

/// What all controllers share.
pub(super) struct Context {
    pub(super) server: ApiServer,
    pub(super) cache: Arc<Cache>,
    pub(super) options: Arc<ControllerOptions>,
    pub(super) events: Events,
    pub(super) tasks: JoinSet<()>,
    clock: Arc<dyn Clock>,
}

/// What one controller works with.
pub(super) struct Tools<K> {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) cache: Arc<Cache>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: Arc<ControllerOptions>,
    pub(super) queue: Arc<Queue<K>>,
}

/// A controller.
pub(super) trait Controller: Send + Sync + 'static {
    /// What is looked at.
    type Key: Clone + Eq + Hash + Debug + Send + 'static;

    fn tools(&self) -> &Tools<Self::Key>;

    /// Puts on the queue what a change concerns; nothing else, for it runs where the change is.
    fn note(&self, change: &Change);

    /// Looks at the present state, and brings it nearer to what it should be.
    fn reconcile(&self, key: Self::Key) -> impl Future<Output = Result<(), Refused>> + Send;
}

impl Context {
    pub(super) fn new(server: ApiServer, options: ControllerOptions) -> Self {
        let (clock, cache) = (server.clock(), Arc::new(Cache::default()));
        let events = Events::new(Arc::clone(&clock));
        for kind in &WATCHED {
            cache.hold(kind);
        }
        Self { server, cache, clock, options: Arc::new(options), events, tasks: JoinSet::new() }
    }

    /// The client of any program and user.
    pub(super) fn client_of(&self, program: &str, user: User) -> Client {
        Client::new(self.server.clone(), Arc::clone(&self.cache), program, user)
    }

    /// The tools of a controller with a service account of its own, who says things as `component`.
    pub(super) fn tools<K: Clone + Eq + Hash>(&self, account: &str, component: &'static str) -> Tools<K> {
        let user = User::service_account("kube-system", account, "");
        self.tools_of(self.client_of("kube-controller-manager", user), component)
    }

    /// The tools of a controller that is any user.
    pub(super) fn tools_of<K: Clone + Eq + Hash>(&self, client: Client, component: &'static str) -> Tools<K> {
        Tools {
            recorder: self.events.recorder(component, client.clone()),
            client,
            cache: Arc::clone(&self.cache),
            clock: Arc::clone(&self.clock),
            options: Arc::clone(&self.options),
            queue: Queue::new(),
        }
    }

    /// Lets a controller work as soon as all watched kinds are known, if it is one of those that run.
    pub(super) fn run(&mut self, which: selection::Controller, controller: impl Controller) {
        if !self.options.controllers.has(which) {
            return;
        }
        let name = which.name();
        let controller = self.listen(controller);
        let cache = Arc::clone(&self.cache);
        self.tasks.spawn(async move {
            cache.synced(&WATCHED).await;
            work(name, controller).await;
        });
    }

    /// Lets a controller hear of every change.
    pub(super) fn listen<C: Controller>(&self, controller: C) -> Arc<C> {
        let controller = Arc::new(controller);
        // The cache outlives nobody: a controller that has ended hears nothing.
        let listener = Arc::downgrade(&controller);
        self.cache.subscribe(move |change| {
            if let Some(controller) = listener.upgrade() {
                controller.note(change);
            }
        });
        controller
    }
}

/// Works on the queue of a controller for ever.
pub(super) async fn work(name: &'static str, controller: Arc<impl Controller>) {
    let queue = Arc::clone(&controller.tools().queue);
    queue.work(name, |key| controller.reconcile(key)).await;
}
