//! One container of a pod: its starts, hooks, probes and end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Container, Probe};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::Instant;

use super::events::Told;
use super::handlers::{self, Target};
use super::launch::{self, Launched, Refusal};
use super::node::now;
use super::sandbox::Sandbox;
use super::status::{Doing, Ended};
use super::worker::{Ctx, Place};
use super::{logs, probes};
use crate::sys;

/// First and longest pause before a container is started again, and how long it must run for the pause to be forgotten
/// (all as the real kubelet).
const BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// First and longest pause between tries to start what could not be started.
const START_PAUSE: Duration = Duration::from_millis(100);
const START_PAUSE_MAX: Duration = Duration::from_secs(5);
/// What is left to a container for its end even if its preStop hook took all the time (as the real kubelet).
const GRACE_MIN: Duration = Duration::from_secs(2);
/// Longest last message of a container, and of one that is taken from its log.
const MESSAGE_MAX: usize = 4096;
const LOG_MESSAGE_MAX: usize = 2048;

/// What a container is for its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Must end well before the next one begins.
    Init,
    /// An init container that runs on beside the containers and is always started again.
    Sidecar,
    Main,
}

/// A container of a pod.
#[derive(Clone)]
pub(super) struct Unit {
    pub(super) ctx: Arc<Ctx>,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) container: Container,
    pub(super) place: Place,
    pub(super) kind: Kind,
    /// When it has to have ended, once it is to end.
    pub(super) stop: watch::Receiver<Option<Instant>>,
}

/// Why a running container is ended.
enum Cause {
    /// It ended by itself.
    Itself(std::io::Result<std::process::ExitStatus>),
    /// The pod goes.
    Pod,
    /// A probe or a hook wants it, with the time it gets.
    Failed(String, Duration),
}

