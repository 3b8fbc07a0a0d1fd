//! What is a pod's own before and after its containers: namespaces, network, volumes, files; and taking them away again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sched::CloneFlags;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::cni::Cni;
use super::spec::{self, Addresses};
use super::status::Doing;
use super::worker::Ctx;
use super::{PodId, volumes};
use crate::sys;

/// First and longest pause between tries to make the sandbox or the volumes.
const SETUP_PAUSE: Duration = Duration::from_millis(100);
const SETUP_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest pause between tries to take a pod away.
const REMOVE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What containers need of their pod.
pub(super) struct Sandbox {
    /// Process that keeps the pod's namespaces.
    pub(super) holder: i32,
    pub(super) addresses: Addresses,
    /// Where each volume lies on the node.
    pub(super) volumes: BTreeMap<String, PathBuf>,
}

/// Makes the sandbox and the volumes; tries until it works.
pub(super) async fn set_up(ctx: &Arc<Ctx>) -> Sandbox {
    let mut pause = SETUP_PAUSE;
    loop {
        match try_set_up(ctx).await {
            Ok(sandbox) => return sandbox,
            Err(error) => {
                let message = format!("{error:#}");
                ctx.board(|board| {
                    for live in board.init.iter_mut().chain(&mut board.main) {
                        live.doing = Doing::Waiting { reason: "ContainerCreating", message: message.clone() };
                    }
                });
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SETUP_PAUSE_MAX);
    }
}

async fn try_set_up(ctx: &Arc<Ctx>) -> Result<Sandbox> {
    spec::check_supported(&ctx.pod, &ctx.id)?;
    std::fs::create_dir_all(ctx.id.dir())?;
    let holder = match sys::cgroup_pids(&ctx.id.cgroup().join("_sandbox")).first() {
        Some(pid) => *pid,
        None => hold(ctx).await.context("making the sandbox")?,
    };
    let pod_ip = if ctx.host_network() {
        ctx.kubelet.config.node_ip.to_string()
    } else {
        Cni::default().add(&ctx.id).await.context("Failed to create pod sandbox")?.to_string()
    };
    ctx.board(|board| {
        board.pod_ip = Some(pod_ip.clone());
        board.sandbox = true;
    });
    let addresses = Addresses { pod: pod_ip, host: ctx.kubelet.config.node_ip.to_string() };
    let volumes = volumes::prepare(&ctx.kubelet, &ctx.pod, &ctx.id, &addresses).await?;
    files(ctx, &addresses)?;
    let names: Vec<String> = ctx.pod.spec.iter().flat_map(|spec| &spec.containers).map(|c| c.name.clone()).collect();
    std::fs::write(ctx.id.record(), format!("{}\n{}\n", ctx.id.uid, names.join("\n")))?;
    Ok(Sandbox { holder, addresses, volumes })
}

/// The process that keeps the pod's namespaces.
async fn hold(ctx: &Ctx) -> Result<i32> {
    let cgroup = ctx.id.cgroup().join("_sandbox");
    std::fs::create_dir_all(&cgroup)?;
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg("hold").stdin(Stdio::null()).stdout(Stdio::piped());
    let make = if ctx.host_network() {
        CloneFlags::CLONE_NEWIPC
    } else {
        command.arg("--hostname").arg(spec::hostname(&ctx.kubelet, &ctx.pod));
        CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS
    };
    sys::start_within(&mut command, Some(cgroup), Vec::new(), make);
    let mut child = Command::from(command).spawn()?;
    let pid = i32::try_from(child.id().context("the sandbox process ended at once")?)?;
    let mut said = [0];
    child.stdout.take().context("no pipe")?.read_exact(&mut said).await.context("the sandbox process ended at once")?;
    // It is reaped when its end is waited for.
    tokio::spawn(async move { child.wait().await });
    if !ctx.host_network() {
        let path = ctx.id.netns();
        sys::bind(format!("/proc/{pid}/ns/net").as_ref(), &path, false)?;
    }
    Ok(pid)
}

/// Files that a kubelet puts into every container.
fn files(ctx: &Ctx, addresses: &Addresses) -> Result<()> {
    let name = spec::hostname(&ctx.kubelet, &ctx.pod);
    let dir = ctx.id.dir();
    let hosts = if ctx.host_network() {
        std::fs::read_to_string("/etc/hosts")?
    } else {
        format!("127.0.0.1\tlocalhost\n{}\t{name}\n", addresses.pod)
    };
    std::fs::write(dir.join("hosts"), hosts)?;
    std::fs::write(dir.join("hostname"), format!("{name}\n"))?;
    std::fs::write(dir.join("resolv.conf"), "")?;
    Ok(())
}

/// Removes everything of the pod from the node. It does not end before all is gone: the pod's address and devices belong to
/// it until DEL has succeeded, and the usual reason that it does not is an agent that comes back.
pub(super) async fn tear_down(ctx: &Ctx) {
    let mut pause = SETUP_PAUSE;
    while let Err(error) = try_tear_down(ctx).await {
        eprintln!("removing pod {}/{}: {error:#}", ctx.id.namespace, ctx.id.name);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REMOVE_PAUSE_MAX);
    }
}

async fn try_tear_down(ctx: &Ctx) -> Result<()> {
    Cni::default().del(&ctx.id).await.context("Failed to destroy network for sandbox")?;
    let id = ctx.id.clone();
    tokio::task::spawn_blocking(move || remove(&id)).await?
}

/// Every step of it may have been done before.
fn remove(id: &PodId) -> Result<()> {
    let netns = id.netns();
    if netns.exists() {
        match umount2(&netns, MntFlags::MNT_DETACH) {
            // Nothing is mounted there.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(error) => return Err(error).with_context(|| format!("unmounting {}", netns.display())),
        }
        std::fs::remove_file(&netns).with_context(|| format!("removing {}", netns.display()))?;
    }
    sys::remove_cgroup(&id.cgroup())?;
    if id.record().exists() {
        std::fs::remove_file(id.record()).with_context(|| format!("removing {}", id.record().display()))?;
    }
    if id.dir().exists() {
        std::fs::remove_dir_all(id.dir()).with_context(|| format!("removing {}", id.dir().display()))?;
    }
    Ok(())
}
