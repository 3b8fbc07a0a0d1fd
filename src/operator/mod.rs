//! The operator: pools and Services in, addresses out. It holds nothing that is not in the cluster.

mod conditions;
mod health;
mod index;
mod pool_status;
mod service_status;
mod writes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::api::config::Config;
use crate::api::pool::CiliumLoadBalancerIPPool;
use crate::api::strings::{FIELD_MANAGER, LEASE, NAMESPACE};
use crate::k8s::client;
use crate::k8s::clock::BootClock;
use crate::k8s::events::Notes;
use crate::k8s::fence::Fence;
use crate::k8s::lease::{self, ApiStore, Leadership};
use crate::telemetry::{self, server};
use health::State;
use index::{Event, Index};

/// Status writes on their way at a time.
const WRITES_MAX: usize = 32;
/// Events taken before the next plan: bounds the time until the first of a burst is served.
const EVENTS_MAX: usize = 256;
/// A failed write is tried again after this time, or with the next event.
const RETRY: Duration = Duration::from_secs(1);
/// Failed writes that are named; the others of one round are counted.
const FAILURES_NAMED: usize = 3;

/// How to run the operator.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Configuration document
    #[arg(long, default_value = crate::api::config::PATH)]
    config: PathBuf,
    /// Where /healthz and /readyz are served
    #[arg(long, default_value = "127.0.0.1:9234")]
    health_address: SocketAddr,
    /// Connect by this kubeconfig instead of the pod's service account
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

/// Runs the operator until SIGTERM.
///
/// # Errors
/// If it cannot start or a watch ends for good.
pub async fn run(args: &Args) -> Result<()> {
    let config = Config::load(&args.config)?;
    telemetry::init(&config.debug);
    let client = match &args.kubeconfig {
        Some(path) => client::connect_by(path).await?,
        None => client::connect(&config).await?,
    };
    let identity = std::env::var("POD_NAME").context("environment variable POD_NAME is not set")?;
    let listener = TcpListener::bind(args.health_address).await;
    let listener = listener.with_context(|| format!("listening on {} for health", args.health_address))?;
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).context("listening for SIGTERM")?;

    let state = State::default();
    let fence = Fence::new(Arc::new(BootClock));
    let store = ApiStore::new(client.clone(), NAMESPACE, LEASE);
    let leadership = Leadership::new(store, identity.clone(), fence.clone());
    let (stop, stopped) = oneshot::channel();
    let keeper = tokio::spawn(keep_lease(leadership, state.clone(), stopped));
    let health = tokio::spawn({
        let state = state.clone();
        server::serve(listener, move |path| state.answer(path))
    });
    let operator = Operator { notes: Notes::start(client.clone(), FIELD_MANAGER, identity), client, fence, state };
    let following = operator.follow();
    tokio::pin!(following);
    let outcome = tokio::select! {
        outcome = &mut following => outcome,
        served = health => served.context("the health port")?.context("the health port"),
        _ = terminate.recv() => {
            tracing::info!("terminating; releasing the lease");
            operator.fence.close();
            // What is on its way comes to its end first: a successor may write as soon as the lease is released.
            following.await
        }
    };
    let _ = stop.send(());
    let released = keeper.await.context("the lease's keeper")?;
    outcome.and(released)
}

/// Takes and renews the lease until told to stop; then releases it.
async fn keep_lease(
    mut leadership: Leadership<ApiStore>,
    state: State,
    mut stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let mut period = tokio::time::interval(lease::PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            _ = &mut stopped => break,
        }
        let round = leadership.round().await;
        state.health.note(health::LEASE, round);
    }
    leadership.release().await.context("releasing the lease")
}

struct Operator {
    client: Client,
    fence: Fence,
    state: State,
    notes: Notes,
}

impl Operator {
    /// Follows pools and Services until the fence is closed.
    async fn follow(&self) -> Result<()> {
        let pools = Api::<CiliumLoadBalancerIPPool>::all(self.client.clone());
        let services = Api::<Service>::all(self.client.clone());
        let config = watcher::Config::default();
        let mut events = futures::stream::select(
            watcher::watcher(pools, config.clone()).default_backoff().map(|event| event.map(Event::Pool)),
            watcher::watcher(services, config).default_backoff().map(|event| event.map(Event::Service)),
        )
        .boxed();
        let mut index = Index::default();
        let mut beat = tokio::time::interval(health::BEAT);
        let mut retry: Option<Instant> = None;
        while !self.fence.is_closed() {
            tokio::select! {
                () = self.fence.changed() => {}
                () = until(retry) => {}
                _ = beat.tick() => {
                    self.state.beat();
                    continue;
                }
                event = events.next() => {
                    self.take(&mut index, event)?;
                    for _ in 0..EVENTS_MAX {
                        let Some(event) = futures::FutureExt::now_or_never(events.next()) else { break };
                        self.take(&mut index, event)?;
                    }
                }
            }
            // Nothing is written before both lists are complete: an address might look free that is not (cilium #43131).
            if !index.synced() {
                continue;
            }
            self.state.set_ready();
            if self.fence.may_write() {
                let done = self.carry_out(&mut index).await;
                let done = self.state.health.note(health::IPAM, done);
                retry = if done.is_some() { None } else { Some(Instant::now() + RETRY) };
            }
        }
        Ok(())
    }

    fn take(&self, index: &mut Index, event: Option<watcher::Result<Event>>) -> Result<()> {
        match event {
            None => bail!("the watches ended"),
            Some(Err(error)) => {
                self.state.health.note::<()>(health::WATCH, Err(error).context("watching pools and services"));
            }
            Some(Ok(event)) => {
                index.take(event);
                self.state.health.note(health::WATCH, Ok(()));
            }
        }
        Ok(())
    }

    /// Plans the world and writes what differs. What was written counts as seen, so that the next plan builds on it. What
    /// the fence held back is planned anew when the lease is held again.
    async fn carry_out(&self, index: &mut Index) -> Result<()> {
        let mut answers = futures::stream::iter(writes::needed(index))
            .map(|write| async move {
                // The lease's arithmetic rests on no write being on its way for longer than this.
                let sent = tokio::time::timeout(lease::REQUEST_TIMEOUT, write.send(&self.client));
                match self.fence.guard(sent).await {
                    Err(_fenced) => Ok(None),
                    Ok(sent) => sent.context("a status write was not answered in time")?,
                }
            })
            .buffer_unordered(WRITES_MAX);
        let mut failures = Vec::new();
        while let Some(answer) = answers.next().await {
            self.state.beat();
            match answer {
                Ok(Some(done)) => {
                    index.take(done.event);
                    done.notes.into_iter().for_each(|note| self.notes.tell(note));
                }
                Ok(None) => {}
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        drop(answers);
        if failures.is_empty() {
            return Ok(());
        }
        let more = failures.len().saturating_sub(FAILURES_NAMED);
        failures.truncate(FAILURES_NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        bail!("{}{more}", failures.join("; "))
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
