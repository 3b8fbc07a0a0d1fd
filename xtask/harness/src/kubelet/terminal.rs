//! Terminals for commands in containers: made in the container's own devpts, so that programs there find theirs by name.

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sched::{CloneFlags, setns, unshare};

use crate::sys;

/// A terminal of a container.
pub(super) struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Terminal {
    /// Opens a terminal in the mount namespace of a process.
    ///
    /// # Errors
    /// If the container has no terminals.
    pub(super) async fn open(pid: i32, size: Option<Winsize>) -> Result<Self> {
        tokio::task::spawn_blocking(move || {
            let mounts = sys::namespace_of(pid, "mnt")?;
            // A thread of its own, for it never leaves the container's mount namespace again.
            let opened = std::thread::spawn(move || -> Result<OpenptyResult> {
                unshare(CloneFlags::CLONE_FS).context("a root of its own")?;
                setns(mounts, CloneFlags::CLONE_NEWNS).context("entering the container")?;
                let opened = openpty(size.as_ref(), None).context("openpty")?;
                for side in [&opened.master, &opened.slave] {
                    fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("the terminal")?;
                }
                Ok(opened)
            });
            let opened = opened.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
            Ok(Self { master: opened.master, slave: opened.slave })
        })
        .await?
    }

    /// The program's side once more.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn side(&self) -> Result<OwnedFd> {
        self.slave.try_clone().context("the terminal")
    }

    /// Our side. The program's is closed here, so that reading ends with the program.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn ours(self) -> Result<Ours> {
        drop(self.slave);
        Ours::of(self.master)
    }
}

/// Our side of a terminal.
pub(super) struct Ours {
    pub(super) read: tokio::fs::File,
    pub(super) write: tokio::fs::File,
    /// For its size.
    pub(super) size: OwnedFd,
}

impl Ours {
    /// From the terminal's master.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn of(master: OwnedFd) -> Result<Self> {
        let again = || master.try_clone().context("the terminal");
        let (write, size) = (again()?, again()?);
        Ok(Self {
            read: tokio::fs::File::from_std(File::from(master)),
            write: tokio::fs::File::from_std(File::from(write)),
            size,
        })
    }
}
