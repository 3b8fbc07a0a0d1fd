//! The operator: pools and Services in, addresses out. It holds nothing that is not in the cluster.

mod conditions;
mod health;
mod index;
mod pool_status;
mod service_status;
mod writes;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use portolan_core::service::ServiceName;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::config::Config;
use crate::api::pool::CiliumLoadBalancerIPPool;
use crate::api::strings::{FIELD_MANAGER, LEASE, NAMESPACE};
use crate::k8s::backoff::WatchBackoff;
use crate::k8s::client;
use crate::k8s::clock::{Clock, SystemClock};
use crate::k8s::events::Notes;
use crate::k8s::fence::Fence;
use crate::k8s::lease::{self, ApiStore, Leadership};
use crate::telemetry::{self, server};
use health::State;
use index::{Event, Index};
use writes::Write;

/// Status writes on their way at a time.
const WRITES_MAX: usize = 32;
/// Events taken before the next plan: bounds the time until the first of a burst is served.
const EVENTS_MAX: usize = 256;
/// What was not done is tried again after this time, or with the next event.
const RETRY: Duration = Duration::from_secs(1);
/// Rounds of writes that build on each other: what is taken, what is given then, and one for what came between.
const ROUNDS_MAX: usize = 4;
/// Services in doubt that are read one by one; more are listed.
const READS_MAX: usize = 32;
/// A list of everything takes longer than other requests; no lease depends on it, and the loop must not seem to hang.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
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

    let operator = Operator::new(client, identity, Arc::new(SystemClock));
    let state = operator.state.clone();
    let health = tokio::spawn(server::serve(listener, move |path| state.answer(path)));
    operator
        .serve(async move {
            tokio::select! {
                served = health => served.context("the health port")?.context("the health port"),
                _ = terminate.recv() => Ok(()),
            }
        })
        .await
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
            biased;
            _ = &mut stopped => break,
            _ = period.tick() => {}
        }
        let round = leadership.round().await;
        state.health.note(health::LEASE, round);
    }
    leadership.release().await.context("releasing the lease")
}

/// The control loops of one operator. All that they meet comes from outside: a client, a name and the clocks. Sockets,
/// signals and files are the business of [`run`].
pub struct Operator {
    client: Client,
    identity: String,
    clock: Arc<dyn Clock>,
    fence: Fence,
    state: State,
}

impl Operator {
    /// An operator that does not run yet. `identity` is its name in the lease.
    #[must_use]
    pub fn new(client: Client, identity: String, clock: Arc<dyn Clock>) -> Self {
        let fence = Fence::new(Arc::clone(&clock));
        Self { client, identity, clock, fence, state: State::default() }
    }

    /// Runs until `stop` is done: then what is on its way comes to its end and the lease is released. An operator whose
    /// future is dropped ends like a process that is killed.
    ///
    /// # Errors
    /// If a watch ends for good, `stop` says so, or the lease cannot be released.
    pub async fn serve(self, stop: impl Future<Output = Result<()>>) -> Result<()> {
        let store = ApiStore::new(self.client.clone(), NAMESPACE, LEASE);
        let leadership = Leadership::new(store, self.identity.clone(), self.fence.clone());
        let (end, ended) = oneshot::channel();
        let mut keeper = JoinSet::new();
        keeper.spawn(keep_lease(leadership, self.state.clone(), ended));
        let notes = Notes::start(self.client.clone(), FIELD_MANAGER, self.identity.clone(), Arc::clone(&self.clock));
        let following = self.follow(&notes);
        tokio::pin!(following);
        let outcome = tokio::select! {
            biased;
            outcome = &mut following => outcome,
            stopped = stop => {
                tracing::info!("terminating; releasing the lease");
                self.fence.close();
                // What is on its way comes to its end first: a successor may write as soon as the lease is released.
                following.await.and(stopped)
            }
        };
        let _ = end.send(());
        let released = keeper.join_next().await.context("the lease's keeper is gone")?.context("the lease's keeper")?;
        outcome.and(released)
    }

