//! Which control loops there are and how their last round went.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Last round of one loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// It went well.
    pub healthy: bool,
    /// What went wrong, with its causes.
    pub message: String,
    /// Rounds so far.
    pub rounds: u64,
}

/// Registry of control loops; clones share it.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, (Round, Instant)>>>);

impl Health {
    /// Notes how a round of `name` went, logs what changed, and passes the outcome on.
    pub fn note<T>(&self, name: &str, outcome: anyhow::Result<T>) -> Option<T> {
        let message = outcome.as_ref().err().map(|error| format!("{error:#}"));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || (Round { healthy: true, message: String::new(), rounds: 0 }, Instant::now());
        let (round, at) = all.entry(name.to_owned()).or_insert_with(first);
        *at = Instant::now();
        round.rounds += 1;
        match &message {
            Some(text) if round.message != *text => tracing::warn!(controller = name, error = %text, "round failed"),
            None if !round.healthy => tracing::info!(controller = name, "healthy again"),
            _ => {}
        }
        round.healthy = message.is_none();
        round.message = message.unwrap_or_default();
        outcome.ok()
    }

    /// All loops.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, Round> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(name, (round, _))| (name.clone(), round.clone())).collect()
    }

    /// How long ago the last round of `name` ended, well or not; `None` if there was none.
    #[must_use]
    pub fn since_last(&self, name: &str) -> Option<Duration> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(name).map(|(_, at)| at.elapsed())
    }
}
