//! Every write in the order in which the API server saw it, with who made it, and what must hold at each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use apiserver::{ApiServer, HistoryError, HistoryEvent};
use portolan_core::ipam::{Pool, World, plan};
use serde_json::Value;

use crate::case::Who;
use crate::model::{self, Objects, ingress, is_ours, service_input, service_name};

pub(crate) const SERVICES: &str = "/services";
pub(crate) const POOLS: &str = "cilium.io/ciliumloadbalancerippools";
pub(crate) const SLICES: &str = "discovery.k8s.io/endpointslices";
pub(crate) const NODES: &str = "/nodes";
pub(crate) const LEASES: &str = "coordination.k8s.io/leases";
const FOLLOWED: [&str; 5] = [SERVICES, POOLS, SLICES, NODES, LEASES];

/// Which rule was broken; a smaller case must break the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// No address is in the status of two Services.
    Unique,
    /// A new address comes from a pool that may give it.
    InPool,
    /// An address stays while nothing speaks against it.
    Stays,
    /// In the end the cluster is as planned.
    Settles,
    /// When all is as planned, nothing is written, also not by an operator that has just started.
    Rests,
    /// In the end the node is as planned.
    NodeSettles,
    /// A frontend with backends never leads nowhere.
    NeverEmpty,
    /// A change of endpoints is in the maps in the moment in which it is known.
    AtOnce,
    /// A write to the maps that failed is made good soon.
    MadeGood,
    /// No loop ends by itself, or spins.
    Alive,
    /// Nothing is asked for that the installed roles do not allow.
    Allowed,
}

/// A broken rule.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) at: u64,
    pub(crate) text: String,
}

/// Who wrote.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    /// Nobody of ours: users and other controllers.
    pub(crate) who: Option<Who>,
    /// Its sender had given up, or was dead, when the write arrived.
    pub(crate) late: bool,
    /// The newest revision of each resource that it had been told when it sent this.
    pub(crate) knew: BTreeMap<&'static str, u64>,
}

/// The books.
#[derive(Default)]
pub(crate) struct Ledger {
    revision: u64,
    pub(crate) services: Objects,
    pub(crate) pools: BTreeMap<String, Arc<Value>>,
    pub(crate) slices: Objects,
    pub(crate) nodes: Objects,
    /// The pools as they were from each revision on.
    past_pools: Vec<(u64, BTreeMap<String, Arc<Value>>)>,
    /// Addresses that somebody lost at a revision.
    lost: BTreeMap<IpAddr, u64>,
    /// Addresses that other controllers or late writes brought: what collides with them is not the operator's doing.
    irregular: BTreeSet<(String, String, IpAddr)>,
    pub(crate) violations: Vec<Violation>,
    /// Writes of operators, but to the lease.
    pub(crate) writes: u64,
    digest: DefaultHasher,
    pub(crate) trace: Option<Vec<String>>,
    /// What went wrong and was met, so that no fault is one in name only.
    pub(crate) met: BTreeSet<&'static str>,
    holder: String,
}

impl Ledger {
    /// Empty books; with a trace for whoever reads a replay.
    pub(crate) fn new(trace: bool) -> Self {
        Self { trace: trace.then(Vec::new), ..Self::default() }
    }

    /// Notes a broken rule.
    pub(crate) fn break_rule(&mut self, rule: Rule, at: u64, text: String) {
        self.tell(at, || format!("BROKEN {rule:?}: {text}"));
        self.violations.push(Violation { rule, at, text });
    }

