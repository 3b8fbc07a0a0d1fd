//! Whether a write may be sent. A lease is no fence: a write may be on its way when it ends. So the holder sends nothing in
//! the last request timeout before its end, and a write that was held up (a frozen process, a connection that did not come)
//! is given up instead of sent late. What slips through all the same meets a resourceVersion that has moved on, or is
//! found by the new leader as a duplicate.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;

use super::clock::Clock;
use super::lease::REQUEST_TIMEOUT;

/// The right to write, shared by the lease's keeper and the writers.
#[derive(Clone)]
pub struct Fence(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// End of the lease that we hold.
    deadline: Option<Duration>,
    /// Nothing is written any more.
    closed: bool,
}

/// A write that was not sent, or whose answer nobody waited for, because the lease ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not written: the lease ran out")]
pub struct Fenced;

impl Fence {
    /// No right to write yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { clock, state: Mutex::default(), changed: Notify::new() }))
    }

    /// Time by the clock that the lease is measured by.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.clock.now()
    }

    /// The time of day.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.0.clock.wall()
    }

    /// Whether a write may be sent now.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.may_write_in(self.state())
    }

    fn may_write_in(&self, state: State) -> bool {
        !state.closed && state.deadline.is_some_and(|deadline| self.now().saturating_add(REQUEST_TIMEOUT) < deadline)
    }

    /// Whether a lease is held that has not run out; there may be too little of it left to write.
    #[must_use]
    pub fn held(&self) -> bool {
        self.state().deadline.is_some_and(|deadline| self.now() < deadline)
    }

    /// Until when the lease is held now, or that it is not.
    pub fn set(&self, deadline: Option<Duration>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.may_write_in(*state);
        state.deadline = deadline;
        let after = self.may_write_in(*state);
        drop(state);
        if !before && after {
            self.0.changed.notify_one();
        }
    }

    /// Ends the right to write for good: the process is about to end.
    pub fn close(&self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.0.changed.notify_one();
    }

    /// Whether [`Self::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Waits until the right to write came, or was closed. For one waiter.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Sends a write: `send` is not started, nor driven on, when the lease is (nearly) over. A write that is on its way
    /// when the fence closes is still waited for, so that the lease is released after it.
    ///
    /// # Errors
    /// If the lease ran out before the answer came.
    pub async fn guard<T>(&self, send: impl Future<Output = T>) -> Result<T, Fenced> {
        if !self.may_write() {
            return Err(Fenced);
        }
        let mut send = pin!(send);
        poll_fn(|context| if self.held() { send.as_mut().poll(context).map(Ok) } else { Poll::Ready(Err(Fenced)) })
            .await
    }

    fn state(&self) -> State {
        *self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;
