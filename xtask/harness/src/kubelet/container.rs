//! A container: a process in namespaces of its own on an overlay of its image. The kubelet starts `container-init`, which
//! makes the namespaces, hands signals on and waits; `container-init-inner` is PID 1 inside and starts the program.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::mount::MsFlags;
use nix::pty::openpty;
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use super::inside::{self, ExecSpec};
use super::reap;
use super::security::Privileges;
use super::within::{self, Kind, Links, Root};
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
    /// Part of the source, made if it is missing; a link in it may not lead out of the source.
    pub(crate) sub_path: Option<PathBuf>,
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
    pub(crate) privileges: Privileges,
    /// Whether the kernel's file systems may be written to.
    pub(crate) privileged: bool,
    /// Whether the root is read-only; volumes are not.
    pub(crate) read_only: bool,
    pub(crate) stdin: Stdin,
    pub(crate) binds: Vec<Bind>,
}

/// What a program reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stdin {
    /// Nothing.
    Null,
    /// What attached clients type.
    Pipe,
    /// A terminal, to which it writes as well.
    Terminal,
}

/// What `container-init` is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Start a container.
    Run(ContainerSpec),
    /// Run a command in one.
    Exec(ExecSpec),
}

impl Task {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))
    }
}

/// `container-init`: starts PID 1 of the container, hands SIGTERM on, and ends as it ends; or runs a command in a container,
/// after which its file is of no use.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn init(spec: &Path) -> Result<i32> {
    if let Task::Exec(exec) = Task::read(spec)? {
        fs::remove_file(spec).with_context(|| format!("removing {}", spec.display()))?;
        return inside::run(&exec);
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg("container-init-inner").arg(spec);
    sys::die_with_parent(&mut command);
    reap::run(&mut command, || {}).context("running PID 1 of the container")
}

/// `container-init-inner`: as PID 1, makes the root, takes on what the program may do and starts it, hands signals on and
/// reaps orphans. The program itself is not PID 1, as in a pod with a shared PID namespace: a signal that it does not
/// handle ends it.
///
/// # Errors
/// With what could not be done; the text goes to the container's log.
pub(crate) fn init_inner(path: &Path) -> Result<i32> {
    let Task::Run(spec) = Task::read(path)? else { bail!("{} starts no container", path.display()) };
    let trees: Vec<(&Bind, OwnedFd)> =
        spec.binds.iter().map(|bind| Ok((bind, open_tree(bind)?))).collect::<Result<_>>()?;
    let tools = sys::clone_mount(Path::new(TOOLS)).context("opening the tools")?;
    sys::mount_at(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_SLAVE, None)?;
    let root = root(&spec)?;
    kernel_file_systems(&root, spec.privileged)?;
    sys::pivot(&root)?;
    let inside = Root::open(Path::new("/"), Links::InRoot)?;
    for (bind, tree) in &trees {
        attach(&inside, bind, tree).with_context(|| format!("mounting {}", bind.target.display()))?;
    }
    let tools_dir = inside.make(Path::new(TOOLS), Kind::Directory)?;
    sys::attach_mount(&tools, &within::name(&tools_dir).join(".")).context("attaching the tools")?;
    drop((trees, inside, tools, tools_dir));
    fs::create_dir_all(&spec.cwd).with_context(|| format!("making {}", spec.cwd.display()))?;
    if spec.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        sys::mount_at(None, Path::new("/"), None, flags, None)?;
    }
    let program = spec.argv.first().context("neither the pod nor the image names a program")?;
    let mut command = Command::new(program);
    command.args(&spec.argv[1..]).env_clear().envs(&spec.env);
    let other_end = standard_streams(&spec, &mut command)?;
    spec.privileges.take()?;
    std::env::set_current_dir(&spec.cwd).with_context(|| format!("entering {}", spec.cwd.display()))?;
    reap::run(&mut command, || {
        // The kubelet waits for it at the other end of standard input; if it has gone, so will this container.
        let _ = sys::send(std::io::stdin(), other_end.as_ref());
        drop(other_end);
    })
}

/// Gives the program its standard input, and on a terminal its output too; returns the other end, which is the kubelet's.
fn standard_streams(spec: &ContainerSpec, command: &mut Command) -> Result<Option<OwnedFd>> {
    match spec.stdin {
        Stdin::Null => {
            command.stdin(Stdio::null());
            Ok(None)
        }
        Stdin::Pipe => {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context("a pipe for standard input")?;
            command.stdin(read);
            Ok(Some(write))
        }
        Stdin::Terminal => {
            let pair = openpty(None, None).context("opening a terminal; is /dev/ptmx there?")?;
            for side in [&pair.master, &pair.slave] {
                fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context("the terminal")?;
            }
            // It may be opened by its name, too.
            let user = Uid::from_raw(spec.privileges.user);
            nix::unistd::fchown(&pair.slave, Some(user), None).context("the owner of the terminal")?;
            let side = || pair.slave.try_clone().context("the terminal");
            command.stdin(side()?).stdout(side()?).stderr(side()?);
            sys::lead_terminal(command);
            Ok(Some(pair.master))
        }
    }
}

/// The tree of the node that is to be bound.
fn open_tree(bind: &Bind) -> Result<OwnedFd> {
    let Some(sub) = &bind.sub_path else {
        return sys::clone_mount(&bind.source).with_context(|| format!("opening {}", bind.source.display()));
    };
    let volume = Root::open(&bind.source, Links::Beneath)?;
    let inner = volume
        .make(sub, Kind::Directory)
        .with_context(|| format!("subPath {} of the volume at {}", sub.display(), bind.source.display()))?;
    sys::clone_mount(&within::name(&inner)).with_context(|| format!("opening subPath {}", sub.display()))
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

/// Attaches a tree within the container's root, to which all symbolic links on the way are confined.
fn attach(root: &Root, bind: &Bind, tree: &OwnedFd) -> Result<()> {
    if within::is_directory(tree)? {
        let target = root.make(&bind.target, Kind::Directory)?;
        sys::attach_mount(tree, &within::name(&target).join("."))?;
    } else {
        // The last name of a file is not followed, so a link there does not lead anywhere.
        let parent = bind.target.parent().context("a file cannot be mounted at /")?;
        root.make(&bind.target, Kind::File)?;
        let parent = root.make(parent, Kind::Directory)?;
        sys::attach_mount(tree, &within::name(&parent).join(bind.target.file_name().context("no file name")?))?;
    }
    // What is there now is the mount, no longer what it covers.
    let mounted = root.at(&bind.target)?;
    let target = within::name(&mounted);
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
