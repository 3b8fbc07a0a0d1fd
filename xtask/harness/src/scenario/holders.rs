//! Who holds which ingress address, watched all the time: an address that two Services have for a moment, until somebody
//! repairs it, was still given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

/// Time for the watch to see what a list has seen.
const CATCH_UP: Duration = Duration::from_secs(5);

/// The state of the watch.
#[derive(Debug, Default)]
pub(super) struct Holders {
    addresses: BTreeMap<String, Vec<String>>,
    fresh: BTreeSet<String>,
    newest: u64,
    twice: BTreeSet<String>,
}

impl Holders {
    /// Takes an event in.
    pub(super) fn take(&mut self, event: watcher::Event<Service>) {
        match event {
            watcher::Event::Init => self.fresh.clear(),
            watcher::Event::InitApply(service) => {
                self.fresh.insert(name(&service));
                self.put(&service);
            }
            watcher::Event::InitDone => {
                let fresh = std::mem::take(&mut self.fresh);
                self.addresses.retain(|name, _| fresh.contains(name));
                self.look();
            }
            watcher::Event::Apply(service) => {
                self.put(&service);
                self.look();
            }
            watcher::Event::Delete(service) => {
                self.addresses.remove(&name(&service));
                self.newest = self.newest.max(version(&service));
            }
        }
    }

    fn put(&mut self, service: &Service) {
        self.newest = self.newest.max(version(service));
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|balancer| balancer.ingress.as_ref());
        let held = ingress.into_iter().flatten().filter_map(|entry| entry.ip.clone()).collect();
        self.addresses.insert(name(service), held);
    }

    fn look(&mut self) {
        let mut holders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, held) in &self.addresses {
            for address in held {
                holders.entry(address).or_default().push(name);
            }
        }
        for (address, names) in holders.into_iter().filter(|(_, names)| names.len() > 1) {
            self.twice.insert(format!("{address} was held by {} at the same time", names.join(" and ")));
        }
    }
}

fn name(service: &Service) -> String {
    format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any())
}

/// Resource versions are opaque to clients in principle; since KEP-5504 (1.35) they are comparable numbers, as they have
/// always been in practice.
pub(super) fn version(service: &Service) -> u64 {
    service.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// A watch that goes on until it is dropped.
pub(super) struct Watch {
    state: Arc<Mutex<Holders>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn start(client: Client) -> Self {
        let state = Arc::new(Mutex::new(Holders::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let all = Api::<Service>::all(client);
            let mut events = watcher::watcher(all, watcher::Config::default()).default_backoff().boxed();
            // An error is followed by another try, and by a whole new list.
            while let Some(event) = events.next().await {
                if let Ok(event) = event {
                    shared.lock().unwrap_or_else(PoisonError::into_inner).take(event);
                }
            }
        });
        Self { state, task }
    }

    /// What was seen since the last call, once the watch has seen all up to `version`.
    ///
    /// # Errors
    /// If the watch does not follow.
    pub(super) async fn violations(&self, version: u64) -> Result<Vec<String>> {
        let deadline = Instant::now() + CATCH_UP;
        loop {
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.newest >= version {
                    return Ok(std::mem::take(&mut state.twice).into_iter().collect());
                }
            }
            if Instant::now() > deadline {
                bail!("the watch of Services did not follow within {CATCH_UP:?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
#[path = "holders_tests.rs"]
mod tests;
