//! The clock that leases are measured by.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since some moment in the past. It never goes back and never stands still, not even while the machine sleeps.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Duration;
}

/// Time since boot, sleep included: a leader on a machine that was suspended must know that its lease ran out, which
/// `Instant` (CLOCK_MONOTONIC) does not tell.
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Duration {
        // A clock that cannot be read is at the end of time: no lease holds then, and nothing is written.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
    }
}
