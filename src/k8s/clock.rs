//! The clocks that leases are measured by and that objects are stamped with. They are injected, so that a test and a
//! simulation decide what time it is.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Both clocks of a process.
pub trait Clock: Send + Sync {
    /// Time since some moment in the past. It never goes back and never stands still, not even while the machine sleeps.
    fn now(&self) -> Duration;

    /// The time of day. It may jump either way: nothing is decided by it, it is only written down.
    fn wall(&self) -> Timestamp;
}

/// The clocks of this machine. The first one is time since boot, sleep included: a leader on a machine that was suspended
/// must know that its lease ran out, which `Instant` (CLOCK_MONOTONIC) does not tell.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        // A clock that cannot be read is at the end of time: no lease holds then, and nothing is written.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }
}
