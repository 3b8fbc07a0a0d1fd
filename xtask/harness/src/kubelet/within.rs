//! Paths that somebody else may have filled with symbolic links, resolved so that they cannot lead out of their root.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, mknodat};

/// What a path is to be where nothing is there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// How symbolic links within a root are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// Absolute ones begin at the root, `..` ends there, as in a container.
    InRoot,
    /// One that leads out is an error, as for `subPath`.
    Beneath,
}

/// A directory below which paths are resolved.
pub(super) struct Root {
    fd: OwnedFd,
    links: Links,
}

impl Root {
    /// Opens the root, which is trusted itself.
    ///
    /// # Errors
    /// If it is no directory.
    pub(super) fn open(path: &Path, links: Links) -> Result<Self> {
        let fd = File::open(path).with_context(|| format!("opening {}", path.display()))?.into();
        Ok(Self { fd, links })
    }

    /// A handle on what is at `path`, symbolic links followed.
    ///
    /// # Errors
    /// `ENOENT` if there is nothing, `EXDEV` if a link leads out.
    pub(super) fn at(&self, path: &Path) -> nix::Result<OwnedFd> {
        let resolve = match self.links {
            Links::InRoot => ResolveFlag::RESOLVE_IN_ROOT,
            Links::Beneath => ResolveFlag::RESOLVE_BENEATH,
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.fd, path, how)
    }

    /// As [`Root::at`]; what is missing is made, all but the last component as directories.
    ///
    /// # Errors
    /// If the path holds `..`, or a component cannot be made or leads out.
    pub(super) fn make(&self, path: &Path, kind: Kind) -> Result<OwnedFd> {
        let mut so_far = PathBuf::from(".");
        let names: Vec<_> = names(path)?;
        let mut here = self.at(&so_far).context("opening the root")?;
        for (at, name) in names.iter().enumerate() {
            so_far.push(name);
            let last = at + 1 == names.len();
            let made = match self.at(&so_far) {
                Err(Errno::ENOENT) => {
                    let made = if last && kind == Kind::File {
                        mknodat(&here, *name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)
                    } else {
                        mkdirat(&here, *name, Mode::from_bits_truncate(0o755))
                    };
                    match made {
                        // Another container of the pod may have made it at the same time.
                        Ok(()) | Err(Errno::EEXIST) => self.at(&so_far),
                        Err(error) => Err(error),
                    }
                }
                found => found,
            };
            here = match made {
                Ok(fd) => fd,
                Err(Errno::EXDEV) => bail!("{} leads out of its root by a symbolic link", path.display()),
                Err(error) => return Err(error).with_context(|| format!("making {}", path.display())),
            };
        }
        Ok(here)
    }
}

fn names(path: &Path) -> Result<Vec<&std::ffi::OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => bail!("{} holds ..", path.display()),
        }
    }
    Ok(names)
}

/// Whether a handle is on a directory.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn is_directory(fd: impl AsFd) -> Result<bool> {
    let mode = fstat(fd).context("looking at a path")?.st_mode;
    Ok(SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// A name for a handle that the calls that want a path take.
pub(super) fn name(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

#[cfg(test)]
#[path = "within_tests.rs"]
mod tests;
