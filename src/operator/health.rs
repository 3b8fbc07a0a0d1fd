//! What the operator's health port tells. `/healthz`: the loops turn; an API server that is away is no reason to be
//! restarted. `/readyz`: pools and Services are known; one that does not lead is as ready as the leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::telemetry::health::Health;
use crate::telemetry::server::Answer;

/// The keeper of the lease.
pub(super) const LEASE: &str = "lease";
/// Plans and their writes.
pub(super) const IPAM: &str = "ipam";
/// The watches.
pub(super) const WATCH: &str = "watch";
/// The loop that takes events and writes.
const LOOP: &str = "loop";
/// How often the loop shows that it turns.
pub(super) const BEAT: Duration = Duration::from_secs(5);
/// A loop that has not turned for this long hangs: all that it waits for ends earlier.
const HANGS: Duration = Duration::from_secs(60);

/// Shared by the loops and the health port.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) health: Health,
    ready: Arc<AtomicBool>,
}

impl State {
    /// The loop turns.
    pub(super) fn beat(&self) {
        self.health.note(LOOP, Ok(()));
    }

    /// Pools and Services are known.
    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// The answer for a path of the health port.
    pub(super) fn answer(&self, path: &str) -> Answer {
        match path {
            "/healthz" => Some(self.turning(HANGS)),
            "/readyz" if self.ready.load(Ordering::Relaxed) => Some(Ok(())),
            "/readyz" => Some(Err("the lists of pools and services are not complete yet".to_owned())),
            _ => None,
        }
    }

    fn turning(&self, limit: Duration) -> Result<(), String> {
        let hanging = |name: &&str| self.health.since_last(name).is_some_and(|since| since >= limit);
        match [LEASE, LOOP].into_iter().find(hanging) {
            Some(name) => Err(format!("loop {name} has not turned for {} s", limit.as_secs())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
