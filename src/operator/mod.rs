//! The operator: pools and Services in, addresses out. It holds nothing that is not in the cluster.

mod index;
mod writes;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use crate::api::config::Config;
use crate::api::pool::CiliumLoadBalancerIPPool;
use crate::api::strings::{LEASE, NAMESPACE};
use crate::k8s::lease::{self, Leadership};
use crate::telemetry::{self, health::Health};
use index::{Event, Index};

/// Status writes on their way at a time.
const WRITES_MAX: usize = 32;
/// Events taken before the next plan: bounds the time until the first of a burst is served.
const EVENTS_MAX: usize = 256;
/// A failed write is tried again after this time, or with the next event.
const RETRY: Duration = Duration::from_secs(1);

/// Runs the operator until SIGTERM.
///
/// # Errors
/// If it cannot start or a watch ends for good.
pub async fn run(config_path: &Path) -> Result<()> {
    let config = Config::load(config_path)?;
    telemetry::init(&config.debug);
    let client = crate::k8s::client::connect(&config).await?;
    let identity = std::env::var("POD_NAME").context("environment variable POD_NAME is not set")?;
    let mut leadership = Leadership::new(client.clone(), NAMESPACE, LEASE, identity);
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).context("listening for SIGTERM")?;
    let outcome = tokio::select! {
        outcome = follow(&client, &mut leadership) => outcome,
        _ = terminate.recv() => Ok(()),
    };
    tracing::info!("terminating; releasing the lease");
    let released = tokio::time::timeout(lease::REQUEST_TIMEOUT, leadership.release()).await;
    released.context("releasing the lease: no answer in time")??;
    outcome
}

async fn follow(client: &Client, leadership: &mut Leadership) -> Result<()> {
    let health = Health::default();
    let pools = Api::<CiliumLoadBalancerIPPool>::all(client.clone());
    let services = Api::<Service>::all(client.clone());
    let config = watcher::Config::default();
    let mut events = futures::stream::select(
        watcher::watcher(pools, config.clone()).default_backoff().map(|event| event.map(Event::Pool)),
        watcher::watcher(services, config).default_backoff().map(|event| event.map(Event::Service)),
    )
    .boxed();
    let mut index = Index::default();
    let mut renew = tokio::time::interval(lease::PERIOD);
    let mut retry: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = renew.tick() => {
                let before = leadership.may_write(Instant::now());
                health.note("lease", leadership.round().await);
                if before || !leadership.may_write(Instant::now()) {
                    continue;
                }
            }
            () = until(retry) => {}
            event = events.next() => {
                match event {
                    None => bail!("the watches ended"),
                    Some(Err(error)) => {
                        health.note::<()>("watch", Err(error).context("watching pools and services"));
                        continue;
                    }
                    Some(Ok(event)) => index.take(event),
                }
                health.note("watch", Ok(()));
                for _ in 0..EVENTS_MAX {
                    match futures::FutureExt::now_or_never(events.next()) {
                        Some(Some(Ok(event))) => index.take(event),
                        Some(Some(Err(error))) => {
                            health.note::<()>("watch", Err(error).context("watching pools and services"));
                        }
                        Some(None) => bail!("the watches ended"),
                        None => break,
                    }
                }
            }
        }
        // Nothing is written before both lists are complete: an address might look free that is not (cilium #43131).
        if !index.synced() || !leadership.may_write(Instant::now()) {
            continue;
        }
        let done = carry_out(client, &mut index, leadership).await;
        retry = if health.note("ipam", done).is_some() { None } else { Some(Instant::now() + RETRY) };
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Plans the world and writes what differs. What was written counts as seen, so that the next plan builds on it.
async fn carry_out(client: &Client, index: &mut Index, leadership: &Leadership) -> Result<()> {
    let writes = writes::needed(index);
    let mut answers = futures::stream::iter(writes)
        .map(|write| {
            let allowed = leadership.may_write(Instant::now());
            // The lease's arithmetic rests on no write being on its way for longer than this.
            async move {
                if !allowed {
                    return Ok(None);
                }
                let sent = tokio::time::timeout(lease::REQUEST_TIMEOUT, write.send(client)).await;
                sent.context("a status write was not answered in time")?
            }
        })
        .buffer_unordered(WRITES_MAX);
    let mut failures = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(Some(event)) => index.take(event),
            Ok(None) => {}
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    drop(answers);
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}
