//! Attaching: a pinned link per program and place, whose program is replaced in one step when an agent starts.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{CgroupAttachMode, LinkOrder, TcAttachType};
use aya::sys::SyscallError;

use super::programs::Programs;
use crate::sys::bpf::{self, LinkTarget};

/// File name of a pinned link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName(pub String);

/// What a program is attached to.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A device, in one direction.
    Device(String, TcAttachType),
    /// A cgroup, by its directory.
    Cgroup(PathBuf),
}

impl Place {
    /// Attaches the program here, or replaces the program of the link that is pinned for it.
    ///
    /// # Errors
    /// If the device or cgroup is gone, or the kernel refuses.
    pub(super) fn attach(&self, programs: &mut Programs, pins: &Path, program: &str) -> Result<()> {
        match self {
            Self::Device(device, direction) => attach_tcx(programs, pins, program, device, *direction)
                .with_context(|| format!("attaching {program} to {device}")),
            Self::Cgroup(dir) => attach_cgroup(programs, pins, program, dir)
                .with_context(|| format!("attaching {program} to {}", dir.display())),
        }
    }

    /// File name of the link of that program here.
    pub(super) fn link(&self, program: &str) -> LinkName {
        match self {
            Self::Device(device, _) => LinkName::device(program, device),
            Self::Cgroup(_) => LinkName::cgroup(program),
        }
    }

    /// Whether a link should be here and is not: its pin was removed, or it was detached, or it holds on to a former
    /// device of this name. A device that is not there at all takes its links with it, and misses none.
    ///
    /// # Errors
    /// If the pin cannot be looked at.
    pub(super) fn misses(&self, pins: &Path, program: &str) -> Result<bool> {
        let index = match self {
            Self::Device(device, _) => match nix::net::if_::if_nametoindex(device.as_str()) {
                Ok(index) => Some(index),
                Err(_) => return Ok(false),
            },
            Self::Cgroup(_) => None,
        };
        let path = pins.join("links").join(self.link(program).0);
        let link = match bpf::obj_get(&path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error).with_context(|| format!("opening the pinned link {}", path.display())),
        };
        let target = bpf::link_target(link.as_fd()).with_context(|| format!("looking at {}", path.display()))?;
        Ok(match target {
            LinkTarget::Tcx(attached) => index != Some(attached),
            LinkTarget::Cgroup(id) => index.is_some() || id == 0,
            LinkTarget::Other(_) => true,
        })
    }
}

impl LinkName {
    /// Of a program at a device.
    #[must_use]
    pub fn device(program: &str, device: &str) -> Self {
        Self(format!("{program}@{}", device.replace('.', "_")))
    }

    /// Of a program at the node's cgroup.
    #[must_use]
    pub fn cgroup(program: &str) -> Self {
        Self(format!("{program}@cgroup"))
    }
}

fn pinned(path: &Path) -> Result<Option<PinnedLink>> {
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(link)),
        Err(LinkError::SyscallError(SyscallError { io_error, .. })) if io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("opening the pinned link {}", path.display())),
    }
}

/// Attaches by TCX, or replaces the program of the pinned link.
fn attach_tcx(
    programs: &mut Programs,
    pins: &Path,
    program: &str,
    device: &str,
    direction: TcAttachType,
) -> Result<()> {
    let path = pins.join("links").join(LinkName::device(program, device).0);
    let program = programs.classifier(program)?;
    if let Some(link) = pinned(&path)? {
        let link: SchedClassifierLink = FdLink::from(link).try_into()?;
        match program.attach_to_link(link) {
            Ok(id) => return keep(program.take_link(id)?.try_into()?),
            // The device that the link was attached to is gone, and another one has its name.
            Err(error) => tracing::info!(path = %path.display(), %error, "attaching anew"),
        }
        std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(device, direction, options).context("TCX needs Linux 6.6")?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(&path).with_context(|| format!("pinning {}", path.display()))?;
    Ok(())
}

/// A pinned link lives by its pin; our handle on it may close.
fn keep(link: FdLink) -> Result<()> {
    drop(link);
    Ok(())
}

/// Attaches to a cgroup, or replaces the program of the pinned link.
fn attach_cgroup(programs: &mut Programs, pins: &Path, name: &str, cgroup: &Path) -> Result<()> {
    let path = pins.join("links").join(LinkName::cgroup(name).0);
    let program = programs.sock_addr(name)?;
    match bpf::obj_get(&path) {
        Ok(link) => match bpf::link_update(link.as_fd(), program.fd()?.as_fd()) {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::info!(path = %path.display(), %error, "attaching anew");
                std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("opening the pinned link {}", path.display())),
    }
    let dir = std::fs::File::open(cgroup).with_context(|| format!("opening {}", cgroup.display()))?;
    // A cgroup link is implicitly "multi": other programs on the same cgroup run too.
    let id = program.attach(dir, CgroupAttachMode::Single)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(&path).with_context(|| format!("pinning {}", path.display()))?;
    Ok(())
}

/// Removes a pinned link, which detaches its program; one that is not there is no error.
pub(super) fn unpin(pins: &Path, name: &LinkName) -> Result<()> {
    let path = pins.join("links").join(&name.0);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => bail!("removing {}: {error}", path.display()),
    }
}
