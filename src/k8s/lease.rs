//! Leadership by a Lease. A lease is no fence: a write may be on its way when it ends. So the holder stops writing one
//! request timeout before its end, and a successor waits one longer, unless the lease was released.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

/// How long a lease holds without being renewed (client-go's default).
pub const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed, and how often another's is looked at.
pub const PERIOD: Duration = Duration::from_secs(2);
/// No request of ours takes longer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Our view of the lease.
pub struct Leadership {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// Until when we may write.
    deadline: Option<Instant>,
    /// What another holder wrote last, and when we saw it first. Its clock is not ours: only changes count.
    seen: Option<(LeaseSpec, Instant)>,
}

/// What to do about the lease as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write ourselves in.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// Whether a lease may be taken: it is ours, it was released, or nobody renewed it for long enough.
#[must_use]
pub fn decide(spec: &LeaseSpec, identity: &str, unchanged: Duration) -> Decision {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let held = Duration::from_secs(spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(15));
    if holder.is_empty() || holder == identity || unchanged > held + REQUEST_TIMEOUT {
        Decision::Take
    } else {
        Decision::Wait
    }
}

impl Leadership {
    /// Not held yet.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), identity, deadline: None, seen: None }
    }

    /// Whether a write may be sent now.
    #[must_use]
    pub fn may_write(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now + REQUEST_TIMEOUT < deadline)
    }

    /// Takes or renews the lease where that is possible.
    ///
    /// # Errors
    /// If the API server cannot be asked; what we held stays held until its deadline.
    pub async fn round(&mut self) -> Result<()> {
        tokio::time::timeout(REQUEST_TIMEOUT, self.round_inner()).await.context("no answer in time")?
    }

    async fn round_inner(&mut self) -> Result<()> {
        let started = Instant::now();
        let Some(mut lease) = self.api.get_opt(&self.name).await.context("reading the lease")? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.name.clone());
            lease.spec = Some(self.spec(&LeaseSpec::default()));
            let created = self.api.create(&PostParams::default(), &lease).await;
            return self.written(created, started);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((known, since)) if *known == spec => *since,
            _ => started,
        };
        self.seen = Some((spec.clone(), since));
        if decide(&spec, &self.identity, started.duration_since(since)) == Decision::Wait {
            self.deadline = None;
            return Ok(());
        }
        lease.spec = Some(self.spec(&spec));
        let replaced = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        self.written(replaced, started)
    }

    fn written(&mut self, answer: kube::Result<Lease>, started: Instant) -> Result<()> {
        match answer {
            Ok(_) => {
                if self.deadline.is_none() {
                    tracing::info!(identity = self.identity, "leading");
                }
                self.deadline = Some(started + DURATION);
                Ok(())
            }
            // Somebody else was faster; the next round sees who.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error).context("writing the lease"),
        }
    }

    fn spec(&self, old: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
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

    /// Gives the lease back, so that a successor need not wait.
    ///
    /// # Errors
    /// If the API server cannot be asked.
    pub async fn release(&mut self) -> Result<()> {
        if self.deadline.take().is_none() {
            return Ok(());
        }
        let mut lease = self.api.get(&self.name).await.context("reading the lease")?;
        if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity)) {
            spec.holder_identity = None;
            self.api.replace(&self.name, &PostParams::default(), &lease).await.context("releasing the lease")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
