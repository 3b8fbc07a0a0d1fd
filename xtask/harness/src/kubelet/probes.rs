//! Startup, liveness and readiness probes, sent from the node as a kubelet does.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PodId, container_pid};
use crate::cluster::enter;

/// What a probe is sent to.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) id: PodId,
    pub(super) container: Container,
    pub(super) address: String,
}

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

/// Probes again and again and tells each decision to `decided`; returns when that says so.
pub(super) async fn watch(target: &Target, probe: &Probe, mut decided: impl FnMut(bool, String) -> bool) {
    let seconds =
        |value: Option<i32>, default: i32| Duration::from_secs(value.unwrap_or(default).max(0).unsigned_abs().into());
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let (success, failure) = (probe.success_threshold.unwrap_or(1), probe.failure_threshold.unwrap_or(3));
    let mut streak = Streak::default();
    let mut first = Duration::from_millis(50);
    loop {
        let result = match tokio::time::timeout(timeout, once(target, probe)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("no answer in {timeout:?}")),
        };
        let message = result.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
        if let Some(good) = streak.note(result.is_ok(), success, failure)
            && decided(good, message)
        {
            return;
        }
        // The real kubelet probes at once when a container starts (1.20) and then each period; until the first success
        // asking more often costs nothing here and makes Ready prompt.
        let pause = if streak.good == 0 && streak.bad < failure && first < period { first } else { period };
        first *= 2;
        tokio::time::sleep(pause).await;
    }
}

async fn once(target: &Target, probe: &Probe) -> Result<()> {
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.as_deref().unwrap_or(&target.address);
        TcpStream::connect((host, port(&target.container, &tcp.port)?)).await.context("connecting")?;
        return Ok(());
    }
    if let Some(get) = &probe.http_get {
        let host = get.host.as_deref().unwrap_or(&target.address);
        let path = get.path.as_deref().unwrap_or("/");
        return http(host, port(&target.container, &get.port)?, path).await;
    }
    if let Some(exec) = &probe.exec {
        let argv = exec.command.clone().unwrap_or_default();
        let pid = container_pid(&target.id, &target.container.name)?;
        let cgroup = target.id.cgroup().join(&target.container.name);
        let command = enter::command("/proc/self/exe".as_ref(), pid, Some(&cgroup), "ipc,uts,net,pid,mnt", &argv);
        let output =
            tokio::process::Command::from(command).kill_on_drop(true).output().await.context("running the probe")?;
        if !output.status.success() {
            bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        return Ok(());
    }
    bail!("this kind of probe is not supported by the harness's kubelet")
}

async fn http(host: &str, port: u16, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect((host, port)).await.with_context(|| format!("connecting to {host}:{port}"))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: kube-probe/e2e\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(10_240).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let code: u16 = text.split_whitespace().nth(1).and_then(|code| code.parse().ok()).context("no HTTP answer")?;
    if !(200..400).contains(&code) {
        bail!("HTTP probe failed with statuscode: {code}");
    }
    Ok(())
}

fn port(container: &Container, port: &IntOrString) -> Result<u16> {
    match port {
        IntOrString::Int(number) => Ok(u16::try_from(*number)?),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            let number = named.map(|port| port.container_port).with_context(|| format!("no port named {name:?}"))?;
            Ok(u16::try_from(number)?)
        }
    }
}

#[cfg(test)]
#[path = "probes_tests.rs"]
mod tests;