    /// A line for whoever reads a replay.
    pub(crate) fn tell(&mut self, at: u64, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{at:>6} ms  {}", line()));
        }
    }

    /// A number that is equal for equal histories.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// Reads what was written since, as written by `writer`.
    pub(crate) fn absorb(&mut self, server: &ApiServer, at: u64, writer: &Writer) {
        if server.revision() == self.revision {
            return;
        }
        let mut events: Vec<HistoryEvent> = Vec::new();
        for resource in FOLLOWED {
            let (group, plural) = resource.split_once('/').unwrap_or_default();
            match server.history(group, plural, self.revision) {
                Ok(found) => events.extend(found),
                // Nothing is written to it before it is installed.
                Err(HistoryError::UnknownResource(_)) => {}
                Err(gone) => self.break_rule(Rule::Alive, at, format!("the ledger lost history: {gone}")),
            }
        }
        events.sort_by_key(|event| event.revision);
        self.revision = server.revision();
        for event in events {
            self.take(&event, at, writer);
        }
    }

    fn take(&mut self, event: &HistoryEvent, at: u64, writer: &Writer) {
        let key = (event.key.namespace.clone(), event.key.name.clone());
        let text = event.after.as_ref().map(|object| object.to_string());
        (event.revision, at, &key, &text).hash(&mut self.digest);
        let resource = &*event.key.resource;
        if resource == LEASES {
            self.follow_lease(event.after.as_deref());
        } else {
            self.writes += u64::from(writer.who.is_some());
        }
        self.tell(at, || {
            let status = event.after.as_ref().map(|object| match resource {
                LEASES => object["spec"]["holderIdentity"].to_string(),
                SERVICES => format!("{:?} {}", ingress(object), object["status"]["conditions"]),
                POOLS => object["status"].to_string(),
                _ => object["endpoints"].to_string(),
            });
            format!(
                "r{} {}{} wrote {resource} {}/{}: {}",
                event.revision,
                writer.who.map_or("a user".to_owned(), |who| format!("{who:?}")),
                if writer.late { " (late)" } else { "" },
                key.0,
                key.1,
                status.as_deref().unwrap_or("gone")
            )
        });
        match resource {
            POOLS => {
                put(&mut self.pools, key.1, event.after.as_ref());
                self.past_pools.push((event.revision, self.pools.clone()));
            }
            SLICES => put(&mut self.slices, key, event.after.as_ref()),
            NODES => put(&mut self.nodes, key, event.after.as_ref()),
            SERVICES => {
                put(&mut self.services, key.clone(), event.after.as_ref());
                self.check_addresses(&key, event, at, writer);
            }
            _ => {}
        }
    }

    fn follow_lease(&mut self, lease: Option<&Value>) {
        let holder = lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or_default();
        if holder.is_empty() {
            self.met.insert("lease released");
        } else if !self.holder.is_empty() && holder != self.holder {
            self.met.insert("lease taken over");
        }
        if !holder.is_empty() {
            self.holder = holder.to_owned();
        }
    }

    fn check_addresses(&mut self, key: &(String, String), event: &HistoryEvent, at: u64, writer: &Writer) {
        let before = event.before.as_ref().map(|object| ingress(object)).unwrap_or_default();
        let after = event.after.as_ref().map(|object| ingress(object)).unwrap_or_default();
        for address in before.iter().filter(|address| !after.contains(address)) {
            self.irregular.remove(&(key.0.clone(), key.1.clone(), *address));
            if let (Some(_), Some(old)) = (writer.who, &event.before) {
                self.met.insert("address taken back");
                self.check_loss(key, old, *address, &after, at, writer);
            }
            self.lost.insert(*address, event.revision);
        }
        for address in after.iter().filter(|address| !before.contains(address)) {
            if writer.who.is_none() || writer.late {
                self.irregular.insert((key.0.clone(), key.1.clone(), *address));
            }
            if let (Some(_), Some(new)) = (writer.who, &event.after) {
                self.check_gain(key, new, *address, at, writer);
            }
        }
    }

    /// An operator gave an address out: nobody else has it, and a pool that the operator may have known gives it.
    fn check_gain(&mut self, key: &(String, String), service: &Value, address: IpAddr, at: u64, writer: &Writer) {
        let others = self.services.iter().filter(|(other, object)| *other != key && ingress(object).contains(&address));
        let regular: Vec<String> = others
            .filter(|(other, _)| !self.irregular.contains(&(other.0.clone(), other.1.clone(), address)))
            .map(|(other, _)| other.1.clone())
            .collect();
        if writer.late {
            self.met.insert("address by a late write");
        }
        if !regular.is_empty() && !writer.late {
            let text = format!("{:?} gave {address} to {}, which {} has", writer.who, key.1, regular.join(", "));
            self.break_rule(Rule::Unique, at, text);
        }
        let labels = service_input(&service_name(key), service).labels;
        let gives = |pools: &BTreeMap<String, Arc<Value>>| {
            let pools = pools.iter().map(|(name, object)| (name.clone(), model::pool(object)));
            let world = World { pools: pools.collect(), services: BTreeMap::new() };
            let planned = plan(&world);
            world.pools.iter().any(|(name, pool)| {
                !pool.disabled
                    && planned.pools[name].conflict.is_none()
                    && pool.selects(&labels)
                    && pool.offers(address)
            })
        };
        if !self.known_pools(writer).any(gives) {
            let text = format!("{:?} gave {address} to {}, and no pool gives that", writer.who, key.1);
            self.break_rule(Rule::InPool, at, text);
        }
    }

    /// An operator took an address away: something speaks against it.
    fn check_loss(
        &mut self,
        key: &(String, String),
        service: &Value,
        address: IpAddr,
        after: &[IpAddr],
        at: u64,
        writer: &Writer,
    ) {
        let input = service_input(&service_name(key), service);
        let another = after.iter().any(|other| other.is_ipv4() == address.is_ipv4());
        let unwanted = if input.requested.is_empty() {
            another && input.ingress.len() > 1 || address.is_ipv6()
        } else {
            !input.requested.contains(&address)
        };
        let covers = |pool: &Pool| {
            (pool.covers(address) && pool.selects(&input.labels))
                || (input.known && pool.unclear_for(&input.labels, address))
        };
        let uncovered =
            |pools: &BTreeMap<String, Arc<Value>>| !pools.values().any(|object| covers(&model::pool(object)));
        let since = writer.knew.get(SERVICES).copied().unwrap_or(0);
        let collides = self.lost.get(&address).is_some_and(|lost| *lost >= since)
            || self.services.iter().any(|(other, object)| other != key && ingress(object).contains(&address));
        if is_ours(service) && !unwanted && !collides && !self.known_pools(writer).any(uncovered) {
            self.break_rule(Rule::Stays, at, format!("{:?} took {address} from {} without cause", writer.who, key.1));
        }
    }

    /// The pools as they were at some moment from what the writer knew until now.
    fn known_pools(&self, writer: &Writer) -> impl Iterator<Item = &BTreeMap<String, Arc<Value>>> + use<'_> {
        let knew = writer.knew.get(POOLS).copied().unwrap_or(0);
        let first = self.past_pools.partition_point(|(revision, _)| *revision <= knew).saturating_sub(1);
        self.past_pools[first..].iter().map(|(_, pools)| pools)
    }
}

fn put<K: Ord>(objects: &mut BTreeMap<K, Arc<Value>>, key: K, object: Option<&Arc<Value>>) {
    match object {
        Some(object) => objects.insert(key, Arc::clone(object)),
        None => objects.remove(&key),
    };
}
