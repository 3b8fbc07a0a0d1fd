//! Stopping: SIGTERM and SIGINT set a flag that the loops look at. As PID 1 of a pod the default action of SIGTERM would
//! be to be ignored, so it is waited for explicitly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

static STOPPED: AtomicBool = AtomicBool::new(false);

fn signals() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set
}

/// Blocks the signals in the calling thread and all that it starts.
///
/// # Errors
/// If the kernel refuses the mask.
pub(crate) fn block_signals() -> anyhow::Result<()> {
    signals().thread_block()?;
    Ok(())
}

/// Starts the thread that waits for the signals, then sets the flag and runs `then`.
///
/// # Errors
/// If the thread cannot be started.
pub(crate) fn on_signal(then: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    std::thread::Builder::new().name("signals".into()).stack_size(64 << 10).spawn(move || {
        // An error of sigwait means the set is invalid, which it is not; stopping is the safe answer either way.
        let _ = signals().wait();
        STOPPED.store(true, Ordering::SeqCst);
        then();
    })?;
    Ok(())
}

/// Whether a signal has arrived.
pub(crate) fn stopped() -> bool {
    STOPPED.load(Ordering::SeqCst)
}

/// When a measuring loop ends: at a signal, or after a duration if there is one.
pub(crate) struct Until {
    deadline: Option<Instant>,
}

impl Until {
    /// Starts the clock and the signal thread.
    ///
    /// # Errors
    /// If the signal thread cannot be started.
    pub(crate) fn start(duration: Option<Duration>) -> anyhow::Result<Self> {
        on_signal(|| {})?;
        Ok(Self { deadline: duration.map(|duration| Instant::now() + duration) })
    }

    /// Whether the loop has to end now.
    pub(crate) fn reached(&self) -> bool {
        stopped() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}
