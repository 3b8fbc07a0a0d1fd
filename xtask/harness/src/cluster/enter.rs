//! Running a command inside a node, a container, or a host outside: `enter` joins the cgroup first, then the namespaces,
//! because socket LB follows the cgroup.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use super::node::TOOLS;
use crate::sys;

/// Arguments of the internal command `enter`.
#[derive(Debug, clap::Args)]
pub(crate) struct EnterArgs {
    /// Process whose namespaces are entered.
    #[arg(long)]
    pid: i32,
    /// Cgroup to join, as the caller sees it.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Namespaces to enter, in order.
    #[arg(long, value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Keep only the default capabilities of a container.
    #[arg(long)]
    unprivileged: bool,
    /// Directory of this machine where the tools lie that the command names as `/.portolan-tools/NAME`; they need not
    /// exist in the place that is entered.
    #[arg(long)]
    tools: Option<PathBuf>,
    /// Command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    argv: Vec<String>,
}

/// All namespaces of a node or container.
pub(crate) const ALL: &str = "cgroup,ipc,uts,net,pid,mnt";

/// Makes the command line that enters.
pub(crate) fn command(harness: &Path, pid: i32, cgroup: Option<&Path>, namespaces: &str, argv: &[String]) -> Command {
    let mut command = entering(harness, pid, cgroup, namespaces);
    command.arg("--").args(argv);
    command
}

/// Like [`command`], for a place without the tools of the harness: they are opened before it is entered.
pub(crate) fn with_tools(
    harness: &Path,
    pid: i32,
    cgroup: Option<&Path>,
    namespaces: &str,
    tools: &Path,
    argv: &[String],
) -> Command {
    let mut command = entering(harness, pid, cgroup, namespaces);
    command.arg("--tools").arg(tools).arg("--").args(argv);
    command
}

fn entering(harness: &Path, pid: i32, cgroup: Option<&Path>, namespaces: &str) -> Command {
    let mut command = Command::new(harness);
    command.arg("enter").arg("--pid").arg(pid.to_string()).arg("--namespaces").arg(namespaces);
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    command
}

/// The tool that the command names, opened here. Static tools run wherever they are started from.
fn tool(args: &EnterArgs) -> Result<Option<File>> {
    let name = args.argv[0].strip_prefix(TOOLS).and_then(|rest| rest.strip_prefix('/'));
    let (Some(dir), Some(name)) = (&args.tools, name) else { return Ok(None) };
    let path = dir.join(name);
    File::open(&path).map(Some).with_context(|| format!("opening {}", path.display()))
}

/// `enter`.
///
/// # Errors
/// If something cannot be joined, or the command not be started.
pub(crate) fn run(args: &EnterArgs) -> Result<i32> {
    if let Some(cgroup) = &args.cgroup {
        std::fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("joining {}", cgroup.display()))?;
    }
    let tool = tool(args)?;
    // All are opened first: after the mount namespace is entered, /proc is another one.
    let mut opened = Vec::new();
    for name in &args.namespaces {
        opened.push((name.clone(), sys::namespace_of(args.pid, name)?));
    }
    for (name, fd) in opened {
        setns(fd, CloneFlags::empty()).with_context(|| format!("entering the {name} namespace of {}", args.pid))?;
    }
    if args.unprivileged {
        sys::keep_capabilities(&crate::kubelet::DEFAULT_CAPABILITIES).context("dropping capabilities")?;
    }
    let program = match &tool {
        // Resolved when it is executed, before descriptors are closed; every place has /proc.
        Some(file) => format!("/proc/self/fd/{}", file.as_raw_fd()),
        None => args.argv[0].clone(),
    };
    let mut command = Command::new(program);
    command.arg0(&args.argv[0]).args(&args.argv[1..]);
    if args.namespaces.iter().any(|name| name == "pid") {
        // A process stays in its PID namespace; its children are in the one entered.
        sys::die_with_parent(&mut command);
        let status = command.status().with_context(|| format!("starting {}", args.argv[0]))?;
        return Ok(sys::exit_code(status));
    }
    Err(command.exec()).with_context(|| format!("starting {}", args.argv[0]))
}