impl Unit {
    /// Runs the container with its restarts; `true` if it ended well and is not to run again.
    pub(super) async fn run(self) -> bool {
        let mut stopped = self.stop.clone();
        let (mut pause, mut retry) = (BACKOFF, START_PAUSE);
        loop {
            let began = Instant::now();
            let run = self.ctx.live(self.place, |live| live.restarts);
            let code = match launch::start(&self, run).await {
                Ok(launched) => self.attend(launched).await,
                Err(refusal) => {
                    self.refused(refusal);
                    tokio::select! {
                        () = tokio::time::sleep(retry) => retry = (retry * 2).min(START_PAUSE_MAX),
                        _ = stopped.wait_for(Option::is_some) => return false,
                    }
                    continue;
                }
            };
            retry = START_PAUSE;
            if stopped.borrow().is_some() {
                return false;
            }
            if let Some(well) = self.over(code) {
                return well;
            }
            if began.elapsed() > BACKOFF_RESET {
                pause = BACKOFF;
            }
            if !self.back_off(pause) {
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF_MAX),
                    _ = stopped.wait_for(Option::is_some) => return false,
                }
            }
            self.ctx.live(self.place, |live| live.restarts += 1);
        }
    }

    /// Whether the container has ended for good, and if so, whether well.
    fn over(&self, code: i32) -> Option<bool> {
        let policy = self.ctx.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
        match (self.kind, policy) {
            (Kind::Sidecar, _) | (Kind::Main, "Always") => None,
            _ if code == 0 => Some(true),
            (_, "Never") => Some(false),
            _ => None,
        }
    }

    /// Notes the pause before the next start; `true` if there is none, for the first restart of a container comes at once.
    fn back_off(&self, pause: Duration) -> bool {
        let at_once = self.ctx.live(self.place, |live| {
            if let Doing::Ended(how) = &live.doing {
                live.last = Some(how.clone());
            }
            let at_once = live.restarts == 0;
            if !at_once {
                let message = format!("back-off {}s restarting failed container={}", pause.as_secs(), live.name);
                live.doing = Doing::Waiting { reason: "CrashLoopBackOff", message };
            }
            at_once
        });
        if !at_once {
            let (name, id) = (&self.container.name, &self.ctx.id);
            let pod = format!("{}_{}({})", id.name, id.namespace, id.uid);
            self.tell(
                true,
                "BackOff",
                "Restarting",
                format!("Back-off restarting failed container {name} in pod {pod}"),
            );
        }
        at_once
    }

    fn refused(&self, refusal: Refusal) {
        let (reason, message) = (refusal.reason, format!("{:#}", refusal.error));
        let fresh = Doing::Waiting { reason, message: message.clone() };
        if self.ctx.live(self.place, |live| std::mem::replace(&mut live.doing, fresh.clone())) != fresh {
            self.tell(true, "Failed", reason, format!("Error: {reason}: {message}"));
        }
    }

    /// Tells an event of this container.
    pub(super) fn tell(&self, warning: bool, reason: &str, action: &str, note: String) {
        let list = if self.kind == Kind::Main { "containers" } else { "initContainers" };
        let field = Some(format!("{list}{{{}}}", self.container.name));
        self.ctx.kubelet.events.tell(&self.ctx.pod, Told { warning, reason, action, note, field });
    }

    fn target(&self) -> Target {
        Target {
            id: self.ctx.id.clone(),
            container: self.container.clone(),
            address: self.sandbox.addresses.pod.clone(),
        }
    }

    /// Watches a running container until it has ended, by itself, by a failed probe or hook, or because the pod goes.
    async fn attend(&self, launched: Launched) -> i32 {
        let Launched { mut child, log, message } = launched;
        let started = now();
        self.ctx.live(self.place, |live| live.doing = Doing::Running { started: started.clone() });
        let mut stopped = self.stop.clone();
        let cause = {
            let watching = self.watch().boxed();
            tokio::select! {
                status = child.wait() => Cause::Itself(status),
                _ = stopped.wait_for(Option::is_some) => Cause::Pod,
                cause = watching => cause,
            }
        };
        let status = match cause {
            Cause::Itself(status) => status,
            Cause::Pod => {
                self.tell(false, "Killing", "Killing", format!("Stopping container {}", self.container.name));
                self.end(&mut child, None).await
            }
            Cause::Failed(why, grace) => {
                self.tell(false, "Killing", "Killing", why);
                self.end(&mut child, Some(Instant::now() + grace)).await
            }
        };
        let code = status.map(sys::exit_code).unwrap_or(255);
        let message = self.last_message(code, &message, &log);
        self.ctx.live(self.place, |live| {
            // An init container that has done its work counts as ready.
            live.ready = self.kind == Kind::Init && code == 0;
            live.started = false;
            live.doing = Doing::Ended(Ended { code, started, finished: now(), message });
        });
        code
    }

    fn last_message(&self, code: i32, file: &Path, log: &Path) -> String {
        let said = std::fs::read(file).unwrap_or_default();
        if said.is_empty() {
            let from_log = self.container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
            return if from_log && code != 0 { logs::last_words(log, LOG_MESSAGE_MAX) } else { String::new() };
        }
        String::from_utf8_lossy(&said[..said.len().min(MESSAGE_MAX)]).into_owned()
    }

    /// The postStart hook, then all probes, until one of them says that the container must go.
    async fn watch(&self) -> Cause {
        let (container, target) = (&self.container, self.target());
        let grace = Duration::from_secs(self.ctx.grace_seconds());
        if let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
            && let Err(error) = handlers::hook(&target, hook).await
        {
            self.tell(true, "FailedPostStartHook", "PostStart", format!("PostStartHook failed: {error:#}"));
            return Cause::Failed("FailedPostStartHook".into(), grace);
        }
        let failed = |kind: &'static str, probe: &Probe| {
            let own = probe.termination_grace_period_seconds.map(|seconds| seconds.max(0).unsigned_abs());
            let why = format!("Container {} failed {kind} probe, will be restarted", container.name);
            Cause::Failed(why, own.map_or(grace, Duration::from_secs))
        };
        if let Some(startup) = &container.startup_probe {
            let mut passed = false;
            probes::watch(
                &target,
                startup,
                |error| self.unhealthy("Startup", error),
                |good| {
                    passed = good;
                    true
                },
            )
            .await;
            if !passed {
                return failed("startup", startup);
            }
        }
        self.ctx.live(self.place, |live| {
            live.started = true;
            live.ready = self.kind != Kind::Init && container.readiness_probe.is_none();
        });
        let readiness = async {
            let Some(probe) = &container.readiness_probe else { return std::future::pending().await };
            let unhealthy = |error: &str| self.unhealthy("Readiness", error);
            probes::watch(&target, probe, unhealthy, |good| {
                self.ctx.live(self.place, |live| live.ready = good);
                false
            })
            .await;
        };
        let liveness = async {
            let Some(probe) = &container.liveness_probe else { return std::future::pending().await };
            probes::watch(&target, probe, |error| self.unhealthy("Liveness", error), |good| !good).await;
            failed("liveness", probe)
        };
        tokio::select! {
            () = readiness => std::future::pending().await,
            cause = liveness => cause,
        }
    }

    fn unhealthy(&self, kind: &str, error: &str) {
        self.tell(true, "Unhealthy", kind, format!("{kind} probe failed: {error}"));
    }

    /// preStop, SIGTERM, the rest of the grace, SIGKILL for the whole cgroup. Without a deadline of its own, it has the one
    /// of the pod, which may be moved up in the meantime.
    async fn end(&self, child: &mut Child, own: Option<Instant>) -> std::io::Result<std::process::ExitStatus> {
        let stop = self.stop.clone();
        let deadline = || match (own, *stop.borrow()) {
            (Some(own), Some(pod)) => own.min(pod),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => Instant::now(),
        };
        let mut changes = self.stop.clone();
        let mut until = async |least: Instant| {
            while Instant::now() < deadline().max(least) {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline().max(least)) => {}
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
        };
        let mut least = Instant::now();
        if let Some(hook) = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
            let target = self.target();
            tokio::select! {
                done = handlers::hook(&target, hook) => if let Err(error) = done {
                    self.tell(true, "FailedPreStopHook", "PreStop", format!("PreStopHook failed: {error:#}"));
                },
                status = child.wait() => return status,
                () = until(Instant::now()) => {}
            }
            // Not for one that is to go at once.
            if deadline() > least {
                least = Instant::now() + GRACE_MIN;
            }
        }
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended in the meantime, and is waited for next.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        tokio::select! {
            status = child.wait() => return status,
            () = until(least) => {}
        }
        std::fs::write(self.ctx.id.cgroup().join(&self.container.name).join("cgroup.kill"), "1")?;
        child.wait().await
    }
}
