//! The container engine and `kind`, driven by their command lines: what a user types, with the user's own contexts and
//! credentials. Long-running commands end with the future that waits for them.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::sys;

/// Label of everything that we make in the engine; its value is the cluster's name.
pub(super) const LABEL: &str = "io.portolan.e2e.cluster";
/// Label that kind gives to its nodes; its value is the cluster's name.
pub(super) const KIND_LABEL: &str = "io.x-k8s.kind.cluster";
/// Label that kind gives to its nodes; its value is the role.
pub(super) const ROLE_LABEL: &str = "io.x-k8s.kind.role";

/// Runs `docker` to its end and returns what it prints.
///
/// # Errors
/// With the command and what it says.
pub(super) fn docker<A: AsRef<OsStr>>(args: &[A]) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(args).stdin(Stdio::null());
    run(command)
}

/// Tells kind the engine's network; all that it starts inherits it.
const NETWORK: &str = "KIND_EXPERIMENTAL_DOCKER_NETWORK";

/// Runs a command of `kind` that works on a network of the engine to its end, and ends it when the future is dropped: with
/// all it has started. If this process is killed, kind ends too, but not what it has started ([`makers`]).
///
/// # Errors
/// With the command and what it says.
pub(super) async fn run_long(mut command: Command, network: &str) -> Result<String> {
    command.env(NETWORK, network);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // As above; and a group can be ended as a whole.
    command.process_group(0);
    sys::die_with_parent(&mut command);
    let shown = format!("{command:?}");
    let child = tokio::process::Command::from(command).spawn().with_context(|| format!("starting {shown}"))?;
    let mut group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw));
    let output = child.wait_with_output().await.with_context(|| format!("waiting for {shown}"))?;
    group.0 = None;
    said(&shown, output)
}

/// Processes of `kind`, and of what it has started, that work on a network of the engine.
pub(super) fn makers(network: &str) -> Vec<Pid> {
    let mark = format!("{NETWORK}={network}");
    let works = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(works).map(Pid::from_raw).collect()
}

/// `kind` from the environment variable `PORTOLAN_KIND` (which outlives sudo), or from the path.
pub(super) fn kind_command() -> Command {
    let mut command = Command::new(std::env::var_os("PORTOLAN_KIND").unwrap_or_else(|| "kind".into()));
    // It would otherwise choose by what is installed, and we ask Docker.
    command.env("KIND_EXPERIMENTAL_PROVIDER", "docker");
    command
}

/// A process group that is killed when nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself in this moment; then there is nothing to kill.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs a command to its end and returns what it prints.
///
/// # Errors
/// With the command and its standard error.
pub(super) fn run(mut command: Command) -> Result<String> {
    // A Ctrl-C at the terminal is ours to handle; half of what is being done would be left otherwise.
    command.process_group(0);
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    said(&format!("{command:?}"), output)
}

fn said(command: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} {command}: {}", output.status, said.trim().replace('\n', "\n    "));
    }
    String::from_utf8(output.stdout).with_context(|| format!("reading the output of {command}"))
}

/// What the engine knows of a container.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) name: String,
    /// Its first process as the engine's host sees it; 0 if it does not run.
    pub(super) pid: i32,
    /// kind's role, if it is a node.
    pub(super) role: Option<String>,
    /// Address on the network.
    pub(super) address: Option<Ipv4Addr>,
}

/// Containers, looked at in one call.
///
/// # Errors
/// If one of them does not exist.
pub(super) fn containers<A: AsRef<str>>(names: &[A], network: &str) -> Result<Vec<Container>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Seen {
        name: String,
        state: State,
        config: Config,
        network_settings: Networks,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct State {
        pid: i32,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        #[serde(default)]
        labels: std::collections::BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Networks {
        networks: std::collections::BTreeMap<String, Endpoint>,
    }
    #[derive(Deserialize)]
    struct Endpoint {
        #[serde(rename = "IPAddress")]
        address: String,
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut args = vec!["container", "inspect"];
    args.extend(names.iter().map(AsRef::as_ref));
    let seen: Vec<Seen> = serde_json::from_str(&docker(&args)?).context("reading docker container inspect")?;
    Ok(seen
        .into_iter()
        .map(|mut seen| Container {
            name: seen.name.trim_start_matches('/').to_owned(),
            pid: seen.state.pid,
            role: seen.config.labels.remove(ROLE_LABEL),
            address: seen.network_settings.networks.get(network).and_then(|endpoint| endpoint.address.parse().ok()),
        })
        .collect())
}

/// Full ids of all containers, also stopped ones, that match the filters.
///
/// # Errors
/// If the engine does not answer.
pub(super) fn list(filters: &[String]) -> Result<Vec<String>> {
    let mut args = vec!["ps".to_owned(), "--all".into(), "--quiet".into(), "--no-trunc".into()];
    args.extend(filters.iter().flat_map(|filter| ["--filter".to_owned(), filter.clone()]));
    Ok(docker(&args)?.split_whitespace().map(str::to_owned).collect())
}

/// Whether the engine has an image.
pub(super) fn has_image(reference: &str) -> bool {
    docker(&["image", "inspect", "--format", "{{.Id}}", reference]).is_ok()
}

/// Loads an archive into the engine's own store.
///
/// # Errors
/// If the engine refuses it.
pub(super) fn load(archive: &Path) -> Result<()> {
    docker(&[OsStr::new("load"), OsStr::new("--quiet"), OsStr::new("--input"), archive.as_os_str()]).map(|_| ())
}
