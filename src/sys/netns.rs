//! Doing something in another network namespace: on a thread of its own that ends afterwards, so that no thread of a
//! runtime is ever left in the wrong one.

use std::io;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns};

/// Runs `work` on a new thread that has entered `namespace`.
///
/// # Errors
/// If the namespace cannot be entered or the thread dies.
pub fn within<T: Send>(namespace: impl AsFd + Send, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok::<T, io::Error>(work())
        })?;
        worker.join().map_err(|_| io::Error::other("the thread in the other network namespace panicked"))?
    })
}
