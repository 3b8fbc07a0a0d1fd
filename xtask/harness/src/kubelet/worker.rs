//! One pod: sandbox, init containers, containers with their restarts, and the end.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use nix::sched::CloneFlags;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};

use super::container::{Bind, ContainerSpec, Propagation};
use super::node::now;
use super::probes::{self, Target};
use super::sandbox::{Sandbox, set_up, tear_down};
use super::spec;
use super::status::{Board, Doing, Ended, Live};
use super::{Kubelet, PodId};
use crate::{image, sys};

/// First and longest pause before a container is started again, and how long it must run for the pause to be forgotten
/// (all as the real kubelet).
const BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
const BACKOFF_RESET: Duration = Duration::from_secs(600);

/// What the parts of one pod share.
pub(super) struct Ctx {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) pod: Pod,
    pub(super) id: PodId,
    board: Mutex<Board>,
    changed: Notify,
    stop: watch::Sender<Option<Duration>>,
}

impl Ctx {
    pub(super) fn board<T>(&self, change: impl FnOnce(&mut Board) -> T) -> T {
        let done = change(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
        done
    }

    fn live<T>(&self, init: bool, at: usize, change: impl FnOnce(&mut Live) -> T) -> T {
        self.board(|board| change(if init { &mut board.init[at] } else { &mut board.main[at] }))
    }

    pub(super) fn host_network(&self) -> bool {
        self.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
    }
}

/// Runs a pod until it is deleted.
pub(super) async fn run(kubelet: Arc<Kubelet>, mut newest: watch::Receiver<Option<Pod>>) {
    let Some(pod) = newest.borrow().clone() else { return };
    let id = PodId::of(&pod);
    let containers = |list: Option<&Vec<Container>>| -> Vec<Live> {
        let live = |c: &Container| Live::new(&c.name, c.image.as_deref().unwrap_or_default(), "ContainerCreating");
        list.into_iter().flatten().map(live).collect()
    };
    let spec = pod.spec.clone().unwrap_or_default();
    let board = Board {
        init: containers(spec.init_containers.as_ref()),
        main: containers(Some(&spec.containers)),
        pod_ip: None,
        host_ip: kubelet.config.node_ip.to_string(),
        started: now(),
        sandbox: false,
        restart_policy: spec.restart_policy.clone().unwrap_or_else(|| "Always".into()),
        conditions: Vec::new(),
    };
    let (stop, _) = watch::channel(None);
    let ctx = Arc::new(Ctx { kubelet, pod, id, board: Mutex::new(board), changed: Notify::new(), stop });
    let writer = tokio::spawn(write_status(ctx.clone()));
    let life = tokio::spawn(live(ctx.clone()));
    let grace = loop {
        let seen = newest.borrow_and_update().clone();
        match seen {
            None => break Duration::ZERO,
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => {
                let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
                break Duration::from_secs(seconds.max(0).unsigned_abs());
            }
            Some(_) => {}
        }
        if newest.changed().await.is_err() {
            break Duration::ZERO;
        }
    };
    ctx.stop.send_replace(Some(grace));
    if let Err(error) = life.await {
        eprintln!("pod {}/{}: {error}", ctx.id.namespace, ctx.id.name);
    }
    writer.abort();
    tear_down(&ctx).await;
    remove_object(&ctx).await;
}

async fn write_status(ctx: Arc<Ctx>) {
    let api = Api::<Pod>::namespaced(ctx.kubelet.client.clone(), &ctx.id.namespace);
    loop {
        let status = ctx.board.lock().unwrap_or_else(PoisonError::into_inner).document(&ctx.id.uid);
        let body = json!({"metadata": {"uid": ctx.id.uid}, "status": status});
        match api.patch_status(&ctx.id.name, &PatchParams::default(), &Patch::Strategic(&body)).await {
            Ok(_) => ctx.changed.notified().await,
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => return,
            Err(error) => {
                eprintln!("writing the status of pod {}/{}: {error}", ctx.id.namespace, ctx.id.name);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

/// From nothing to the end of all containers.
async fn live(ctx: Arc<Ctx>) {
    let mut stopped = ctx.stop.subscribe();
    let ready = tokio::select! {
        ready = set_up(&ctx) => ready,
        _ = stopped.wait_for(Option::is_some) => return,
    };
    let spec = ctx.pod.spec.clone().unwrap_or_default();
    for (at, container) in spec.init_containers.iter().flatten().enumerate() {
        if !run_container(&ctx, &ready, container, true, at).await {
            return;
        }
    }
    let ready = Arc::new(ready);
    let mut mains = tokio::task::JoinSet::new();
    for (at, container) in spec.containers.into_iter().enumerate() {
        let (ctx, ready) = (ctx.clone(), ready.clone());
        mains.spawn(async move { run_container(&ctx, &ready, &container, false, at).await });
    }
    mains.join_all().await;
}

/// Runs a container with its restarts; `true` if it ended well and is not to run again.
fn run_container<'a>(
    ctx: &'a Arc<Ctx>,
    sandbox: &'a Sandbox,
    container: &'a Container,
    init: bool,
    at: usize,
) -> BoxFuture<'a, bool> {
    restart(ctx, sandbox, container, init, at).boxed()
}

async fn restart(ctx: &Arc<Ctx>, sandbox: &Sandbox, container: &Container, init: bool, at: usize) -> bool {
    let mut stopped = ctx.stop.subscribe();
    let mut pause = BACKOFF;
    loop {
        let began = Instant::now();
        let code = match start(ctx, sandbox, container, init, at).await {
            Ok(child) => attend(ctx, sandbox, container, child, init, at).await,
            Err(error) => {
                let message = format!("{error:#}");
                let reason =
                    if message.contains("is not present") { "ErrImageNeverPull" } else { "CreateContainerError" };
                ctx.live(init, at, |live| live.doing = Doing::Waiting { reason, message });
                None
            }
        };
        if stopped.borrow().is_some() {
            return false;
        }
        let policy = ctx.board.lock().unwrap_or_else(PoisonError::into_inner).restart_policy.clone();
        match code {
            Some(0) if init || policy != "Always" => return true,
            Some(_) if policy == "Never" => return false,
            _ => {}
        }
        if began.elapsed() > BACKOFF_RESET {
            pause = BACKOFF;
        }
        if code.is_some() {
            ctx.live(init, at, |live| {
                if let Doing::Ended(how) = &live.doing {
                    live.last = Some(how.clone());
                }
                let message = format!("back-off {}s restarting failed container={}", pause.as_secs(), live.name);
                // The first restart of a container comes at once.
                if live.restarts > 0 {
                    live.doing = Doing::Waiting { reason: "CrashLoopBackOff", message };
                }
            });
        }
        let first = code.is_some() && ctx.live(init, at, |live| live.restarts == 0);
        if !first {
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF_MAX),
                _ = stopped.wait_for(Option::is_some) => return false,
            }
        }
        if code.is_some() {
            ctx.live(init, at, |live| live.restarts += 1);
        }
    }
}

async fn start(ctx: &Ctx, sandbox: &Sandbox, container: &Container, init: bool, at: usize) -> Result<Child> {
    let image = image::find(crate::cluster::node::IMAGES.as_ref(), container.image.as_deref().unwrap_or_default())?;
    let env = spec::environment(&ctx.kubelet, &ctx.pod, container, &image, &sandbox.addresses).await?;
    let argv = spec::argv(container, &image, &env);
    let restarts = ctx.live(init, at, |live| live.restarts);
    let dir = ctx.id.dir().join("containers").join(&container.name).join(restarts.to_string());
    std::fs::create_dir_all(&dir)?;
    let security = container.security_context.as_ref();
    let spec = ContainerSpec {
        image: image.rootfs.clone(),
        dir: dir.clone(),
        argv,
        env,
        cwd: container.working_dir.clone().unwrap_or_else(|| "/".into()).into(),
        user: security.and_then(|security| security.run_as_user).and_then(|user| u32::try_from(user).ok()).unwrap_or(0),
        privileged: security.is_some_and(|security| security.privileged == Some(true)),
        binds: binds(ctx, sandbox, container)?,
    };
    let path = dir.join("spec.json");
    std::fs::write(&path, serde_json::to_vec(&spec)?)?;
    let cgroup = ctx.id.cgroup().join(&container.name);
    std::fs::create_dir_all(&cgroup)?;
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg("container-init").arg(&path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let namespace = |kind: &str| sys::namespace_of(sandbox.holder, kind);
    let enter = vec![
        (namespace("net")?, CloneFlags::CLONE_NEWNET),
        (namespace("ipc")?, CloneFlags::CLONE_NEWIPC),
        (namespace("uts")?, CloneFlags::CLONE_NEWUTS),
    ];
    sys::start_within(&mut command, Some(cgroup), enter, CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID);
    let mut child = Command::from(command).spawn().context("starting the container")?;
    let logs = ctx.id.log_dir(&container.name);
    std::fs::create_dir_all(&logs)?;
    let file = std::fs::File::options().create(true).append(true).open(logs.join(format!("{restarts}.log")))?;
    if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
        tokio::spawn(log("stdout", stdout, tokio::fs::File::from_std(file.try_clone()?)));
        tokio::spawn(log("stderr", stderr, tokio::fs::File::from_std(file)));
    }
    Ok(child)
}

fn binds(ctx: &Ctx, sandbox: &Sandbox, container: &Container) -> Result<Vec<Bind>> {
    let mut binds: Vec<Bind> = ["hosts", "hostname", "resolv.conf"]
        .iter()
        .map(|name| Bind {
            source: ctx.id.dir().join(name),
            sub_path: None,
            target: format!("/etc/{name}").into(),
            read_only: false,
            propagation: Propagation::None,
        })
        .collect();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = sandbox.volumes.get(&mount.name).with_context(|| {
            format!("container {} mounts volume {:?}, which the pod does not have", container.name, mount.name)
        })?;
        binds.push(Bind {
            source: volume.clone(),
            sub_path: mount.sub_path.as_ref().filter(|sub| !sub.is_empty()).map(Into::into),
            target: mount.mount_path.clone().into(),
            read_only: mount.read_only == Some(true),
            propagation: match mount.mount_propagation.as_deref() {
                Some("Bidirectional") => Propagation::Bidirectional,
                Some("HostToContainer") => Propagation::HostToContainer,
                _ => Propagation::None,
            },
        });
    }
    Ok(binds)
}

