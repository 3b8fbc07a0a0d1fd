//! A container: a process in namespaces of its own on an overlay of its image. The kubelet starts `container-init`, which
//! makes the namespaces, hands signals on and waits; `container-init-inner` is PID 1 inside and becomes the program.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::MsFlags;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::DEFAULT_CAPABILITIES;
use crate::cluster::node::{TOOLS, devices};
use crate::sys;

/// How mounts travel between node and container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Propagation {
    /// Not at all.
    None,
    /// From the node to the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A path of the node inside the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) propagation: Propagation,
}

/// Everything that makes a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    /// Root file system of the image, not written to.
    pub(crate) image: PathBuf,
    /// Directory for what the container writes.
    pub(crate) dir: PathBuf,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: u32,
    pub(crate) privileged: bool,
    pub(crate) binds: Vec<Bind>,
}

/// `container-init`: starts PID 1 of the container, hands SIGTERM on, and ends as it ends.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn init(spec: &Path) -> Result<i32> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("container-init-inner").arg(spec);
    sys::die_with_parent(&mut command);
    let mut child = command.spawn().context("starting PID 1 of the container")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        match signals.wait().context("waiting for signals")? {
            Signal::SIGCHLD => {
                if let Some(status) = child.try_wait()? {
                    return Ok(sys::exit_code(status));
                }
            }
            // It may have ended in the meantime; then SIGCHLD comes next.
            signal => drop(kill(pid, signal)),
        }
    }
}

/// `container-init-inner`: as PID 1, makes the root and becomes the program.
///
/// # Errors
/// With what could not be done; the text goes to the container's log.
pub(crate) fn init_inner(path: &Path) -> Result<i32> {
    SigSet::empty().thread_set_mask().context("unblocking signals")?;
    let spec: ContainerSpec = serde_json::from_slice(&fs::read(path)?)?;
    let trees: Vec<(&Bind, OwnedFd)> = spec
        .binds
        .iter()
        .map(|bind| {
            let tree = sys::clone_mount(&bind.source).with_context(|| format!("opening {}", bind.source.display()))?;
            Ok((bind, tree))
        })
        .collect::<Result<_>>()?;
    let tools = sys::clone_mount(Path::new(TOOLS)).context("opening the tools")?;
    sys::mount_at(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_SLAVE, None)?;
    let root = root(&spec)?;
    kernel_file_systems(&root, spec.privileged)?;
    for (bind, tree) in &trees {
        attach(&root, bind, tree)?;
    }
    let tools_dir = root.join(TOOLS.trim_start_matches('/'));
    fs::create_dir_all(&tools_dir)?;
    sys::attach_mount(&tools, &tools_dir).context("attaching the tools")?;
    sys::pivot(&root)?;
    if !spec.privileged {
        sys::keep_capabilities(&DEFAULT_CAPABILITIES).context("dropping capabilities")?;
    }
    std::env::set_current_dir(&spec.cwd).with_context(|| format!("entering {}", spec.cwd.display()))?;
    let program = spec.argv.first().context("neither the pod nor the image names a program")?;
    let mut command = Command::new(program);
    command.args(&spec.argv[1..]).env_clear().envs(&spec.env);
    if spec.user != 0 {
        command.uid(spec.user).gid(spec.user);
    }
    Err(command.exec()).with_context(|| format!("executing {program:?}"))
}

/// An overlay of the image, in which the container may write.
fn root(spec: &ContainerSpec) -> Result<PathBuf> {
    let root = spec.dir.join("root");
    for name in ["root", "upper", "work"] {
        fs::create_dir_all(spec.dir.join(name))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        spec.image.display(),
        spec.dir.join("upper").display(),
        spec.dir.join("work").display()
    );
    sys::mount_at(Some(Path::new("overlay")), &root, Some("overlay"), MsFlags::empty(), Some(&options))?;
    Ok(root)
}

fn kernel_file_systems(root: &Path, privileged: bool) -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for name in ["proc", "sys", "dev", "tmp", "etc", "run"] {
        fs::create_dir_all(root.join(name))?;
    }
    sys::mount_at(Some(Path::new("proc")), &root.join("proc"), Some("proc"), safe, None)?;
    let sysfs = if privileged { safe } else { safe | MsFlags::MS_RDONLY };
    sys::mount_at(Some(Path::new("sysfs")), &root.join("sys"), Some("sysfs"), sysfs, None)?;
    if !privileged {
        for name in ["proc/sys", "proc/sysrq-trigger"] {
            let path = root.join(name);
            if path.exists() {
                sys::bind(&path, &path, true)?;
            }
        }
    }
    devices(&root.join("dev"))
}

fn attach(root: &Path, bind: &Bind, tree: &OwnedFd) -> Result<()> {
    let target = root.join(bind.target.strip_prefix("/").unwrap_or(&bind.target));
    if bind.source.is_dir() {
        fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::File::create(&target).with_context(|| format!("making {}", target.display()))?;
    }
    sys::attach_mount(tree, &target).with_context(|| format!("mounting {}", bind.target.display()))?;
    let propagation = match bind.propagation {
        Propagation::None => Some(MsFlags::MS_PRIVATE),
        Propagation::HostToContainer => Some(MsFlags::MS_SLAVE),
        Propagation::Bidirectional => None,
    };
    if let Some(flag) = propagation {
        sys::mount_at(None, &target, None, flag | MsFlags::MS_REC, None)?;
    }
    if bind.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        sys::mount_at(None, &target, None, flags, None)?;
    }
    Ok(())
}
