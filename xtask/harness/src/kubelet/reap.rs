//! What a PID 1 has to do besides its work: hand signals on, and reap the processes that have lost their parent. Without it
//! every orphan stays as a zombie until the PID namespace goes, and takes a slot of the pids limit.

use std::process::{Child, Command};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys;

/// Signals that are handed on to the child.
const HANDED_ON: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Starts the command and calls `started`, then waits for its end, hands signals on to it and reaps everybody else; returns
/// its exit code, 128 + signal where a signal ended it.
///
/// # Errors
/// If it cannot be started, or the kernel refuses.
pub(super) fn run(command: &mut Command, started: impl FnOnce()) -> Result<i32> {
    let mut signals = SigSet::from_iter(HANDED_ON);
    signals.add(Signal::SIGCHLD);
    // Before the child is started: a signal that came in between would be lost. The child itself blocks none.
    signals.thread_block().context("blocking signals")?;
    sys::unblock_signals(command);
    let child = command.spawn().with_context(|| format!("executing {}", command.get_program().display()))?;
    started();
    tend(&child, &signals)
}

/// Waits for the child, hands signals on to it and reaps everybody else; returns the child's exit code, 128 + signal where
/// a signal ended it.
///
/// # Errors
/// If the kernel refuses.
fn tend(child: &Child, signals: &SigSet) -> Result<i32> {
    let child = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        match signals.wait().context("waiting for signals")? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(child)? {
                    return Ok(code);
                }
            }
            // It may have ended in the meantime; then SIGCHLD comes next.
            signal => drop(kill(child, signal)),
        }
    }
}

/// Reaps all that have ended, for SIGCHLD may stand for many; the exit code if the child was among them.
fn reap(child: Pid) -> Result<Option<i32>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("reaping"),
        }
    }
}

#[cfg(test)]
#[path = "reap_tests.rs"]
mod tests;
