//! `container-init` for a command in a container that runs: joins its cgroup and namespaces, takes on what the container
//! may do, and runs the command there.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setsid, tcsetpgrp};
use serde::{Deserialize, Serialize};

use super::security::Privileges;
use crate::sys;

/// Exit code for a command that cannot be started, as of shells and container runtimes.
const NOT_STARTED: i32 = 126;

/// A command in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExecSpec {
    /// PID 1 of the container.
    pub(crate) pid: i32,
    pub(crate) cgroup: PathBuf,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: PathBuf,
    pub(crate) privileges: Privileges,
    /// Standard input is a terminal of the container, to be the controlling one.
    pub(crate) terminal: bool,
}

/// Runs the command and returns its exit code.
///
/// # Errors
/// If the container cannot be entered.
pub(super) fn run(spec: &ExecSpec) -> Result<i32> {
    std::fs::write(spec.cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("joining {}", spec.cgroup.display()))?;
    if spec.terminal {
        control_terminal().context("taking the terminal")?;
    }
    // All are opened first: after the mount namespace is entered, /proc is another one.
    let names = ["ipc", "uts", "net", "pid", "mnt"];
    let opened = names.map(|name| (name, sys::namespace_of(spec.pid, name)));
    for (name, fd) in opened {
        setns(fd?, CloneFlags::empty()).with_context(|| format!("entering the {name} namespace of {}", spec.pid))?;
    }
    spec.privileges.take()?;
    std::env::set_current_dir(&spec.cwd).with_context(|| format!("entering {}", spec.cwd.display()))?;
    let program = spec.argv.first().context("no command")?;
    let mut command = Command::new(program);
    command.args(&spec.argv[1..]).env_clear().envs(&spec.env);
    // A process stays in its PID namespace; its children are in the one entered.
    sys::die_with_parent(&mut command);
    if spec.terminal {
        // The group of this process is none in the container: a shell could not give the terminal back to it.
        command.process_group(0);
    }
    match command.spawn() {
        Ok(child) if spec.terminal => foreground(Pid::from_raw(i32::try_from(child.id())?)),
        Ok(mut child) => Ok(sys::exit_code(child.wait()?)),
        Err(error) => {
            eprintln!("exec: {program:?}: {error}");
            Ok(NOT_STARTED)
        }
    }
}

/// Makes the child's group that of the terminal and waits for the child. One that looked at the terminal too early has been
/// stopped, and nobody else would ever continue it.
fn foreground(child: Pid) -> Result<i32> {
    tcsetpgrp(std::io::stdin(), child).context("giving the terminal to the command")?;
    kill(child, Signal::SIGCONT).context("continuing the command")?;
    loop {
        match waitpid(child, Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(WaitStatus::Stopped(..)) => kill(child, Signal::SIGCONT).context("continuing the command")?,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for the command"),
        }
    }
}

/// The first terminal that the leader of a session opens is the session's.
fn control_terminal() -> Result<()> {
    setsid()?;
    let terminal = open("/proc/self/fd/0", OFlag::O_RDWR, Mode::empty())?;
    dup2_stdin(&terminal)?;
    dup2_stdout(&terminal)?;
    dup2_stderr(&terminal)?;
    Ok(())
}