/// Copies a stream into the log file in the format of the CRI.
async fn log(stream: &'static str, from: impl tokio::io::AsyncRead + Unpin, mut to: tokio::fs::File) {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut entry = format!("{:.9} {stream} F ", k8s_openapi::jiff::Timestamp::now()).into_bytes();
        entry.extend_from_slice(&line);
        if !entry.ends_with(b"\n") {
            entry.push(b'\n');
        }
        if to.write_all(&entry).await.and(to.flush().await).is_err() {
            return;
        }
    }
}

/// Watches a running container until it ends, by itself, by a failed liveness probe, or because the pod goes.
async fn attend(
    ctx: &Arc<Ctx>,
    sandbox: &Sandbox,
    container: &Container,
    mut child: Child,
    init: bool,
    at: usize,
) -> Option<i32> {
    let started = now();
    let gated = container.startup_probe.is_some();
    let by_probe = container.readiness_probe.is_some();
    ctx.live(init, at, |live| {
        live.doing = Doing::Running { started: started.clone() };
        live.started = !gated;
        live.ready = !init && !gated && !by_probe;
    });
    let mut stopped = ctx.stop.subscribe();
    let target = Target { id: ctx.id.clone(), container: container.clone(), address: sandbox.addresses.pod.clone() };
    let status = {
        let mut probing = probe(ctx, &target, init, at).boxed();
        tokio::select! {
            status = child.wait() => Some(status),
            () = &mut probing, if !init => None,
            _ = stopped.wait_for(Option::is_some) => None,
        }
    };
    let status = match status {
        Some(status) => status,
        None => {
            let grace = (*ctx.stop.borrow()).unwrap_or_else(|| {
                let seconds =
                    ctx.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
                Duration::from_secs(seconds.max(0).unsigned_abs())
            });
            end(ctx, &mut child, container, grace).await
        }
    };
    let code = status.map(sys::exit_code).unwrap_or(255);
    ctx.live(init, at, |live| {
        live.ready = false;
        live.started = false;
        live.doing = Doing::Ended(Ended { code, started, finished: now() });
    });
    Some(code)
}

