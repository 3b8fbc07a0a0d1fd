//! The cells of the traffic matrix: who dials what, what must come of it, and by which way.

use anyhow::{Result, bail};

use super::format::Protocol;
use super::probe::{Backend, Target};
use crate::cluster::{Cluster, NodeInfo, Place, Role};

/// What must come of a cell's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// Answers of the workload.
    Answers,
    /// Nothing at all, and a drop that is counted.
    Silence,
    /// A refusal: nobody listens there.
    Refusal,
}

/// Node whose counters must move, the hook, and the events that count together.
pub(super) type Path = (String, &'static str, &'static [&'static str]);

/// A client dials a Service.
const NEW: &[&str] = &["service-new"];
/// A datagram to a Service: the port of a closed socket may be given to the next one while the flow is still known.
const DATAGRAM: &[&str] = &["service-new", "forward"];
/// A ClusterIP was dialled from outside.
const DROPPED: &[&str] = &["drop-clusterip-from-outside"];

/// One cell.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// Client and frontend, with nodes by their roles: the same on every provider.
    pub(super) name: String,
    pub(super) from: String,
    pub(super) place: Place,
    pub(super) to: String,
    pub(super) url: String,
    pub(super) path: Path,
    pub(super) expect: Expect,
    pub(super) client: Client,
}

impl Cell {
    /// By how much the counter must move when that many requests are sent where answers are expected.
    pub(super) fn counted(&self, count: u32) -> u64 {
        match self.expect {
            Expect::Answers => count.into(),
            Expect::Silence => 1,
            Expect::Refusal => 0,
        }
    }
}

/// As whom the workload must see a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// Own address; `None` for hosts outside, whose addresses the provider does not tell.
    pub(super) address: Option<String>,
    /// The node by whose device the request enters the cluster's datapath, with its address; `None` if the client's own
    /// node translates it.
    pub(super) entry: Option<(String, String)>,
    /// The client's node if it is a pod that packets (not system calls) are translated for: it must not see itself as
    /// its own peer.
    pub(super) hairpin: Option<String>,
    /// Addresses of the nodes.
    pub(super) nodes: Vec<String>,
}

impl Client {
    /// Whether a backend may have seen `from` as the client, else who it should have seen.
    pub(super) fn admits(&self, from: &str, backend: &Backend) -> Result<(), String> {
        // The answer of a backend on another node would go past the node that translated, so that node stands in.
        let replaced = match (&self.entry, &self.hairpin) {
            (Some((name, address)), _) if *name != backend.node => Some(address),
            (None, Some(node)) if self.address.as_ref() == Some(&backend.address) => Some(node),
            _ => None,
        };
        match (replaced, &self.address) {
            (Some(address), _) if from == address => Ok(()),
            (Some(address), _) => Err(format!("{address}, the node in between")),
            (None, Some(own)) if from == own => Ok(()),
            (None, Some(own)) => Err(format!("{own}, the client itself")),
            (None, None) if self.nodes.iter().any(|node| node == from) => Err("the client's own address".into()),
            (None, None) => Ok(()),
        }
    }
}

/// Who dials: the nodes, a pod, hosts outside.
struct Source {
    name: String,
    /// The same on every provider.
    role: String,
    place: Place,
    /// Its node, if it is in the cluster.
    node: Option<NodeInfo>,
    /// Its address, if it is known.
    address: Option<String>,
}

impl Source {
    fn is_pod(&self) -> bool {
        matches!(self.place, Place::Pod { .. })
    }
}

/// All cells for a Service.
///
/// # Errors
/// If the Service has no pod, or its pod's node is none of the cluster's.
pub(super) fn all(cluster: &dyn Cluster, target: &Target, socket_lb: bool) -> Result<Vec<Cell>> {
    let grid = Grid { nodes: cluster.nodes(), target, socket_lb };
    let mut cells = Vec::new();
    for source in sources(cluster, target)? {
        cells.extend(grid.node_ports(&source));
        cells.extend(grid.external_ips(&source));
        cells.push(grid.cluster_ip(&source));
        if source.node.is_none() {
            cells.extend(grid.own_addresses(&source));
        }
    }
    Ok(cells)
}

/// What a scenario would call the node.
fn role(nodes: &[NodeInfo], node: &NodeInfo) -> String {
    let same = nodes.iter().filter(|other| other.role == node.role);
    match node.role {
        Role::ControlPlane => "control-plane".into(),
        Role::Worker => format!("worker{}", same.take_while(|other| other.name != node.name).count() + 1),
    }
}

fn sources(cluster: &dyn Cluster, target: &Target) -> Result<Vec<Source>> {
    let nodes = cluster.nodes();
    let Some(pod) = target.backends.first() else { bail!("the service has no pod to ask from") };
    let Some(node) = nodes.iter().find(|node| node.name == pod.node) else {
        bail!("pod {} is on {:?}, which is no node of the cluster", pod.pod, pod.node);
    };
    let mut all: Vec<Source> = nodes
        .iter()
        .map(|node| Source {
            name: node.name.clone(),
            role: role(nodes, node),
            place: Place::Node(node.name.clone()),
            node: Some(node.clone()),
            address: Some(node.address.to_string()),
        })
        .collect();
    all.push(Source {
        name: format!("pod {}", pod.pod),
        role: "pod".into(),
        place: Place::Pod { namespace: "default".into(), pod: pod.pod.clone(), container: None },
        node: Some(node.clone()),
        address: Some(pod.address.clone()),
    });
    all.extend(cluster.outside().into_iter().map(|name| Source {
        place: Place::Outside(name.clone()),
        role: name.clone(),
        name,
        node: None,
        address: None,
    }));
    Ok(all)
}

