//! Time in tests.
//!
//! With `#[tokio::test(start_paused = true)]` nothing needs more: the server's clock, its timers, the controllers and the
//! client all follow Tokio's clock, which jumps to the next timer when nobody has anything to do. Sleeping is how time
//! passes; a minute takes no time, and everything that is due within it happens, in order.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::server::ApiServer;
use crate::verbs::locked;

const LEASES: &str = "coordination.k8s.io/leases";

/// A clock that stands until it is moved, for `Options::clock`: what the server takes for now in `creationTimestamp` and in
/// the lifetime of tokens. Timers (of watches, of controllers) follow Tokio's clock all the same.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// Stands at a moment.
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Goes on.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.checked_add(by).unwrap_or(Timestamp::MAX);
    }

    /// Jumps.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Times that [`settle`] looks: whoever writes each time will do so for ever.
const LOOKS: usize = 1000;

/// Somebody writes for ever, and what was written last.
#[derive(Debug, thiserror::Error)]
#[error("{what} was still written when {LOOKS} times {quiet:?} were over: somebody writes for ever")]
pub struct Unsettled {
    what: String,
    quiet: Duration,
}

/// Waits until nothing has been written for `quiet`, leases apart: whoever had something to do has done it. Under paused time
/// this takes none; what is done in longer intervals than `quiet` is not waited for.
///
/// # Errors
/// Somebody writes for ever.
pub async fn settle(server: &ApiServer, quiet: Duration) -> Result<(), Unsettled> {
    let (mut seen, mut what) = (server.revision(), String::new());
    for _ in 0..LOOKS {
        tokio::time::sleep(quiet).await;
        let before = std::mem::replace(&mut seen, server.revision());
        match written_since(server, before) {
            Some(written) => what = written,
            None => return Ok(()),
        }
    }
    Err(Unsettled { what, quiet })
}

/// What but a lease was written after a revision, if anything was. Nodes and leaders renew theirs for ever.
fn written_since(server: &ApiServer, revision: u64) -> Option<String> {
    let state = locked(&server.state);
    let storages = state.registry.all().iter().map(|resource| &resource.storage).filter(|own| ***own != *LEASES);
    storages.into_iter().find_map(|storage| match state.store.events_after(storage, revision, 1) {
        Ok(events) => events.first().map(|event| format!("{storage} {}/{}", event.key.namespace, event.key.name)),
        // So much was written that the first of it is forgotten.
        Err(_) => Some(storage.to_string()),
    })
}
