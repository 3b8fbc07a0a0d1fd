//! Startup, liveness and readiness probes, sent from the node as a kubelet does.

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Probe;
use tokio::time::Instant;

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
/// first success asking more often costs nothing here and makes Ready prompt. A failure of a probe that the real kubelet
/// would not have sent must not count: three of them within 150 ms would kill a container that is only starting.
struct Pace {
    next: Duration,
    period: Duration,
    /// When the real kubelet would have probed last.
    last_due: Option<Instant>,
}

impl Pace {
    fn new(period: Duration) -> Self {
        Self { next: Duration::from_millis(50), period, last_due: None }
    }

    /// Whether the probe that is sent now is one that the real kubelet sends too.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.last_due.is_none_or(|last| now.duration_since(last) >= self.period);
        if due {
            self.last_due = Some(now);
        }
        due
    }

    /// The pause before the next probe; `eager` while nothing is decided yet. None goes past the next one that is due.
    fn pause(&mut self, eager: bool, now: Instant) -> Duration {
        let until_due = self.last_due.map_or(self.period, |last| (last + self.period).duration_since(now));
        let pause = if eager { self.next.min(until_due) } else { self.period };
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
    let mut pace = Pace::new(period);
    loop {
        let due = pace.is_due(Instant::now());
        let result = match tokio::time::timeout(timeout, once(target, probe)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("no answer in {timeout:?}")),
        };
        if let (Err(error), true) = (&result, due) {
            failed(&format!("{error:#}"));
        }
        if (result.is_ok() || due)
            && let Some(good) = streak.note(result.is_ok(), success, failure)
            && decided(good)
        {
            return;
        }
        let pause = pace.pause(streak.good == 0 && streak.bad < failure, Instant::now());
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
