//! Doing nothing until a signal: the pod that others run probes in.

use std::sync::mpsc;

use crate::stop;

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// If the signal thread cannot be started.
pub(crate) fn run() -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel();
    stop::on_signal(move || {
        // Nobody but us has the other end, and we wait for it.
        let _ = sender.send(());
    })?;
    receiver.recv()?;
    Ok(())
}
