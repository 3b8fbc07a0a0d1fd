//! Follows every kind that is served; which those are changes with the CustomResourceDefinitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use crate::controllers::cache::Cache;
use crate::controllers::client::{Client, Refused};
use crate::controllers::context::Context;
use crate::controllers::informer::{Detail, discovered, follow};
use crate::controllers::kind::{Kind, WATCHED};
use crate::controllers::queue::Queue;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const DEFINITIONS: &str = "customresourcedefinitions";

/// Every kind that is served now and can be listed, watched and deleted.
pub(crate) async fn discover(client: &Client) -> Result<Vec<Kind>, Refused> {
    let mut kinds = Vec::new();
    for path in ["/api", "/apis"] {
        kinds.extend(discovered(&client.document(path, AGGREGATED).await?));
    }
    Ok(kinds)
}

/// Begins to follow; what is returned is done when all kinds of the beginning are held.
pub(super) fn start(context: &mut Context, client: &Client) -> oneshot::Receiver<()> {
    let queue = Queue::new();
    queue.add(());
    let definitions = Arc::clone(&queue);
    context.cache.subscribe(move |change| {
        if change.kind.plural == DEFINITIONS {
            definitions.add(());
        }
    });
    let (done, first) = oneshot::channel();
    let mut monitors = Monitors {
        client: client.clone(),
        cache: Arc::clone(&context.cache),
        running: BTreeMap::new(),
        tasks: JoinSet::new(),
    };
    context.tasks.spawn(async move {
        let mut done = Some(done);
        loop {
            queue.next().await;
            match monitors.renew().await {
                Ok(()) => {
                    queue.forget(&());
                    // Nobody waits any more when the collector is gone.
                    _ = done.take().map(|done| done.send(()));
                }
                Err(refused) => {
                    tracing::warn!(%refused, "discovery failed, again later");
                    queue.retry(());
                }
            }
        }
    });
    first
}

struct Monitors {
    client: Client,
    cache: Arc<Cache>,
    running: BTreeMap<Kind, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Monitors {
    async fn renew(&mut self) -> Result<(), Refused> {
        let kinds = discover(&self.client).await?;
        // Events belong to nobody and come by the thousand.
        let wanted: Vec<Kind> =
            kinds.into_iter().filter(|kind| kind.plural != "events" && !WATCHED.contains(kind)).collect();
        for kind in &wanted {
            if !self.running.contains_key(kind) {
                self.cache.hold(kind);
                let task = follow(self.client.clone(), Arc::clone(&self.cache), kind.clone(), Detail::Metadata);
                self.running.insert(kind.clone(), self.tasks.spawn(task));
            }
        }
        let cache = &self.cache;
        self.running.retain(|kind, task| {
            let served = wanted.contains(kind);
            if !served {
                task.abort();
                cache.drop_kind(kind);
            }
            served
        });
        while self.tasks.try_join_next().is_some() {}
        Ok(())
    }
}
