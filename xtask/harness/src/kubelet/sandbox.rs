//! What is a pod's own before and after its containers: namespaces, network, volumes, files; and taking them away again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::PodSpec;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sched::CloneFlags;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::PodId;
use super::cni::Cni;
use super::downward::Addresses;
use super::events::Told;
use super::spec;
use super::status::Doing;
use super::supported;
use super::volumes::Volumes;
use super::worker::Ctx;
use crate::sys;

/// First and longest pause between tries to make the sandbox or the volumes.
const SETUP_PAUSE: Duration = Duration::from_millis(100);
const SETUP_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Domain of the cluster.
const DOMAIN: &str = "cluster.local";
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

/// Makes the sandbox and the volumes; tries until it works. A pod that asks for what is not supported stays as it is, and
/// says why.
pub(super) async fn set_up(ctx: &Arc<Ctx>) -> (Sandbox, Volumes) {
    if let Err(error) = supported::check(&ctx.pod) {
        waiting(ctx, "CreateContainerConfigError", &format!("{error:#}"));
        tell(ctx, "Failed", format!("Error: {error:#}"));
        return std::future::pending().await;
    }
    let mut pause = SETUP_PAUSE;
    loop {
        match try_set_up(ctx).await {
            Ok(made) => return made,
            Err((reason, error)) => {
                let message = format!("{error:#}");
                waiting(ctx, "ContainerCreating", &message);
                tell(ctx, reason, message);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SETUP_PAUSE_MAX);
    }
}

fn waiting(ctx: &Ctx, reason: &'static str, message: &str) {
    ctx.board(|board| {
        for live in board.init.iter_mut().chain(&mut board.main) {
            live.doing = Doing::Waiting { reason, message: message.to_owned() };
        }
    });
}

fn tell(ctx: &Ctx, reason: &str, note: String) {
    ctx.kubelet.events.tell(&ctx.pod, Told { warning: true, reason, action: "Creating", note, field: None });
}

/// One try; an error comes with the reason of its event.
async fn try_set_up(ctx: &Arc<Ctx>) -> Result<(Sandbox, Volumes), (&'static str, anyhow::Error)> {
    let sandbox = |error| ("FailedCreatePodSandBox", error);
    std::fs::create_dir_all(ctx.id.dir()).context("making the pod's directory").map_err(sandbox)?;
    let holder = match sys::cgroup_pids(&ctx.id.cgroup().join("_sandbox")).first() {
        Some(pid) => *pid,
        None => hold(ctx).await.context("making the sandbox").map_err(sandbox)?,
    };
    let pod_ip = if ctx.host_network() {
        ctx.kubelet.config.node_ip.to_string()
    } else {
        let cni = Cni::default();
        cni.ready().context("network is not ready").map_err(|error| ("NetworkNotReady", error))?;
        cni.add(&ctx.id).await.context("Failed to create pod sandbox").map_err(sandbox)?.to_string()
    };
    ctx.board(|board| {
        board.pod_ip = Some(pod_ip.clone());
        board.sandbox = true;
    });
    let addresses = Addresses { pod: pod_ip, host: ctx.kubelet.config.node_ip.to_string() };
    let volumes = Volumes::prepare(&ctx.kubelet, &ctx.pod, &ctx.id, &addresses).await;
    let volumes = volumes.map_err(|error| ("FailedMount", error))?;
    files(ctx, &addresses).context("the pod's files").map_err(sandbox)?;
    record(ctx).context("the pod's record").map_err(sandbox)?;
    let paths = volumes.paths();
    Ok((Sandbox { holder, addresses, volumes: paths }, volumes))
}

/// For the harness: the pod's uid and its containers.
fn record(ctx: &Ctx) -> Result<()> {
    let names: Vec<String> = ctx.pod.spec.iter().flat_map(|spec| &spec.containers).map(|c| c.name.clone()).collect();
    let path = ctx.id.record();
    std::fs::write(&path, format!("{}\n{}\n", ctx.id.uid, names.join("\n")))
        .with_context(|| format!("writing {}", path.display()))
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
    let spec = ctx.pod.spec.clone().unwrap_or_default();
    let name = spec::hostname(&ctx.kubelet, &ctx.pod);
    let dir = ctx.id.dir();
    let mut hosts = if ctx.host_network() {
        std::fs::read_to_string("/etc/hosts")?
    } else {
        let full = spec.subdomain.as_deref().filter(|text| !text.is_empty());
        let full = full.map(|subdomain| format!("{name}.{subdomain}.{}.svc.{DOMAIN}\t", ctx.id.namespace));
        format!("127.0.0.1\tlocalhost\n{}\t{}{name}\n", addresses.pod, full.unwrap_or_default())
    };
    for alias in spec.host_aliases.iter().flatten() {
        hosts.push_str(&format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t")
        ));
    }
    std::fs::write(dir.join("hosts"), hosts)?;
    std::fs::write(dir.join("hostname"), format!("{name}\n"))?;
    std::fs::write(dir.join("resolv.conf"), resolv_conf(&spec))?;
    Ok(())
}

/// What the pod asks for itself: the cluster has no DNS that could be named here.
fn resolv_conf(spec: &PodSpec) -> String {
    let Some(config) = &spec.dns_config else { return String::new() };
    let mut text = String::new();
    for server in config.nameservers.iter().flatten() {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if let Some(searches) = config.searches.as_ref().filter(|list| !list.is_empty()) {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for option in config.options.iter().flatten() {
        let name = option.name.as_deref().unwrap_or_default();
        let value = option.value.as_ref().map(|value| format!(":{value}")).unwrap_or_default();
        text.push_str(&format!("options {name}{value}\n"));
    }
    text
}

/// Removes everything of the pod from the node. It does not end before all is gone: the pod's address and devices belong to
/// it until DEL has succeeded, and the usual reason that it does not is an agent that comes back.
pub(super) async fn tear_down(ctx: &Ctx) {
    let mut pause = SETUP_PAUSE;
    while let Err(error) = try_tear_down(ctx).await {
        eprintln!("removing pod {}/{}: {error:#}", ctx.id.namespace, ctx.id.name);
        let (reason, action, note) = ("FailedKillPod", "Killing", format!("error killing pod: {error:#}"));
        ctx.kubelet.events.tell(&ctx.pod, Told { warning: true, reason, action, note, field: None });
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
    for entry in std::fs::read_dir(id.dir().join("volumes")).into_iter().flatten() {
        let path = entry?.path();
        // An emptyDir in memory is a mount of its own.
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(error) => return Err(error).with_context(|| format!("unmounting {}", path.display())),
        }
    }
    if id.dir().exists() {
        std::fs::remove_dir_all(id.dir()).with_context(|| format!("removing {}", id.dir().display()))?;
    }
    Ok(())
}
