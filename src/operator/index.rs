//! Pools and Services as the API server tells them, and the world that `core` plans over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use kube::runtime::watcher;
use portolan_core::ipam::{Block, Family, Pool, PoolSpec, Requirement, Selector, SelectorError, ServiceInput, World};
use portolan_core::service::ServiceName;

use crate::api::pool::{CiliumLoadBalancerIPPool, PoolBlock, ServiceSelector};
use crate::api::strings::{
    ANNOTATION_IPS, ANNOTATION_IPS_FORMER, CONDITION_SATISFIED, FIELD_MANAGER, SELECTOR_NAME, SELECTOR_NAMESPACE,
};

/// A change of the cluster.
#[expect(clippy::large_enum_variant, reason = "an event lives for one call; boxing would cost an allocation each")]
pub(super) enum Event {
    Pool(watcher::Event<CiliumLoadBalancerIPPool>),
    Service(watcher::Event<Service>),
}

/// The newest state known of every object.
#[derive(Default)]
pub(super) struct Index {
    pub(super) pools: Objects<String, CiliumLoadBalancerIPPool>,
    pub(super) services: Objects<ServiceName, Service>,
}

/// Objects of one kind.
pub(super) struct Objects<K, T> {
    pub(super) all: BTreeMap<K, T>,
    fresh: BTreeMap<K, T>,
    synced: bool,
}

impl<K, T> Default for Objects<K, T> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), fresh: BTreeMap::new(), synced: false }
    }
}

impl<K: Ord, T: ResourceExt> Objects<K, T> {
    fn take(&mut self, event: watcher::Event<T>, key: impl Fn(&T) -> K) {
        match event {
            watcher::Event::Init => self.fresh.clear(),
            watcher::Event::InitApply(object) => {
                self.fresh.insert(key(&object), object);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.fresh);
                self.replace(listed);
                self.synced = true;
            }
            watcher::Event::Apply(object) => self.put(key(&object), object),
            watcher::Event::Delete(object) => {
                let key = key(&object);
                if self.all.get(&key).is_none_or(|known| !newer(known, &object)) {
                    self.all.remove(&key);
                }
            }
        }
    }

    /// An answer to a request of ours may be newer than what the watch tells next.
    fn put(&mut self, key: K, object: T) {
        if self.all.get(&key).is_none_or(|known| !newer(known, &object)) {
            self.all.insert(key, object);
        }
    }

    /// What a list does not have is gone.
    fn replace(&mut self, listed: BTreeMap<K, T>) {
        self.all.retain(|key, _| listed.contains_key(key));
        listed.into_iter().for_each(|(key, object)| self.put(key, object));
    }
}

/// Whether `known` is of a later version, be it the same object or one that was made in its place. Versions are opaque by
/// contract and numbers by fact (KEP-5504 makes it contract); where they are not, the event wins.
fn newer<T: ResourceExt>(known: &T, event: &T) -> bool {
    let version = |object: &T| object.resource_version().and_then(|version| version.parse::<u64>().ok());
    matches!((version(known), version(event)), (Some(known), Some(event)) if known > event)
}

impl Index {
    pub(super) fn synced(&self) -> bool {
        self.pools.synced && self.services.synced
    }

    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Pool(event) => self.pools.take(event, ResourceExt::name_any),
            Event::Service(event) => self.services.take(event, service_name),
        }
    }

    /// Takes in what was read of one Service, which is newer than what the watches have told.
    pub(super) fn read(&mut self, name: &ServiceName, service: Option<Service>) {
        match service {
            Some(service) => self.services.put(name.clone(), service),
            None => drop(self.services.all.remove(name)),
        }
    }

    /// Takes in what was listed, which is newer than what the watches have told.
    pub(super) fn listed(&mut self, pools: Vec<CiliumLoadBalancerIPPool>, services: Vec<Service>) {
        self.pools.replace(pools.into_iter().map(|pool| (pool.name_any(), pool)).collect());
        self.services.replace(services.into_iter().map(|service| (service_name(&service), service)).collect());
    }

    /// The world to plan over.
    pub(super) fn world(&self) -> World {
        let pools = self.pools.all.iter().map(|(name, pool)| (name.clone(), Pool::new(&pool_spec(pool))));
        let ours = self.services.all.iter().filter(|(_, service)| is_ours(service));
        let services = ours.map(|(name, service)| (name.clone(), service_input(name, service)));
        World { pools: pools.collect(), services: services.collect() }
    }
}

fn service_name(service: &Service) -> ServiceName {
    ServiceName { namespace: service.namespace().unwrap_or_default(), name: service.name_any() }
}

/// Type LoadBalancer without a class; every class belongs to somebody.
pub(super) fn is_ours(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none())
}

/// Whether our condition stands in the status: we have served it.
pub(super) fn has_condition(service: &Service) -> bool {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == CONDITION_SATISFIED))
}

