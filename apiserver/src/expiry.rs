//! Events do not stay: they end an hour after they were written last, as kube-apiserver's do (`--event-ttl`). Here that
//! happens when the next one is written, so that nothing has to wake up for it.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use crate::store::{Key, Store};

/// Where Events are stored.
pub(crate) const EVENTS: &str = "/events";
const STAY: SignedDuration = SignedDuration::from_hours(1);
/// Entries that may be out of date before they are looked through.
const STALE: usize = 1024;

/// When which event ends, the next one first.
#[derive(Default)]
pub(crate) struct Expiry {
    due: VecDeque<(Timestamp, Key, u64)>,
    /// How many there were when they were looked through last.
    looked: usize,
}

impl Expiry {
    /// An event was written.
    pub(crate) fn note(&mut self, now: Timestamp, key: &Key, store: &Store) {
        let Some(stored) = store.stored(key) else { return };
        self.due.push_back((now.checked_add(STAY).unwrap_or(Timestamp::MAX), key.clone(), stored.revision));
        if self.due.len() > 2 * self.looked + STALE {
            self.due.retain(|(_, key, revision)| is_current(store, key, *revision));
            self.looked = self.due.len();
        }
    }

    /// An event whose time is over; each is named once.
    pub(crate) fn next(&mut self, now: Timestamp, store: &Store) -> Option<Key> {
        while self.due.front().is_some_and(|(due, ..)| *due <= now) {
            let (_, key, revision) = self.due.pop_front()?;
            if is_current(store, &key, revision) {
                return Some(key);
            }
        }
        None
    }
}

/// Whether the event was not written again since.
fn is_current(store: &Store, key: &Key, revision: u64) -> bool {
    store.stored(key).is_some_and(|stored| stored.revision == revision)
}

#[cfg(test)]
#[path = "expiry_tests.rs"]
mod tests;
