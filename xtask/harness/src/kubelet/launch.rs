//! Starting a container: from the pod's words to a process.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Container;
use nix::sched::CloneFlags;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::PodId;
use super::attach::{self, Shown, Source};
use super::container::{Bind, ContainerSpec, Propagation, Stdin, Task};
use super::lifecycle::Unit;
use super::logs::{self, Log};
use super::sandbox::Sandbox;
use super::security::Privileges;
use super::spec::{self, Environment};
use crate::{image, sys};

/// Longest time until a container's program has been started.
const BEGIN: Duration = Duration::from_secs(60);

/// Why a container waits instead of running.
pub(super) struct Refusal {
    /// As Kubernetes names it.
    pub(super) reason: &'static str,
    pub(super) error: anyhow::Error,
}

/// A container that runs.
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) log: PathBuf,
    /// What the program may leave as its last message.
    pub(super) message: PathBuf,
}

/// Where the description of a container's newest run lies.
pub(super) fn current(id: &PodId, container: &str) -> PathBuf {
    id.dir().join("containers").join(container).join("current.json")
}

/// Starts a container.
///
/// # Errors
/// With the reason to be shown.
pub(super) async fn start(unit: &Unit, run: u32) -> Result<Launched, Refusal> {
    let config = |error| Refusal { reason: "CreateContainerConfigError", error };
    let container = &unit.container;
    let reference = container.image.as_deref().unwrap_or_default();
    let image = image::find(crate::cluster::node::IMAGES.as_ref(), reference).map_err(|error| Refusal {
        reason: if container.image_pull_policy.as_deref() == Some("Never") {
            "ErrImageNeverPull"
        } else {
            "ErrImagePull"
        },
        error,
    })?;
    let task = describe(unit, &image, run).await.map_err(config)?;
    unit.tell(false, "Pulled", "Pulling", format!("Container image {reference:?} already present on machine"));
    unit.tell(false, "Created", "Creating", format!("Created container: {}", container.name));
    let failed = |error| Refusal { reason: "RunContainerError", error };
    let Started { mut child, begun, log } = spawn(unit, &task, run).map_err(failed)?;
    // Its end without a word is for the one who waits for it: the log says what was wrong.
    let sent = tokio::time::timeout(BEGIN, begun.async_io(Interest::READABLE, || sys::receive(&begun))).await;
    let sent = sent
        .context("the container's program did not begin in time")
        .map_err(failed)?
        .map_err(|error| failed(error.into()))?;
    output(unit, &mut child, sent, &log).map_err(failed)?;
    unit.tell(false, "Started", "Starting", format!("Started container {}", container.name));
    Ok(Launched { child, log, message: task.dir.join("termination-log") })
}

/// Copies what the program writes into its log, and shows it to those who attach. Until this is called, it waits in pipes.
fn output(unit: &Unit, child: &mut Child, sent: Option<OwnedFd>, log: &Path) -> Result<()> {
    let container = &unit.container;
    let (tty, once) = (container.tty == Some(true), container.stdin_once == Some(true));
    let (input, terminal) = match sent {
        Some(sent) => {
            let (input, terminal) = attach::input(sent, tty, once)?;
            (Some(input), terminal)
        }
        None => (None, None),
    };
    let writer = Arc::new(Mutex::new(Log::open(log.to_owned())?));
    let stdio = unit.ctx.kubelet.running.add(&unit.ctx.id, &container.name, input);
    if let Some(terminal) = terminal {
        tokio::spawn(logs::copy("stdout", Shown::new(terminal, Source::Out, stdio.clone()), writer.clone()));
    }
    if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
        tokio::spawn(logs::copy("stdout", Shown::new(stdout, Source::Out, stdio.clone()), writer.clone()));
        tokio::spawn(logs::copy("stderr", Shown::new(stderr, Source::Err, stdio), writer));
    }
    Ok(())
}

fn directory(id: &PodId, container: &str, run: u32) -> PathBuf {
    id.dir().join("containers").join(container).join(run.to_string())
}

async fn describe(unit: &Unit, image: &image::Image, run: u32) -> Result<ContainerSpec> {
    let (ctx, container) = (&unit.ctx, &unit.container);
    let env = spec::environment(&ctx.kubelet, &ctx.pod, container, image, &unit.sandbox.addresses).await?;
    let dir = directory(&ctx.id, &container.name, run);
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let security = container.security_context.as_ref();
    Ok(ContainerSpec {
        image: image.rootfs.clone(),
        argv: spec::argv(container, image, &env),
        cwd: container.working_dir.clone().filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into()).into(),
        privileges: Privileges::of(&ctx.pod, container)?,
        privileged: security.is_some_and(|security| security.privileged == Some(true)),
        read_only: security.is_some_and(|security| security.read_only_root_filesystem == Some(true)),
        stdin: match (container.stdin, container.tty) {
            (_, Some(true)) => Stdin::Terminal,
            (Some(true), _) => Stdin::Pipe,
            _ => Stdin::Null,
        },
        binds: binds(&ctx.id, &unit.sandbox, container, &env, &dir)?,
        env: variables(container, &env),
        dir,
    })
}

