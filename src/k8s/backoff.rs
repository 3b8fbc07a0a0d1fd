//! How long a watch waits after it has failed.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;

/// The longest wait. A node whose agent does not know of new endpoints sends connections to pods that are gone; what
/// client-go's reflectors wait at most (30 s, and their jitter) is long after the API server has come back. All agents
/// of a cluster together ask an API server that is down a few times a second by it, which costs it nothing.
pub const LONGEST: Duration = Duration::from_secs(5);

/// kube's default back-off (0.8 s, doubled each time, with jitter), cut off at [`LONGEST`].
#[derive(Default)]
pub struct WatchBackoff(DefaultBackoff);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(LONGEST))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
#[path = "backoff_tests.rs"]
mod tests;