/// Probes until the liveness (or startup) probe says that the container must go.
async fn probe(ctx: &Arc<Ctx>, target: &Target, init: bool, at: usize) {
    let container = &target.container;
    if let Some(startup) = &container.startup_probe {
        let mut passed = false;
        probes::watch(target, startup, |good, _| {
            passed = good;
            true
        })
        .await;
        if !passed {
            return;
        }
        ctx.live(init, at, |live| {
            live.started = true;
            live.ready = container.readiness_probe.is_none();
        });
    }
    let readiness = async {
        match &container.readiness_probe {
            Some(probe) => {
                probes::watch(target, probe, |good, message| {
                    let before = ctx.board.lock().unwrap_or_else(PoisonError::into_inner).main[at].ready;
                    if before != good {
                        eprintln!("pod {}: readiness of {} is {good} {message}", ctx.id.name, container.name);
                        ctx.live(init, at, |live| live.ready = good);
                    }
                    false
                })
                .await;
            }
            None => std::future::pending().await,
        }
    };
    let liveness = async {
        match &container.liveness_probe {
            Some(probe) => probes::watch(target, probe, |good, _| !good).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = readiness => {}
        () = liveness => {}
    }
}

/// SIGTERM, grace, SIGKILL for the whole cgroup.
async fn end(
    ctx: &Ctx,
    child: &mut Child,
    container: &Container,
    grace: Duration,
) -> std::io::Result<std::process::ExitStatus> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended in the meantime, and is waited for next.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
    if let Ok(status) = tokio::time::timeout(grace, child.wait()).await {
        return status;
    }
    std::fs::write(ctx.id.cgroup().join(&container.name).join("cgroup.kill"), "1")?;
    child.wait().await
}

/// The object goes last, when nothing of the pod runs any more.
async fn remove_object(ctx: &Ctx) {
    let api = Api::<Pod>::namespaced(ctx.kubelet.client.clone(), &ctx.id.namespace);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(ctx.id.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    loop {
        match api.delete(&ctx.id.name, &params).await {
            Ok(_) => return,
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => return,
            Err(error) => eprintln!("deleting pod {}/{}: {error}", ctx.id.namespace, ctx.id.name),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
