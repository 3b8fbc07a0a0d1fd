//! What the kernel's Service maps should hold, and the order of writes that leads there without an empty window.
//!
//! All frontends of a Service port share one service id, whose one value says which generation of backend slots is live.
//! A change writes a whole new generation beside the live one and then replaces that value: a packet sees the old set or
//! the new one, never a mix and never nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::service::{Backend, Frontend, FrontendKind, PortName, Protocol, ServicePort};

/// Key of a frontend in the kernel. Port 0 and no protocol is the entry that marks an address as a VIP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Address; unspecified for a NodePort.
    pub address: IpAddr,
    /// Port, 0 for the wildcard.
    pub port: u16,
    /// Protocol, `None` for the wildcard.
    pub protocol: Option<Protocol>,
}

/// Value of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendEntry {
    /// Service id, 0 for the wildcard.
    pub service: u32,
    /// Kind of the address.
    pub kind: FrontendKind,
}

/// Value of a service id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Live generation.
    pub generation: u32,
    /// Number of slots.
    pub count: u32,
}

/// Key of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// Service id.
    pub service: u32,
    /// Generation.
    pub generation: u32,
    /// Slot, from 0.
    pub slot: u32,
}

/// One write to the kernel's maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Insert or replace a backend.
    PutBackend(u32, Backend),
    /// Insert or replace a slot.
    PutSlot(SlotKey, u32),
    /// Insert or replace a service: the switch.
    PutService(u32, ServiceEntry),
    /// Insert or replace a frontend.
    PutFrontend(FrontendKey, FrontendEntry),
    /// Remove a frontend.
    DeleteFrontend(FrontendKey),
    /// Remove a service.
    DeleteService(u32),
    /// Remove a slot.
    DeleteSlot(SlotKey),
    /// Remove a backend.
    DeleteBackend(u32),
}

/// Content of the kernel's Service maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Map `frontends`.
    pub frontends: BTreeMap<FrontendKey, FrontendEntry>,
    /// Map `services`.
    pub services: BTreeMap<u32, ServiceEntry>,
    /// Map `slots`.
    pub slots: BTreeMap<SlotKey, u32>,
    /// Map `backends`.
    pub backends: BTreeMap<u32, Backend>,
}

impl Tables {
    /// Carries one write out.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::PutBackend(id, backend) => {
                self.backends.insert(*id, backend.clone());
            }
            Op::PutSlot(key, backend) => {
                self.slots.insert(*key, *backend);
            }
            Op::PutService(id, entry) => {
                self.services.insert(*id, *entry);
            }
            Op::PutFrontend(key, entry) => {
                self.frontends.insert(key.clone(), *entry);
            }
            Op::DeleteFrontend(key) => {
                self.frontends.remove(key);
            }
            Op::DeleteService(id) => {
                self.services.remove(id);
            }
            Op::DeleteSlot(key) => {
                self.slots.remove(key);
            }
            Op::DeleteBackend(id) => {
                self.backends.remove(id);
            }
        }
    }

    /// The backends that a frontend resolves to, as a packet would see it; `None` if the frontend is not there.
    #[must_use]
    pub fn resolve(&self, key: &FrontendKey) -> Option<BTreeSet<Backend>> {
        let entry = self.frontends.get(key)?;
        let service = self.services.get(&entry.service)?;
        (0..service.count)
            .map(|slot| {
                let key = SlotKey { service: entry.service, generation: service.generation, slot };
                self.slots.get(&key).and_then(|id| self.backends.get(id)).cloned()
            })
            .collect()
    }
}

/// What was written so far, with the ids given out.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    tables: Tables,
    ids: BTreeMap<PortName, u32>,
    service_last: u32,
    backend_last: u32,
}

impl Planner {
    /// Takes over what a former agent left in the kernel, ids included: flows in the kernel name them.
    #[must_use]
    pub fn adopt(tables: Tables) -> Self {
        let service_last = tables
            .services
            .keys()
            .chain(tables.frontends.values().map(|entry| &entry.service))
            .max()
            .copied()
            .unwrap_or(0);
        let backend_last = tables.backends.keys().max().copied().unwrap_or(0);
        Self { tables, ids: BTreeMap::new(), service_last, backend_last }
    }

    /// What the kernel should hold now.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The writes, in order, that lead from what is there to `desired`; afterwards they count as done.
    pub fn plan(&mut self, desired: &BTreeMap<PortName, ServicePort>) -> Vec<Op> {
        let mut ops = Vec::new();
        let mut frontends: BTreeMap<FrontendKey, FrontendEntry> = BTreeMap::new();
        let mut live: BTreeMap<u32, ServiceEntry> = BTreeMap::new();
        let backend_ids = self.backends(desired, &mut ops);
        for (name, port) in desired {
            let id = self.service_id(name, port);
            let entry = self.slots(id, port, &backend_ids, &mut ops);
            live.insert(id, entry);
            for frontend in &port.frontends {
                claim(&mut frontends, frontend, id);
            }
        }
        // A frontend that moves between two services must find backends on either side of the move: services that have
        // some come before the frontends, services that lose their last one after. One that is new has none to lose, and
        // no frontend may name a service that is not there.
        let changed = |before: bool| {
            let tables = &self.tables;
            live.iter()
                .filter(move |(id, entry)| {
                    let present = tables.services.get(id);
                    (entry.count > 0 || present.is_none()) == before && present != Some(entry)
                })
                .map(|(id, entry)| Op::PutService(*id, *entry))
        };
        ops.extend(changed(true));
        for (key, entry) in &frontends {
            if self.tables.frontends.get(key) != Some(entry) {
                ops.push(Op::PutFrontend(key.clone(), *entry));
            }
        }
        ops.extend(changed(false));
        self.removals(&frontends, &live, &backend_ids, &mut ops);
        for op in &ops {
            self.tables.apply(op);
        }
        self.ids.retain(|name, _| desired.contains_key(name));
        ops
    }