struct Grid<'a> {
    nodes: &'a [NodeInfo],
    target: &'a Target,
    socket_lb: bool,
}

impl Grid<'_> {
    fn cell(&self, source: &Source, to: &str, url: String, way: Way<'_>) -> Cell {
        let client = Client {
            address: source.address.clone(),
            entry: way.entry.map(|node| (node.name.clone(), node.address.to_string())),
            hairpin: source
                .node
                .as_ref()
                .filter(|_| source.is_pod() && !self.socket_lb)
                .map(|node| node.address.to_string()),
            nodes: self.nodes.iter().map(|node| node.address.to_string()).collect(),
        };
        Cell {
            name: format!("{} -> {to}", source.role),
            from: source.name.clone(),
            place: source.place.clone(),
            to: to.into(),
            url,
            path: (way.node.name.clone(), way.hook, way.events),
            expect: Expect::Answers,
            client,
        }
    }

    /// By which hook the first packet, or the connect call, of a client in the cluster goes.
    fn by_way_of<'n>(&self, node: &'n NodeInfo, hook: &'static str) -> Way<'n> {
        Way { node, hook: if self.socket_lb { "connect4" } else { hook }, events: self.begun(), entry: None }
    }

    fn entering<'n>(&self, node: &'n NodeInfo) -> Way<'n> {
        Way { node, hook: "from-netdev", events: self.begun(), entry: Some(node) }
    }

    fn begun(&self) -> &'static [&'static str] {
        match self.target.protocol {
            Protocol::Tcp => NEW,
            Protocol::Udp => DATAGRAM,
        }
    }

    /// The node that the router sends the traffic for Services' addresses to.
    fn gateway(&self) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.role == Role::Worker)
    }

    fn node_ports(&self, source: &Source) -> Vec<Cell> {
        let Some(port) = self.target.node_port else { return Vec::new() };
        let cell = |dialled: &NodeInfo| {
            let way = match &source.node {
                Some(own) if own.name == dialled.name => {
                    self.by_way_of(own, if source.is_pod() { "from-pod" } else { "to-lo" })
                }
                _ => self.entering(dialled),
            };
            let cell = self.cell(source, "NodePort", self.target.url(&dialled.address, port), way);
            Cell { name: format!("{} of {}", cell.name, role(self.nodes, dialled)), ..cell }
        };
        self.nodes.iter().map(cell).collect()
    }

    fn external_ips(&self, source: &Source) -> Vec<Cell> {
        let way = |gateway| match &source.node {
            Some(own) => self.by_way_of(own, if source.is_pod() { "from-pod" } else { "to-netdev" }),
            None => self.entering(gateway),
        };
        let Some(gateway) = self.gateway() else { return Vec::new() };
        let balancer = self.target.external_ip.iter().map(|address| ("EXTERNAL-IP", address));
        let given = self.target.external_ips.iter().map(|address| ("externalIP", address));
        let cell = |(to, address): (&str, &String)| {
            self.cell(source, to, self.target.url(address, self.target.port), way(gateway))
        };
        balancer.chain(given).map(cell).collect()
    }

    fn cluster_ip(&self, source: &Source) -> Cell {
        let url = self.target.url(&self.target.cluster_ip, self.target.port);
        match (&source.node, self.gateway()) {
            (None, Some(gateway)) => {
                let way = Way { events: DROPPED, ..self.entering(gateway) };
                Cell { expect: Expect::Silence, ..self.cell(source, "ClusterIP", url, way) }
            }
            (own, gateway) => {
                let own = own.as_ref().or(gateway).unwrap_or(&self.nodes[0]);
                let hook = if source.is_pod() { "from-pod" } else { "to-netdev" };
                self.cell(source, "ClusterIP", url, self.by_way_of(own, hook))
            }
        }
    }

    /// The Service's port at the nodes' own addresses is nobody's: a decoy there must not be taken for the Service.
    fn own_addresses(&self, source: &Source) -> Vec<Cell> {
        let cell = |node: &NodeInfo| {
            let url = self.target.url(&node.address, self.target.port);
            let cell = self.cell(source, "node's own", url, self.entering(node));
            let name = format!("{} of {}", cell.name, role(self.nodes, node));
            Cell { expect: Expect::Refusal, name, ..cell }
        };
        self.nodes.iter().map(cell).collect()
    }
}

/// The way that a cell's packets must go.
struct Way<'a> {
    /// Node whose counters must move.
    node: &'a NodeInfo,
    hook: &'static str,
    events: &'static [&'static str],
    /// The node by whose device the request enters, if it is not the client's own.
    entry: Option<&'a NodeInfo>,
}

#[cfg(test)]
#[path = "cell_tests.rs"]
mod tests;
