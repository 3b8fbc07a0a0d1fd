//! Work queues: keys that need a look, each at most once, some of them later. The queue of a controller holds no more
//! than one entry for each object, however many events there are.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::client::Refused;

/// First delay of a key that failed; each further failure doubles it.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1000);

struct Inner<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
}

/// A queue of keys.
pub(crate) struct Queue<K> {
    inner: Mutex<Inner<K>>,
    changed: Notify,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                ready: VecDeque::new(),
                waiting: HashSet::new(),
                delayed: BTreeMap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                sequence: 0,
            }),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key needs a look.
    pub(crate) fn add(&self, key: K) {
        let mut inner = self.lock();
        if inner.waiting.insert(key.clone()) {
            inner.ready.push_back(key);
            self.changed.notify_one();
        }
    }

    /// The keys need a look.
    pub(crate) fn extend(&self, keys: impl IntoIterator<Item = K>) {
        keys.into_iter().for_each(|key| self.add(key));
    }

    /// The key needs a look when `delay` is over, or before that if it is already due earlier.
    pub(crate) fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut inner = self.lock();
        let at = Instant::now() + delay;
        if let Some(due) = inner.due.get(&key).copied() {
            if due.0 <= at {
                return;
            }
            inner.delayed.remove(&due);
        }
        inner.sequence += 1;
        let due = (at, inner.sequence);
        inner.delayed.insert(due, key.clone());
        inner.due.insert(key, due);
        self.changed.notify_one();
    }

    /// The key failed: again, later each time.
    pub(crate) fn retry(&self, key: K) {
        let delay = {
            let mut inner = self.lock();
            let failures = inner.failures.entry(key.clone()).or_insert(0);
            let delay = BACKOFF_FIRST.saturating_mul(1 << (*failures).min(20)).min(BACKOFF_MAX);
            *failures += 1;
            delay
        };
        self.add_after(key, delay);
    }

    /// The key succeeded.
    pub(crate) fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// The next key that is due; waits for one.
    pub(crate) async fn next(&self) -> K {
        loop {
            let wake = {
                let mut inner = self.lock();
                let now = Instant::now();
                while let Some(entry) = inner.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
                    let key = entry.remove();
                    inner.due.remove(&key);
                    if inner.waiting.insert(key.clone()) {
                        inner.ready.push_back(key);
                    }
                }
                if let Some(key) = inner.ready.pop_front() {
                    inner.waiting.remove(&key);
                    return key;
                }
                inner.delayed.keys().next().map(|due| due.0)
            };
            match wake {
                Some(at) => tokio::select! {
                    biased;
                    () = self.changed.notified() => {}
                    () = sleep_until(at) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// Works on keys for ever, one after the other; one that fails comes back with a growing delay.
    pub(crate) async fn work<F>(self: Arc<Self>, controller: &'static str, mut reconcile: impl FnMut(K) -> F)
    where
        F: Future<Output = Result<(), Refused>>,
        K: std::fmt::Debug,
    {
        loop {
            let key = self.next().await;
            match reconcile(key.clone()).await {
                Ok(()) => self.forget(&key),
                Err(refused) => {
                    if refused.is_conflict() || refused.is_not_found() {
                        tracing::debug!(controller, ?key, %refused, "again");
                    } else {
                        tracing::warn!(controller, ?key, %refused, "failed, again later");
                    }
                    self.retry(key);
                }
            }
            // Requests inside the process never wait, so nobody else would get the thread.
            tokio::task::yield_now().await;
        }
    }
}
