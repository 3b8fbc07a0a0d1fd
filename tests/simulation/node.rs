//! A node without a kernel: maps, routes and peers in memory, and what must hold at each write to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use portolan::agent::nodes::Neighbourhood;
use portolan::datapath::ServiceMaps;
use portolan::node::routes::Peer;
use portolan_core::datapath::{FrontendKey, Op, Tables, key};
use portolan_core::service::{Backend, service_ports};
use serde_json::Value;

use crate::case::Who;
use crate::ledger::{Ledger, Rule, SERVICES, SLICES};
use crate::model::{self, Objects, service_name};
use crate::mutant::Mutant;
use crate::network::{Life, Network};

/// The name of the node that the agent runs on.
pub(crate) const OWN: &str = "n0";

/// A write to the node that failed is made good within this time, in ms.
const REPAIRED: u64 = 2000;

/// What the node holds. It outlives its agent, as a kernel does.
#[derive(Default)]
pub(crate) struct Kernel {
    tables: Tables,
    routes: Vec<(String, String)>,
    peers: Vec<String>,
    heard: Heard,
    /// When a write failed last.
    failed: Option<u64>,
}

/// Services and slices as the living agent was told of them.
#[derive(Default)]
struct Heard {
    services: Option<Objects>,
    slices: Option<Objects>,
}

type Resolved = BTreeMap<FrontendKey, BTreeSet<Backend>>;

/// Where each frontend should lead, and all backends that should be known.
fn wanted(services: &Objects, slices: &Objects) -> (Resolved, BTreeSet<Backend>) {
    let services = services.iter().filter_map(|(name, object)| Some((service_name(name), model::frontends(object)?)));
    let slices: Vec<_> = slices.iter().filter_map(|(name, object)| model::slice(&name.0, object)).collect();
    let ports = service_ports(&services.collect(), slices.iter());
    let mut frontends = Resolved::new();
    for port in ports.values() {
        for frontend in &port.frontends {
            frontends.entry(key(frontend)).or_insert_with(|| port.selectable.clone());
        }
    }
    (frontends, ports.into_values().flat_map(|port| port.known).collect())
}

/// Where each frontend leads.
fn resolved(tables: &Tables) -> BTreeMap<FrontendKey, Option<BTreeSet<Backend>>> {
    let ports = tables.frontends.keys().filter(|key| key.port != 0);
    ports.map(|key| (key.clone(), tables.resolve(key))).collect()
}

/// How the maps differ from what these objects ask for.
fn map_differences(tables: &Tables, services: &Objects, slices: &Objects) -> Option<String> {
    let (frontends, backends) = wanted(services, slices);
    let held = resolved(tables);
    let frontends: BTreeMap<_, _> = frontends.into_iter().map(|(key, set)| (key, Some(set))).collect();
    if held != frontends {
        let differ = |key: &&FrontendKey| held.get(*key) != frontends.get(*key);
        let one = held.keys().chain(frontends.keys()).find(differ)?;
        return Some(format!("{one:?} leads to {:?} and should lead to {:?}", held.get(one), frontends.get(one)));
    }
    let known: BTreeSet<&Backend> = tables.backends.values().collect();
    (known != backends.iter().collect()).then(|| format!("backends are {known:?} and should be {backends:?}"))
}

/// What on the node is not as the objects ask for.
pub(crate) fn differences(kernel: &Kernel, ledger: &Ledger) -> Vec<String> {
    let mut found: Vec<String> =
        map_differences(&kernel.tables, &ledger.services, &ledger.slices).into_iter().collect();
    let (mut routes, mut peers) = (Vec::new(), Vec::new());
    for ((_, name), node) in ledger.nodes.iter().filter(|((_, name), _)| name != OWN) {
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        let internal = addresses.filter(|one| one["type"] == "InternalIP").find_map(|one| one["address"].as_str());
        if let Some(address) = internal {
            peers.push(address.to_owned());
            routes.push((name.clone(), node["spec"]["podCIDR"].as_str().unwrap_or("none").to_owned()));
        }
    }
    if kernel.routes != routes {
        found.push(format!("routes are {:?} and should be {routes:?}", kernel.routes));
    }
    if kernel.peers != peers {
        found.push(format!("peers are {:?} and should be {peers:?}", kernel.peers));
    }
    found
}

/// The node's kernel with the network that decides what fails.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) network: Arc<Network>,
    pub(crate) kernel: Arc<Mutex<Kernel>>,
}

impl Node {
    pub(crate) fn new(network: &Arc<Network>) -> Self {
        Self { network: Arc::clone(network), kernel: Arc::default() }
    }

