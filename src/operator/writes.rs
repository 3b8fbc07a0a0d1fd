//! From the plan to status writes: only what differs. Every write holds for one resourceVersion, so that what has changed
//! since the plan was made is never overwritten. `ingress` is an atomic list and goes by merge patch, with the condition
//! that explains it; a pool's status is conditions alone and goes by server-side apply.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use portolan_core::ipam::plan;
use portolan_core::service::ServiceName;
use serde_json::Value;

use super::index::{Event, Index};
use super::{pool_status, service_status};
use crate::api::pool::CiliumLoadBalancerIPPool;
use crate::api::strings as names;
use crate::k8s::events::Note;

/// One status write.
pub(super) enum Write {
    Service(ServiceName, service_status::Change),
    Pool(String, Value),
}

/// A write that was done: the object as it stands since, and what to tell about it.
pub(super) struct Done {
    pub(super) event: Event,
    pub(super) notes: Vec<Note>,
}

impl Write {
    /// The Service that is written.
    pub(super) fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service(name, _) => Some(name),
            Self::Pool(..) => None,
        }
    }

    fn loses(&self) -> &[IpAddr] {
        match self {
            Self::Service(_, change) => &change.loses,
            Self::Pool(..) => &[],
        }
    }

    /// Sends it. `None` if the object has changed or is gone, which is no error.
    pub(super) async fn send(self, client: &Client) -> Result<Option<Done>> {
        match self {
            Self::Service(name, change) => {
                let params =
                    PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
                let api = Api::<Service>::namespaced(client.clone(), &name.namespace);
                let answer = api.patch_status(&name.name, &params, &Patch::Merge(change.body)).await;
                let service = settled(answer).with_context(|| format!("writing the status of service {name}"))?;
                let event = service.map(|service| Event::Service(watcher::Event::Apply(service)));
                Ok(event.map(|event| Done { event, notes: change.notes }))
            }
            Self::Pool(name, body) => {
                let params = PatchParams::apply(names::FIELD_MANAGER).force();
                let api = Api::<CiliumLoadBalancerIPPool>::all(client.clone());
                let answer = api.patch_status(&name, &params, &Patch::Apply(body)).await;
                let pool = settled(answer).with_context(|| format!("writing the status of pool {name}"))?;
                Ok(pool.map(|pool| Done { event: Event::Pool(watcher::Event::Apply(pool)), notes: Vec::new() }))
            }
        }
    }
}

fn settled<T>(answer: kube::Result<T>) -> kube::Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// The writes that the world needs now, and whether more are needed once these are done.
///
/// Of two writes that are sent at once either may fail or come first. So an address is given to nobody before it was taken
/// from whom it is taken from; and while it is not known what came of an earlier write (`in_doubt`), none is given out: it
/// might be one that was given out already.
pub(super) fn safe(index: &Index, now: Timestamp, in_doubt: bool) -> (Vec<Write>, bool) {
    let writes = needed(index, now);
    let leaving: BTreeSet<IpAddr> = writes.iter().flat_map(|write| write.loses().iter().copied()).collect();
    let must_wait = |change: &service_status::Change| {
        !change.gains.is_empty() && (in_doubt || change.gains.iter().any(|address| leaving.contains(address)))
    };
    let mut waiting = false;
    let sent = writes.into_iter().filter_map(|write| match write {
        Write::Service(name, change) if must_wait(&change) => {
            waiting = true;
            let release = change.release(index.services.all.get(&name)?)?;
            Some(Write::Service(name, release))
        }
        other => Some(other),
    });
    let sent = sent.collect();
    (sent, waiting)
}

fn needed(index: &Index, now: Timestamp) -> Vec<Write> {
    let world = index.world();
    let plan = plan(&world);
    let services = index.services.all.iter().filter_map(|(name, service)| {
        let change = service_status::needed(&world, name, service, plan.services.get(name), now)?;
        Some(Write::Service(name.clone(), change))
    });
    let pools = index.pools.all.iter().filter_map(|(name, object)| {
        let body = pool_status::needed(object, world.pools.get(name)?, plan.pools.get(name)?, now)?;
        Some(Write::Pool(name.clone(), body))
    });
    services.chain(pools).collect()
}

#[cfg(test)]
#[path = "writes_tests.rs"]
mod tests;
