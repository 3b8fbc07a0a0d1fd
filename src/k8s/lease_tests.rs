//! Tests of [`super`], by a clock that stands still until it is moved and a Lease in memory.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::k8s::clock::Clock;

/// A clock that stands still until it is moved.
#[derive(Default)]
pub(crate) struct Standing(AtomicU64);

impl Standing {
    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for Standing {
    fn now(&self) -> Duration {
        match self.0.load(Ordering::SeqCst) {
            u64::MAX => Duration::MAX,
            seconds => Duration::from_secs(seconds),
        }
    }

    /// Moves with the other one: a lease is seen to be renewed by its time.
    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH.checked_add(self.now()).unwrap_or(Timestamp::MAX)
    }
}

/// A Lease in memory, with versions as the API server has them.
#[derive(Clone, Default)]
struct Memory {
    lease: Arc<Mutex<Option<Lease>>>,
    cut_off: Arc<AtomicBool>,
}

fn refused(code: u16) -> kube::Error {
    kube::Error::Api(Box::new(kube::core::Status { code, ..kube::core::Status::default() }))
}

impl Memory {
    fn reachable(&self) -> kube::Result<()> {
        if self.cut_off.load(Ordering::SeqCst) { Err(refused(503)) } else { Ok(()) }
    }

    fn holder(&self) -> Option<String> {
        self.lease.lock().unwrap().as_ref().and_then(|lease| lease.spec.clone()?.holder_identity)
    }
}

impl Store for Memory {
    async fn read(&self) -> kube::Result<Option<Lease>> {
        self.reachable()?;
        Ok(self.lease.lock().unwrap().clone())
    }

    async fn create(&self, lease: &Lease) -> kube::Result<Lease> {
        self.reachable()?;
        let mut present = self.lease.lock().unwrap();
        if present.is_some() {
            return Err(refused(409));
        }
        let mut lease = lease.clone();
        lease.metadata.resource_version = Some("1".into());
        *present = Some(lease.clone());
        Ok(lease)
    }

    async fn replace(&self, lease: &Lease) -> kube::Result<Lease> {
        self.reachable()?;
        let mut present = self.lease.lock().unwrap();
        let version = present.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if version != lease.metadata.resource_version {
            return Err(refused(409));
        }
        let mut lease = lease.clone();
        let next = version.and_then(|version| version.parse::<u64>().ok()).unwrap_or(0) + 1;
        lease.metadata.resource_version = Some(next.to_string());
        *present = Some(lease.clone());
        Ok(lease)
    }
}

/// A candidate with a clock of its own and its connection to the one Lease.
struct Candidate {
    leadership: Leadership<Memory>,
    fence: Fence,
    clock: Arc<Standing>,
    store: Memory,
}

impl Candidate {
    fn new(name: &str, lease: &Memory) -> Self {
        let clock = Arc::new(Standing::default());
        let fence = Fence::new(clock.clone());
        let store = Memory { lease: lease.lease.clone(), cut_off: Arc::default() };
        let leadership = Leadership::new(store.clone(), name.to_owned(), fence.clone());
        Self { leadership, fence, clock, store }
    }

    fn round(&mut self, at: u64) -> anyhow::Result<()> {
        self.clock.set(at);
        // The runtime is there for its timer alone; its time does not pass.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _context = runtime.enter();
        self.leadership.round().now_or_never().expect("a Lease in memory answers at once")
    }

    fn release(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _context = runtime.enter();
        self.leadership.release().now_or_never().unwrap().unwrap();
    }
}

fn held_by(holder: Option<&str>) -> LeaseSpec {
    LeaseSpec { holder_identity: holder.map(str::to_owned), lease_duration_seconds: Some(15), ..LeaseSpec::default() }
}

#[test]
fn a_lease_is_taken_only_when_its_holder_cannot_write_any_more() {
    for (holder, unchanged, expected) in [
        (Some("me"), 0, Decision::Take),
        (None, 0, Decision::Take),
        (Some(""), 0, Decision::Take),
        (Some("other"), 0, Decision::Wait),
        (Some("other"), 16, Decision::Wait),
        (Some("other"), 20, Decision::Wait),
        (Some("other"), 21, Decision::Take),
    ] {
        assert_eq!(decide(&held_by(holder), "me", Duration::from_secs(unchanged)), expected, "{holder:?} {unchanged}");
    }
}

#[test]
fn one_leads_and_the_other_waits_until_it_has_been_silent_for_long_enough() {
    let lease = Memory::default();
    let (mut first, mut second) = (Candidate::new("a", &lease), Candidate::new("b", &lease));
    // Their clocks need not agree.
    first.round(1000).unwrap();
    second.round(5).unwrap();
    assert!(first.fence.may_write() && !second.fence.may_write());
    first.round(1002).unwrap();
    second.round(7).unwrap();
    second.round(27).unwrap();
    assert!(!second.fence.may_write(), "20 s after the last change that it saw");
    second.round(28).unwrap();
    assert!(second.fence.may_write());
    // At that moment the first one's lease is long over by its own clock.
    first.clock.set(1023);
    assert!(!first.fence.may_write() && !first.fence.held());
    first.round(1023).unwrap();
    assert!(!first.fence.may_write());
    assert_eq!(lease.holder().as_deref(), Some("b"));
}

#[test]
fn a_leader_that_is_cut_off_stops_in_time_and_goes_on_when_nobody_took_over() {
    let lease = Memory::default();
    let mut leader = Candidate::new("a", &lease);
    leader.round(0).unwrap();
    leader.store.cut_off.store(true, Ordering::SeqCst);
    assert!(format!("{:#}", leader.round(9).unwrap_err()).contains("reading the lease"));
    assert!(leader.fence.may_write());
    leader.round(10).unwrap_err();
    assert!(!leader.fence.may_write(), "one request timeout before the end");
    leader.store.cut_off.store(false, Ordering::SeqCst);
    leader.round(40).unwrap();
    assert!(leader.fence.may_write());
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let lease = Memory::default();
    let (mut first, mut second) = (Candidate::new("a", &lease), Candidate::new("b", &lease));
    first.round(0).unwrap();
    second.round(0).unwrap();
    first.release();
    assert_eq!(lease.holder(), None);
    second.round(1).unwrap();
    assert!(second.fence.may_write() && !first.fence.may_write());
    // What is not ours is not released.
    first.release();
    assert_eq!(lease.holder().as_deref(), Some("b"));
}