/// The container's variables; on a terminal programs ask for its kind.
fn variables(container: &Container, env: &Environment) -> BTreeMap<String, String> {
    let mut variables = env.merged();
    if container.tty == Some(true) {
        variables.entry("TERM".into()).or_insert_with(|| "xterm".into());
    }
    variables
}

/// A container's process that may not have started its program yet.
struct Started {
    child: Child,
    /// Where it says that the program has been started, for only then can others enter it; and sends the other end of the
    /// program's standard input.
    begun: UnixStream,
    log: PathBuf,
}

fn spawn(unit: &Unit, spec: &ContainerSpec, run: u32) -> Result<Started> {
    let (id, name) = (&unit.ctx.id, &unit.container.name);
    let path = spec.dir.join("spec.json");
    let text = serde_json::to_vec(&Task::Run(spec.clone()))?;
    std::fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
    std::fs::write(current(id, name), &text).context("writing what runs now")?;
    let cgroup = id.cgroup().join(name);
    std::fs::create_dir_all(&cgroup).with_context(|| format!("creating {}", cgroup.display()))?;
    let mut command = std::process::Command::new("/proc/self/exe");
    let (begun, theirs) = std::os::unix::net::UnixStream::pair().context("a pair of sockets")?;
    begun.set_nonblocking(true).context("a pair of sockets")?;
    let begun = UnixStream::from_std(begun).context("a pair of sockets")?;
    command.arg("container-init").arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(Stdio::from(OwnedFd::from(theirs)));
    let namespace = |kind: &str| sys::namespace_of(unit.sandbox.holder, kind);
    let enter = vec![
        (namespace("net")?, CloneFlags::CLONE_NEWNET),
        (namespace("ipc")?, CloneFlags::CLONE_NEWIPC),
        (namespace("uts")?, CloneFlags::CLONE_NEWUTS),
    ];
    sys::start_within(&mut command, Some(cgroup), enter, CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID);
    let dir = id.log_dir(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let log = dir.join(format!("{run}.log"));
    let child = Command::from(command).kill_on_drop(true).spawn().context("starting the container")?;
    Ok(Started { child, begun, log })
}

fn binds(
    id: &PodId,
    sandbox: &Sandbox,
    container: &Container,
    env: &Environment,
    dir: &std::path::Path,
) -> Result<Vec<Bind>> {
    use std::os::unix::fs::PermissionsExt;
    let file = |source: PathBuf, target: PathBuf| Bind {
        source,
        sub_path: None,
        target,
        read_only: false,
        propagation: Propagation::None,
    };
    let mut binds = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = sandbox.volumes.get(&mount.name).with_context(|| {
            format!("container {} mounts volume {:?}, which the pod does not have", container.name, mount.name)
        })?;
        let sub_path = spec::sub_path(mount.sub_path.as_deref(), mount.sub_path_expr.as_deref(), env)
            .with_context(|| format!("mount of volume {:?} in container {}", mount.name, container.name))?;
        binds.push(Bind {
            source: volume.clone(),
            sub_path: sub_path.map(Into::into),
            target: mount.mount_path.clone().into(),
            read_only: mount.read_only == Some(true),
            propagation: match mount.mount_propagation.as_deref() {
                Some("Bidirectional") => Propagation::Bidirectional,
                Some("HostToContainer") => Propagation::HostToContainer,
                _ => Propagation::None,
            },
        });
    }
    for name in ["hosts", "hostname", "resolv.conf"] {
        let target = PathBuf::from("/etc").join(name);
        if !binds.iter().any(|bind| bind.target == target) {
            binds.push(file(id.dir().join(name), target));
        }
    }
    let message = dir.join("termination-log");
    std::fs::write(&message, "").with_context(|| format!("writing {}", message.display()))?;
    std::fs::set_permissions(&message, std::fs::Permissions::from_mode(0o666))?;
    let target = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    binds.push(file(message, target.unwrap_or("/dev/termination-log").into()));
    // What lies in another mount comes after it.
    binds.sort_by_key(|bind| bind.target.components().count());
    Ok(binds)
}
