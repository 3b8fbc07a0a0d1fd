//! Startup, liveness and readiness probes, sent from the node as a kubelet does.

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Probe;

use super::handlers::{self, Target};

/// Counts of consecutive results, and when they decide.
#[derive(Debug, Default)]
pub(super) struct Streak {
    good: i32,
    bad: i32,
}

impl Streak {
    /// Notes a result; `Some` when a threshold is reached by it or passed before.
    pub(super) fn note(&mut self, good: bool, success_threshold: i32, failure_threshold: i32) -> Option<bool> {
        if good {
            (self.good, self.bad) = (self.good + 1, 0);
            (self.good >= success_threshold).then_some(true)
        } else {
            (self.good, self.bad) = (0, self.bad + 1);
            (self.bad >= failure_threshold).then_some(false)
        }
    }
}

/// Pauses between probes. The real kubelet probes at once when a container starts (1.20) and then each period; until the
/// first success asking more often costs nothing here and makes Ready prompt.
struct Pace {
    next: Duration,
    period: Duration,
}

impl Pace {
    /// The pause before the next probe; `eager` while nothing is decided yet.
    fn pause(&mut self, eager: bool) -> Duration {
        let pause = if eager { self.next } else { self.period };
        self.next = (self.next * 2).min(self.period);
        pause
    }
}

/// Probes again and again: tells each failure to `failed` and each decision to `decided`; returns when that says so.
pub(super) async fn watch(
    target: &Target,
    probe: &Probe,
    failed: impl Fn(&str),
    mut decided: impl FnMut(bool) -> bool,
) {
    let seconds =
        |value: Option<i32>, default: i32| Duration::from_secs(value.unwrap_or(default).max(0).unsigned_abs().into());
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let (success, failure) = (probe.success_threshold.unwrap_or(1), probe.failure_threshold.unwrap_or(3));
    let mut streak = Streak::default();
    let mut pace = Pace { next: Duration::from_millis(50), period };
    loop {
        let result = match tokio::time::timeout(timeout, once(target, probe)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("no answer in {timeout:?}")),
        };
        if let Err(error) = &result {
            failed(&format!("{error:#}"));
        }
        if let Some(good) = streak.note(result.is_ok(), success, failure)
            && decided(good)
        {
            return;
        }
        let pause = pace.pause(streak.good == 0 && streak.bad < failure);
        tokio::time::sleep(pause).await;
    }
}

async fn once(target: &Target, probe: &Probe) -> Result<()> {
    if let Some(tcp) = &probe.tcp_socket {
        return handlers::tcp(target, tcp).await;
    }
    if let Some(get) = &probe.http_get {
        return handlers::http_get(target, get).await;
    }
    if let Some(exec) = &probe.exec {
        return handlers::command(target, exec.command.as_deref().unwrap_or_default()).await;
    }
    bail!("this kind of probe is not supported by the harness's kubelet")
}

#[cfg(test)]
#[path = "probes_tests.rs"]
mod tests;
