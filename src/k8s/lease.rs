//! Leadership by a Lease: taken, renewed and released here, in a task of its own, so that writes never delay a renewal. What
//! it permits is in [`super::fence`].

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};

use super::fence::Fence;

/// How long a lease holds without being renewed (client-go's default).
pub const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed, and how often another's is looked at.
pub const PERIOD: Duration = Duration::from_secs(2);
/// No request of ours takes longer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the Lease is.
pub trait Store: Send + Sync {
    /// The Lease, if there is one.
    fn read(&self) -> impl Future<Output = kube::Result<Option<Lease>>> + Send;
    /// Makes it; fails with 409 if there is one.
    fn create(&self, lease: &Lease) -> impl Future<Output = kube::Result<Lease>> + Send;
    /// Replaces the version that was read; fails with 409 if it has changed.
    fn replace(&self, lease: &Lease) -> impl Future<Output = kube::Result<Lease>> + Send;
}

/// A Lease in the API server.
pub struct ApiStore {
    api: Api<Lease>,
    name: String,
}

impl ApiStore {
    /// The Lease of this name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }
}

impl Store for ApiStore {
    async fn read(&self) -> kube::Result<Option<Lease>> {
        self.api.get_opt(&self.name).await
    }

    async fn create(&self, lease: &Lease) -> kube::Result<Lease> {
        let mut lease = lease.clone();
        lease.metadata.name = Some(self.name.clone());
        self.api.create(&PostParams::default(), &lease).await
    }

    async fn replace(&self, lease: &Lease) -> kube::Result<Lease> {
        self.api.replace(&self.name, &PostParams::default(), lease).await
    }
}

/// Our view of the lease.
pub struct Leadership<S> {
    store: S,
    identity: String,
    fence: Fence,
    /// What stands in the lease, and when we saw it first. Another holder's clock is not ours: only changes count.
    seen: Option<(LeaseSpec, Duration)>,
    leading: bool,
}

/// What to do about the lease as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write ourselves in.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// Whether a lease may be taken: it is ours, it was released, or nobody renewed it for long enough. A write that the
/// holder sent at the very end takes up to a request timeout more.
#[must_use]
pub fn decide(spec: &LeaseSpec, identity: &str, unchanged: Duration) -> Decision {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let held = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let held = held.map_or(DURATION, Duration::from_secs);
    if holder.is_empty() || holder == identity || unchanged > held + REQUEST_TIMEOUT {
        Decision::Take
    } else {
        Decision::Wait
    }
}

impl<S: Store> Leadership<S> {
    /// Not held yet.
    #[must_use]
    pub fn new(store: S, identity: String, fence: Fence) -> Self {
        Self { store, identity, fence, seen: None, leading: false }
    }

    /// Takes or renews the lease where that is possible.
    ///
    /// # Errors
    /// If the API server cannot be asked; what we held stays held until its deadline.
    pub async fn round(&mut self) -> Result<()> {
        tokio::time::timeout(REQUEST_TIMEOUT, self.round_inner()).await.context("the lease: no answer in time")?
    }

    async fn round_inner(&mut self) -> Result<()> {
        // The lease counts from before the request: the API server takes it for renewed later, never earlier.
        let started = self.fence.now();
        let Some(mut lease) = self.store.read().await.context("reading the lease")? else {
            let lease = Lease { spec: Some(self.spec(&LeaseSpec::default())), ..Lease::default() };
            let created = self.store.create(&lease).await;
            return self.written(created, started);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((known, since)) if *known == spec => *since,
            _ => started,
        };
        self.seen = Some((spec.clone(), since));
        if decide(&spec, &self.identity, started.saturating_sub(since)) == Decision::Wait {
            self.lead(None, spec.holder_identity.as_deref());
            return Ok(());
        }
        lease.spec = Some(self.spec(&spec));
        let replaced = self.store.replace(&lease).await;
        self.written(replaced, started)
    }

    fn written(&mut self, answer: kube::Result<Lease>, started: Duration) -> Result<()> {
        match answer {
            Ok(_) => {
                self.lead(Some(started.saturating_add(DURATION)), None);
                Ok(())
            }
            // Somebody else was faster; the next round sees who.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error).context("writing the lease"),
        }
    }

    fn lead(&mut self, deadline: Option<Duration>, holder: Option<&str>) {
        let leading = deadline.is_some();
        if leading != self.leading {
            let identity = &self.identity;
            if leading {
                tracing::info!(identity, "leading");
            } else {
                tracing::warn!(identity, holder, "not leading any more");
            }
        }
        self.leading = leading;
        self.fence.set(deadline);
    }

    fn spec(&self, old: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(self.fence.wall());
        let ours = old.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if ours { old.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!ours)),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, so that a successor need not wait. Nothing may be on its way any more.
    ///
    /// # Errors
    /// If the API server cannot be asked in time.
    pub async fn release(&mut self) -> Result<()> {
        if !self.fence.held() {
            return Ok(());
        }
        self.fence.set(None);
        let released = async {
            let Some(mut lease) = self.store.read().await.context("reading the lease")? else { return Ok(()) };
            if let Some(spec) =
                lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity))
            {
                spec.holder_identity = None;
                self.store.replace(&lease).await.context("writing the lease")?;
            }
            Ok(())
        };
        tokio::time::timeout(REQUEST_TIMEOUT, released).await.context("no answer in time")?
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
pub(crate) mod tests;