    /// A life of the agent here: whenever it hears of a change, the maps must be true at once.
    pub(crate) fn life(&self) -> Arc<Life> {
        self.kernel.lock().unwrap().heard = Heard::default();
        let node = self.clone();
        let told = move |resource: &'static str, kind: &str, object: &Value| {
            if hear(&mut node.kernel.lock().unwrap().heard, resource, kind, object) {
                node.check_after(1, Rule::AtOnce);
            }
        };
        Life::new(Who::Agent, Some(Box::new(told)))
    }

    /// In so many ms the maps must be true to what is known then, unless a write fails meanwhile.
    fn check_after(&self, ms: u64, rule: Rule) {
        let (node, at) = (self.clone(), self.network.ms());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            let kernel = node.kernel.lock().unwrap();
            let (Some(services), Some(slices)) = (&kernel.heard.services, &kernel.heard.slices) else { return };
            let fails = rule == Rule::AtOnce && kernel.failed.is_some_and(|failed| failed + REPAIRED > at);
            if fails || kernel.failed.is_some_and(|failed| failed > at) {
                return;
            }
            if let Some(text) = map_differences(&kernel.tables, services, slices) {
                node.network.ledger().break_rule(rule, at, format!("{ms} ms later: {text}"));
            }
        });
    }

    /// Whether the next write fails; if so, it must be made good.
    fn fails(&self, kernel: &mut Kernel) -> bool {
        let fails = self.network.node_write_fails();
        if fails {
            kernel.failed = Some(self.network.ms());
            self.check_after(REPAIRED, Rule::MadeGood);
        }
        fails
    }
}

/// Takes in what was told; whether it is something to act on.
fn hear(heard: &mut Heard, resource: &str, kind: &str, object: &Value) -> bool {
    let objects = match resource {
        SERVICES => &mut heard.services,
        SLICES => &mut heard.slices,
        _ => return false,
    };
    let name = |object: &Value| {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        (text("namespace"), text("name"))
    };
    match kind {
        "LIST" => {
            let items = object["items"].as_array().into_iter().flatten();
            *objects = Some(items.map(|item| (name(item), Arc::new(item.clone()))).collect());
        }
        "ADDED" | "MODIFIED" => {
            objects.get_or_insert_default().insert(name(object), Arc::new(object.clone()));
        }
        "DELETED" => {
            objects.get_or_insert_default().remove(&name(object));
        }
        _ => return false,
    }
    true
}

impl ServiceMaps for Node {
    fn tables(&self) -> Result<Tables> {
        Ok(self.kernel.lock().unwrap().tables.clone())
    }

    fn apply(&mut self, ops: &[Op]) -> Result<()> {
        let mut guard = self.kernel.lock().unwrap();
        let kernel = &mut *guard;
        let before = resolved(&kernel.tables);
        let mut end = kernel.tables.clone();
        ops.iter().for_each(|op| end.apply(op));
        let after = resolved(&end);
        let mut ops = ops.to_vec();
        match self.network.mutant {
            Some(Mutant::WritesBackwards) => ops.reverse(),
            Some(Mutant::ForgetsBackends) => ops.retain(|op| !matches!(op, Op::PutBackend(2, _))),
            Some(Mutant::GivesUp) if kernel.failed.is_some() => return Ok(()),
            _ => {}
        }
        for op in &ops {
            if self.fails(kernel) {
                bail!("a planted fault");
            }
            kernel.tables.apply(op);
            if let Some(text) = emptied(&kernel.tables, &before, &after) {
                let now = self.network.ms();
                self.network.ledger().break_rule(Rule::NeverEmpty, now, format!("after {op:?}: {text}"));
            }
        }
        Ok(())
    }

    fn repair_others(&mut self) -> Result<Vec<&'static str>> {
        Ok(Vec::new())
    }
}

/// A frontend that leads nowhere in the middle of a change, though it has backends on either side of it.
fn emptied(
    tables: &Tables,
    before: &BTreeMap<FrontendKey, Option<BTreeSet<Backend>>>,
    after: &BTreeMap<FrontendKey, Option<BTreeSet<Backend>>>,
) -> Option<String> {
    resolved(tables).into_iter().find_map(|(key, leads)| match leads {
        None => Some(format!("{key:?} dangles")),
        Some(backends) if backends.is_empty() => {
            let was_empty = before.get(&key).is_some_and(|old| old.as_ref().is_none_or(BTreeSet::is_empty));
            let will_be = after.get(&key).is_none_or(|new| new.as_ref().is_none_or(BTreeSet::is_empty));
            (!was_empty && !will_be).then(|| format!("{key:?} has no backend"))
        }
        Some(_) => None,
    })
}

impl Neighbourhood for Node {
    async fn set_routes(&self, peers: Vec<Peer>) -> Result<()> {
        let mut kernel = self.kernel.lock().unwrap();
        if self.fails(&mut kernel) {
            bail!("a planted fault");
        }
        let cidr = |peer: &Peer| peer.pod_cidr.map_or("none".to_owned(), |cidr| cidr.to_string());
        kernel.routes = peers.iter().map(|peer| (peer.name.clone(), cidr(peer))).collect();
        Ok(())
    }

    async fn set_peers(&self, peers: Vec<Peer>) -> Result<()> {
        let mut kernel = self.kernel.lock().unwrap();
        if self.fails(&mut kernel) {
            bail!("a planted fault");
        }
        kernel.peers = peers.iter().map(|peer| peer.address.to_string()).collect();
        Ok(())
    }
}
