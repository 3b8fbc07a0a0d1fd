//! One pod: sandbox, init containers, sidecars, containers, and the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::lifecycle::{Kind, Unit};
use super::node::now;
use super::sandbox::{Sandbox, set_up, tear_down};
use super::status::{Board, Doing, Live};
use super::{Kubelet, PodId};

/// Pause after a request that the API server did not take.
const AGAIN: Duration = Duration::from_millis(500);

/// What the parts of one pod share.
pub(super) struct Ctx {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) pod: Pod,
    pub(super) id: PodId,
    board: Mutex<Board>,
    changed: watch::Sender<()>,
    stop: watch::Sender<Option<Instant>>,
}

/// Where a container stands in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Init(usize),
    Main(usize),
}

impl Ctx {
    /// Changes the pod's state, which is told to the API server.
    pub(super) fn board<T>(&self, change: impl FnOnce(&mut Board) -> T) -> T {
        let done = change(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        done
    }

    /// Changes the state of one container.
    pub(super) fn live<T>(&self, place: Place, change: impl FnOnce(&mut Live) -> T) -> T {
        self.board(|board| match place {
            Place::Init(at) => change(&mut board.init[at]),
            Place::Main(at) => change(&mut board.main[at]),
        })
    }

    fn look<T>(&self, look: impl FnOnce(&mut Board) -> T) -> T {
        look(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn host_network(&self) -> bool {
        self.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
    }

    /// Seconds that a container gets for its end.
    pub(super) fn grace_seconds(&self) -> u64 {
        let seconds = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        seconds.max(0).unsigned_abs()
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Runs a pod until it is deleted.
pub(super) async fn run(kubelet: Arc<Kubelet>, mut newest: watch::Receiver<Option<Pod>>) {
    let Some(pod) = newest.borrow().clone() else { return };
    let ctx = Arc::new(context(kubelet, pod));
    let writer = tokio::spawn(write_status(ctx.clone()));
    let mut life = Some(tokio::spawn(live(ctx.clone())));
    loop {
        let deletion = match &*newest.borrow_and_update() {
            None => Some(Duration::ZERO),
            Some(pod) => pod.metadata.deletion_timestamp.as_ref().map(|_| {
                let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
                Duration::from_secs(seconds.max(0).unsigned_abs())
            }),
        };
        if let Some(grace) = deletion {
            // A second deletion may give less time, never more.
            let deadline = Instant::now() + grace;
            ctx.stop.send_if_modified(|stop| {
                let sooner = stop.is_none_or(|before| deadline < before);
                if sooner {
                    *stop = Some(deadline);
                }
                sooner
            });
            if life.is_none() {
                break;
            }
        }
        tokio::select! {
            ended = end_of(&mut life) => {
                if let Err(error) = ended {
                    eprintln!("pod {}/{}: {error}", ctx.id.namespace, ctx.id.name);
                }
                life = None;
                if ctx.stop.borrow().is_some() {
                    break;
                }
                // All have ended for good: nothing of the pod is needed any more but its logs and its status.
                tear_down(&ctx).await;
            }
            changed = newest.changed() => if changed.is_err() {
                ctx.stop.send_replace(Some(Instant::now()));
                break;
            },
        }
    }
    if let Some(life) = life
        && let Err(error) = life.await
    {
        eprintln!("pod {}/{}: {error}", ctx.id.namespace, ctx.id.name);
    }
    tear_down(&ctx).await;
    writer.abort();
    remove_object(&ctx).await;
}

/// The end of a life; none comes after it.
async fn end_of(life: &mut Option<JoinHandle<()>>) -> Result<(), tokio::task::JoinError> {
    match life {
        Some(life) => life.await,
        None => std::future::pending().await,
    }
}

fn context(kubelet: Arc<Kubelet>, pod: Pod) -> Ctx {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let before: Vec<_> =
        status.init_container_statuses.into_iter().chain(status.container_statuses).flatten().collect();
    let containers = |list: Option<&Vec<Container>>| -> Vec<Live> {
        let live = |container: &Container| {
            let image = container.image.as_deref().unwrap_or_default();
            let live =
                Live { sidecar: is_sidecar(container), ..Live::new(&container.name, image, "ContainerCreating") };
            live.after(before.iter().find(|status| status.name == container.name))
        };
        list.into_iter().flatten().map(live).collect()
    };
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
    let id = PodId::of(&pod);
    let (stop, changed) = (watch::Sender::new(None), watch::Sender::new(()));
    Ctx { kubelet, pod, id, board: Mutex::new(board), changed, stop }
}

async fn write_status(ctx: Arc<Ctx>) {
    let mut changes = ctx.changed.subscribe();
    let mut written = None;
    loop {
        changes.mark_unchanged();
        // Most changes are none: a probe says again what it said before.
        let status = ctx.look(|board| board.document(&ctx.id.uid));
        let done = match written.as_ref() == Some(&status) {
            true => Ok(()),
            false => patch_status(&ctx, &status).await,
        };
        match done {
            Ok(()) => {
                written = Some(status);
                if changes.changed().await.is_err() {
                    return;
                }
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => return,
            Err(error) => {
                eprintln!("writing the status of pod {}/{}: {error}", ctx.id.namespace, ctx.id.name);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn patch_status(ctx: &Ctx, status: &Value) -> kube::Result<()> {
    let api = Api::<Pod>::namespaced(ctx.kubelet.client.clone(), &ctx.id.namespace);
    let body = json!({"metadata": {"uid": ctx.id.uid}, "status": status});
    api.patch_status(&ctx.id.name, &PatchParams::default(), &Patch::Strategic(&body)).await.map(drop)
}

/// From nothing to the end of all containers.
async fn live(ctx: Arc<Ctx>) {
    let mut stopped = ctx.stop.subscribe();
    let (sandbox, volumes) = tokio::select! {
        ready = set_up(&ctx) => ready,
        _ = stopped.wait_for(Option::is_some) => return,
    };
    let sandbox = Arc::new(sandbox);
    let fresh = {
        let (ctx, sandbox) = (ctx.clone(), sandbox.clone());
        tokio::spawn(async move { volumes.keep_fresh(&ctx.kubelet, &ctx.pod, &ctx.id, &sandbox.addresses).await })
    };
    let mut sidecars = Vec::new();
    if start_up(&ctx, &sandbox, &mut sidecars).await {
        let mut mains = tokio::task::JoinSet::new();
        for (at, container) in ctx.pod.spec.iter().flat_map(|spec| spec.containers.iter().cloned()).enumerate() {
            mains.spawn(unit(&ctx, &sandbox, container, Place::Main(at), Kind::Main, ctx.stop.subscribe()).run());
        }
        mains.join_all().await;
    }
    stop_sidecars(&ctx, sidecars).await;
    fresh.abort();
}

fn unit(
    ctx: &Arc<Ctx>,
    sandbox: &Arc<Sandbox>,
    container: Container,
    place: Place,
    kind: Kind,
    stop: watch::Receiver<Option<Instant>>,
) -> Unit {
    Unit { ctx: ctx.clone(), sandbox: sandbox.clone(), container, place, kind, stop }
}

/// A sidecar that runs: how it is told to end, and its end.
type Sidecar = (watch::Sender<Option<Instant>>, JoinHandle<bool>);

/// Init containers one after the other; a sidecar lets the next one begin when it has started. `false` if that is the end.
async fn start_up(ctx: &Arc<Ctx>, sandbox: &Arc<Sandbox>, sidecars: &mut Vec<Sidecar>) -> bool {
    let mut stopped = ctx.stop.subscribe();
    let containers = ctx.pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().cloned());
    for (at, container) in containers.enumerate() {
        let place = Place::Init(at);
        if !is_sidecar(&container) {
            if !unit(ctx, sandbox, container, place, Kind::Init, ctx.stop.subscribe()).run().await {
                return false;
            }
            continue;
        }
        let (stop, told) = watch::channel(None);
        let sidecar = unit(ctx, sandbox, container, place, Kind::Sidecar, told);
        sidecars.push((stop, tokio::spawn(sidecar.run())));
        let mut changes = ctx.changed.subscribe();
        while !ctx.look(|board| board.init[at].started) {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return false },
                _ = stopped.wait_for(Option::is_some) => return false,
            }
        }
    }
    true
}

/// After the containers, the last one first, in what is left of the pod's time.
async fn stop_sidecars(ctx: &Ctx, sidecars: Vec<Sidecar>) {
    let at_the_end = Instant::now() + Duration::from_secs(ctx.grace_seconds());
    let mut pod = ctx.stop.subscribe();
    for (stop, mut ended) in sidecars.into_iter().rev() {
        loop {
            stop.send_replace(Some(pod.borrow_and_update().unwrap_or(at_the_end)));
            tokio::select! {
                done = &mut ended => {
                    if let Err(error) = done {
                        eprintln!("pod {}/{}: {error}", ctx.id.namespace, ctx.id.name);
                    }
                    break;
                }
                changed = pod.changed() => if changed.is_err() { break },
            }
        }
    }
}

/// The object goes last, when nothing of the pod runs any more; how its containers ended is told before.
async fn remove_object(ctx: &Ctx) {
    let status = ctx.look(|board| {
        // Nothing will be started again: what has ended has ended for good.
        board.restart_policy = "Never".into();
        for live in board.init.iter_mut().chain(&mut board.main) {
            live.ready = false;
            if let (Doing::Waiting { .. }, Some(last)) = (&live.doing, &live.last) {
                live.doing = Doing::Ended(last.clone());
            }
        }
        board.document(&ctx.id.uid)
    });
    let api = Api::<Pod>::namespaced(ctx.kubelet.client.clone(), &ctx.id.namespace);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(ctx.id.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    let mut told = false;
    loop {
        let done = match told {
            false => patch_status(ctx, &status).await.map(|()| told = true),
            true => match api.delete(&ctx.id.name, &params).await {
                Ok(_) => return,
                Err(error) => Err(error),
            },
        };
        match done {
            Ok(()) => continue,
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => return,
            Err(error) => eprintln!("deleting pod {}/{}: {error}", ctx.id.namespace, ctx.id.name),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