    /// Follows pools and Services until the fence is closed.
    async fn follow(&self, notes: &Notes) -> Result<()> {
        let pools = Api::<CiliumLoadBalancerIPPool>::all(self.client.clone());
        let services = Api::<Service>::all(self.client.clone());
        let config = watcher::Config::default();
        let mut events = futures::stream::select(
            watcher::watcher(pools, config.clone())
                .backoff(WatchBackoff::default())
                .map(|event| event.map(Event::Pool)),
            watcher::watcher(services, config).backoff(WatchBackoff::default()).map(|event| event.map(Event::Service)),
        )
        .boxed();
        let mut index = Index::default();
        let mut beat = tokio::time::interval(health::BEAT);
        let mut doubt = Doubt::default();
        let mut retry: Option<Instant> = None;
        while !self.fence.is_closed() {
            tokio::select! {
                // In order, so that a run can be repeated; none of the first three is ready for long.
                biased;
                () = self.fence.changed() => doubt.everything = true,
                // Without the lease the fence wakes the loop again; a moment that has passed would wake it for ever.
                () = until(retry) => retry = None,
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
                let done = self.carry_out(&mut index, &mut doubt, notes).await;
                let done = self.state.health.note(health::IPAM, done);
                retry = if done == Some(true) { None } else { Some(Instant::now() + RETRY) };
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

    /// Makes the cluster as it is planned; returns whether nothing is left to do.
    async fn carry_out(&self, index: &mut Index, doubt: &mut Doubt, notes: &Notes) -> Result<bool> {
        if doubt.everything || doubt.services.len() > READS_MAX {
            self.list(index).await.context("listing pools and services")?;
            *doubt = Doubt::default();
        }
        let settled = self.settle(index, doubt).await;
        for _ in 0..ROUNDS_MAX {
            let (writes, more) = writes::safe(index, self.clock.wall(), !doubt.services.is_empty());
            let none = writes.is_empty();
            let all_done = self.write(index, doubt, notes, writes).await?;
            if let Err(error) = settled {
                return Err(error);
            }
            if !all_done || !more || none {
                return Ok(all_done && !more);
            }
        }
        Ok(false)
    }

    /// Lists everything anew.
    async fn list(&self, index: &mut Index) -> Result<()> {
        let params = ListParams::default();
        let pools = Api::<CiliumLoadBalancerIPPool>::all(self.client.clone());
        let services = Api::<Service>::all(self.client.clone());
        let lists = async { tokio::try_join!(pools.list(&params), services.list(&params)) };
        let (pools, services) = self.in_time(LIST_TIMEOUT, lists).await?;
        index.listed(pools.items, services.items);
        Ok(())
    }

    /// Reads the Services of which it is not known what came of the last write.
    async fn settle(&self, index: &mut Index, doubt: &mut Doubt) -> Result<()> {
        for name in doubt.services.clone() {
            let api = Api::<Service>::namespaced(self.client.clone(), &name.namespace);
            // A list of one: the operator may list Services anyway, and needs no right to get them.
            let one = ListParams::default().fields(&format!("metadata.name={}", name.name));
            let read = self.in_time(lease::REQUEST_TIMEOUT, api.list(&one)).await;
            let read = read.with_context(|| format!("reading service {name} after a write"))?;
            index.read(&name, read.items.into_iter().next());
            doubt.services.remove(&name);
        }
        Ok(())
    }

    async fn in_time<T>(&self, limit: Duration, request: impl Future<Output = kube::Result<T>>) -> Result<T> {
        let answer = tokio::time::timeout(limit, request).await;
        self.state.beat();
        Ok(answer.context("no answer in time")??)
    }

    /// Sends writes and returns whether all were done. What was written counts as seen, so that the next plan builds on
    /// it. What the fence held back is planned anew when the lease is held again.
    async fn write(&self, index: &mut Index, doubt: &mut Doubt, notes: &Notes, writes: Vec<Write>) -> Result<bool> {
        let mut answers = futures::stream::iter(writes)
            .map(|write| async move {
                let service = write.service().cloned();
                // The lease's arithmetic rests on no write being on its way for longer than this.
                let sent = tokio::time::timeout(lease::REQUEST_TIMEOUT, write.send(&self.client));
                let answer = match self.fence.guard(sent).await {
                    Err(_fenced) => Ok(None),
                    Ok(sent) => sent.context("a status write was not answered in time").and_then(|answer| answer),
                };
                (service, answer)
            })
            .buffer_unordered(WRITES_MAX);
        let mut failures = Vec::new();
        let mut all_done = true;
        while let Some((service, answer)) = answers.next().await {
            self.state.beat();
            match answer {
                Ok(Some(done)) => {
                    index.take(done.event);
                    done.notes.into_iter().for_each(|note| notes.tell(note));
                    continue;
                }
                // The object has changed or is gone. But a client that tries again by itself may have done the write the
                // first time and met it the second.
                Ok(None) => {}
                Err(error) => failures.push(format!("{error:#}")),
            }
            all_done = false;
            doubt.services.extend(service);
        }
        drop(answers);
        if failures.is_empty() {
            return Ok(all_done);
        }
        let more = failures.len().saturating_sub(FAILURES_NAMED);
        failures.truncate(FAILURES_NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        bail!("{}{more}", failures.join("; "))
    }
}

/// Where the cluster may say something else than the index.
#[derive(Default)]
struct Doubt {
    /// Somebody else may have led meanwhile, and no watch has told of it yet.
    everything: bool,
    /// Services that were written without an answer that says what came of it.
    services: BTreeSet<ServiceName>,
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "operator_tests.rs"]
mod tests;
