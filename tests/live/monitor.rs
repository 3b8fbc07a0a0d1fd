//! Watches Services in the order in which the API server changes them, so that not even a moment with one address in two
//! Services is missed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinHandle;

/// The watch and what it has seen.
pub(crate) struct Monitor {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// Addresses of every Service, and every moment at which one stood in two.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) addresses: BTreeMap<String, Vec<String>>,
    pub(crate) duplicates: Vec<String>,
}

impl Seen {
    /// A Service has these addresses now.
    pub(crate) fn put(&mut self, name: &str, addresses: Vec<String>) {
        for (other, theirs) in self.addresses.iter().filter(|(other, _)| *other != name) {
            for address in addresses.iter().filter(|address| theirs.contains(address)) {
                self.duplicates.push(format!("{address} in {name} while in {other}"));
            }
        }
        self.addresses.insert(name.to_owned(), addresses);
    }

    /// How many Services have an address.
    pub(crate) fn served(&self) -> usize {
        self.addresses.values().filter(|addresses| !addresses.is_empty()).count()
    }
}

impl Monitor {
    /// Begins to watch.
    pub(crate) fn start(client: Client) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                let services = Api::<Service>::all(client);
                let mut events = watcher::watcher(services, watcher::Config::default()).boxed();
                while let Some(event) = events.next().await {
                    let mut seen = seen.lock().unwrap();
                    match event.expect("the test's own watch") {
                        watcher::Event::Apply(service) | watcher::Event::InitApply(service) => {
                            seen.put(&service.name_any(), addresses(&service));
                        }
                        watcher::Event::Delete(service) => {
                            seen.addresses.remove(&service.name_any());
                        }
                        watcher::Event::Init | watcher::Event::InitDone => {}
                    }
                }
            }
        });
        Self { seen, task }
    }

    /// Looks at what was seen so far.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        assert!(!self.task.is_finished(), "the test's own watch ended");
        look(&self.seen.lock().unwrap())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Addresses in a Service's status.
pub(crate) fn addresses(service: &Service) -> Vec<String> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|entry| entry.ip.clone()).collect()
}