/// Whether the addresses in the status are what we wrote last. Our condition alone does not say so: a Service that no
/// pool selects carries it too, and may have its address from another controller (cilium #39805). The API server keeps
/// count of writers; where a client has cleared that record, the condition decides.
pub(super) fn owns_ingress(service: &Service) -> bool {
    let Some(entries) = service.metadata.managed_fields.as_ref().filter(|entries| !entries.is_empty()) else {
        return has_condition(service);
    };
    entries.iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER) && writes_ingress(entry))
}

fn writes_ingress(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref();
    fields.is_some_and(|fields| fields.0.pointer("/f:status/f:loadBalancer/f:ingress").is_some())
}

/// When the addresses were written, by the API server's clock: a stale write is younger there than what it collides with,
/// whatever its writer believed. Where that record was cleared, the Service's age stands in.
fn held_since(service: &Service) -> i64 {
    let entries = service.metadata.managed_fields.iter().flatten().filter(|entry| writes_ingress(entry));
    let written = entries.filter_map(|entry| entry.time.as_ref()).map(|time| time.0.as_second()).min();
    written.unwrap_or_else(|| created(service))
}

/// Addresses in the status.
pub(super) fn ingress(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|entry| entry.ip.as_ref()?.parse().ok()).collect()
}

fn service_input(name: &ServiceName, service: &Service) -> ServiceInput {
    let mut labels = service.labels().clone();
    labels.insert(SELECTOR_NAMESPACE.to_owned(), name.namespace.clone());
    labels.insert(SELECTOR_NAME.to_owned(), name.name.clone());
    let (requested, unreadable) = requests(service);
    ServiceInput {
        labels,
        ingress: ingress(service),
        families: families(service),
        requested,
        unreadable,
        created: created(service),
        held_since: held_since(service),
        known: owns_ingress(service),
        marked: has_condition(service),
    }
}

/// Addresses that a Service asks for by number, each once, and what in their place is no address. `loadBalancerIP` comes
/// first, then the annotation; an empty annotation hides the one of the former name.
fn requests(service: &Service) -> (Vec<IpAddr>, Vec<String>) {
    let field = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref()).unwrap_or_default();
    let annotations = service.annotations();
    let annotation = annotations.get(ANNOTATION_IPS).or_else(|| annotations.get(ANNOTATION_IPS_FORMER));
    let entries = std::iter::once(field).chain(annotation.map_or("", String::as_str).split(','));
    let (mut requested, mut unreadable) = (Vec::new(), Vec::new());
    for entry in entries.map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.parse() {
            Ok(address) if requested.contains(&address) => {}
            Ok(address) => requested.push(address),
            Err(_) => unreadable.push(entry.to_owned()),
        }
    }
    (requested, unreadable)
}

/// The families that a Service asks for. The API server fills `ipFamilies` in, except for Services without a selector
/// from before it did.
fn families(service: &Service) -> BTreeSet<Family> {
    let spec = service.spec.as_ref();
    let listed = spec.and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    let family = |text: &String| if text == "IPv6" { Family::V6 } else { Family::V4 };
    let policy = spec.and_then(|spec| spec.ip_family_policy.as_deref()).unwrap_or("SingleStack");
    match (policy, listed.as_slice()) {
        ("SingleStack", []) => BTreeSet::from([Family::V4]),
        ("SingleStack", [first, ..]) => BTreeSet::from([family(first)]),
        ("RequireDualStack", _) | (_, []) => BTreeSet::from([Family::V4, Family::V6]),
        (_, listed) => listed.iter().map(family).collect(),
    }
}

fn created<T: ResourceExt>(object: &T) -> i64 {
    object.creation_timestamp().map(|time| time.0.as_second()).unwrap_or_default()
}

fn pool_spec(pool: &CiliumLoadBalancerIPPool) -> PoolSpec {
    let blocks = |list: &[PoolBlock]| -> Vec<Block> {
        let block = |block: &PoolBlock| Block {
            cidr: block.cidr.clone(),
            start: block.start.clone(),
            stop: block.stop.clone(),
        };
        list.iter().map(block).collect()
    };
    let (allow_first_last, allow_first_last_unknown) = match pool.spec.allow_first_last_ips.as_deref() {
        None | Some("") => (None, None),
        Some("Yes") => (Some(true), None),
        Some("No") => (Some(false), None),
        // Leaving them out takes nothing from anybody.
        Some(other) => (Some(false), Some(other.to_owned())),
    };
    PoolSpec {
        blocks: blocks(&pool.spec.blocks),
        cidrs: blocks(&pool.spec.cidrs),
        allow_first_last,
        allow_first_last_unknown,
        selector: pool.spec.service_selector.as_ref().map_or(Ok(Selector::default()), selector),
        disabled: pool.spec.disabled,
        created: created(pool),
    }
}

fn selector(selector: &ServiceSelector) -> Result<Selector, SelectorError> {
    let labels = selector.match_labels.iter().flatten();
    let equal = labels.map(|(key, value)| Requirement::from_api(key, "In", vec![value.clone()]));
    let expressions = selector.match_expressions.iter().flatten();
    let expressed =
        expressions.map(|one| Requirement::from_api(&one.key, &one.operator, one.values.clone().unwrap_or_default()));
    Ok(Selector(equal.chain(expressed).collect::<Result<_, _>>()?))
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