    /// Gives every known backend an id; new ones are written first of all.
    fn backends(&mut self, desired: &BTreeMap<PortName, ServicePort>, ops: &mut Vec<Op>) -> BTreeMap<Backend, u32> {
        let mut ids: BTreeMap<Backend, u32> = BTreeMap::new();
        for (id, backend) in &self.tables.backends {
            ids.entry(backend.clone()).or_insert(*id);
        }
        let wanted: BTreeSet<&Backend> = desired.values().flat_map(|port| &port.known).collect();
        ids.retain(|backend, _| wanted.contains(backend));
        for backend in wanted {
            if !ids.contains_key(backend) {
                self.backend_last = next_id(self.backend_last, |id| self.tables.backends.contains_key(&id));
                ids.insert(backend.clone(), self.backend_last);
                ops.push(Op::PutBackend(self.backend_last, backend.clone()));
            }
        }
        ids
    }

    /// The id of a Service port: the one it has, the one its frontends have in the kernel, or a new one.
    fn service_id(&mut self, name: &PortName, port: &ServicePort) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let taken: BTreeSet<u32> = self.ids.values().copied().collect();
        // By the ClusterIP alone: the API server gives it to one Service only, while anybody may claim an externalIP.
        let mut own = port.frontends.iter().filter(|frontend| frontend.kind == FrontendKind::ClusterIp);
        let adopted = own.find_map(|frontend| {
            let entry = self.tables.frontends.get(&key(frontend))?;
            (entry.service != 0 && !taken.contains(&entry.service)).then_some(entry.service)
        });
        let id = adopted.unwrap_or_else(|| {
            next_id(self.service_last, |id| taken.contains(&id) || self.tables.services.contains_key(&id))
        });
        self.service_last = self.service_last.max(id);
        self.ids.insert(name.clone(), id);
        id
    }

    /// Keeps the live generation if it holds just the wanted backends, else writes the next one.
    fn slots(&self, id: u32, port: &ServicePort, ids: &BTreeMap<Backend, u32>, ops: &mut Vec<Op>) -> ServiceEntry {
        let wanted: Vec<u32> = port.selectable.iter().filter_map(|backend| ids.get(backend)).copied().collect();
        let current = self.tables.services.get(&id).copied();
        if let Some(current) = current {
            let held: Option<BTreeSet<u32>> = (0..current.count)
                .map(|slot| {
                    self.tables.slots.get(&SlotKey { service: id, generation: current.generation, slot }).copied()
                })
                .collect();
            if held.is_some_and(|held| held.len() == wanted.len() && wanted.iter().all(|id| held.contains(id))) {
                return current;
            }
        }
        let generation = current.map_or(0, |current| current.generation.wrapping_add(1));
        let mut count = 0;
        for backend in wanted {
            ops.push(Op::PutSlot(SlotKey { service: id, generation, slot: count }, backend));
            count += 1;
        }
        ServiceEntry { generation, count }
    }

    fn removals(
        &self,
        frontends: &BTreeMap<FrontendKey, FrontendEntry>,
        live: &BTreeMap<u32, ServiceEntry>,
        backends: &BTreeMap<Backend, u32>,
        ops: &mut Vec<Op>,
    ) {
        let gone = |key: &&FrontendKey| !frontends.contains_key(*key);
        ops.extend(self.tables.frontends.keys().filter(gone).cloned().map(Op::DeleteFrontend));
        let gone = |id: &&u32| !live.contains_key(*id);
        ops.extend(self.tables.services.keys().filter(gone).copied().map(Op::DeleteService));
        let stale = |key: &&SlotKey| {
            live.get(&key.service).is_none_or(|entry| entry.generation != key.generation || key.slot >= entry.count)
        };
        ops.extend(self.tables.slots.keys().filter(stale).copied().map(Op::DeleteSlot));
        let used: BTreeSet<u32> = backends.values().copied().collect();
        ops.extend(self.tables.backends.keys().filter(|id| !used.contains(id)).copied().map(Op::DeleteBackend));
    }
}

/// The next id after `last` that is not taken; 0 is never an id. Going round keeps an id from being reused soon, while
/// flows in the kernel may still name it.
fn next_id(last: u32, taken: impl Fn(u32) -> bool) -> u32 {
    let mut id = last;
    loop {
        id = id.wrapping_add(1).max(1);
        if !taken(id) {
            return id;
        }
    }
}

/// Two Services may name one address and port (externalIPs are free text): the first by name keeps it.
fn claim(frontends: &mut BTreeMap<FrontendKey, FrontendEntry>, frontend: &Frontend, service: u32) {
    frontends.entry(key(frontend)).or_insert(FrontendEntry { service, kind: frontend.kind });
    if frontend.kind != FrontendKind::NodePort {
        let wildcard = FrontendKey { address: frontend.address, port: 0, protocol: None };
        frontends.entry(wildcard).or_insert(FrontendEntry { service: 0, kind: frontend.kind });
    }
}

/// The kernel's key of a frontend.
#[must_use]
pub fn key(frontend: &Frontend) -> FrontendKey {
    FrontendKey { address: frontend.address, port: frontend.port, protocol: Some(frontend.protocol) }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
