//! From Services and EndpointSlices to frontends and the backends that each may use.
//!
//! The rules are kube-proxy's: which frontends a Service port has, and which endpoints are selectable
//! (`CategorizeEndpoints`; KEP-1669 for the fallback to terminating endpoints).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// IANA protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// From the API's spelling; `None` for protocols that are not carried (SCTP).
    #[must_use]
    pub fn from_api(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name, empty if the Service has only one.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of ClusterIP, EXTERNAL-IP and externalIPs.
    pub port: u16,
    /// NodePort, if the Service has one.
    pub node_port: Option<u16>,
}

/// A Service, reduced to what is decided on. Headless and ExternalName Services, and those of another proxy
/// (`service.kubernetes.io/service-proxy-name`), are not made into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// ClusterIPs.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` whose `ipMode` is VIP or unset (KEP-1860).
    pub ingress_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<Port>,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses; all lead to the same endpoint, kube-proxy uses the first.
    pub address: IpAddr,
    /// `conditions.ready`, true if unset.
    pub ready: bool,
    /// `conditions.serving`, equal to `ready` if unset.
    pub serving: bool,
    /// `conditions.terminating`, false if unset.
    pub terminating: bool,
}

/// An EndpointSlice, reduced to what is decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The Service it belongs to (label `kubernetes.io/service-name`).
    pub service: ServiceName,
    /// Ports: name, protocol, number. A port without a number means "all ports" and is not used by Services.
    pub ports: Vec<(String, Protocol, u16)>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// Kind of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// ClusterIP.
    ClusterIp,
    /// NodePort, on every address of the node.
    NodePort,
    /// EXTERNAL-IP.
    LoadBalancer,
    /// One of `spec.externalIPs`.
    ExternalIp,
}

/// What a client dials.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Address; unspecified for a NodePort.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Kind.
    pub kind: FrontendKind,
}

/// Where traffic goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address of the endpoint.
    pub address: IpAddr,
    /// Port of the endpoint.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Identity of a Service port: it keeps its service id in the kernel's maps for as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName {
    /// The Service.
    pub service: ServiceName,
    /// Port number.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl fmt::Display for PortName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}/{}", self.service, self.port, self.protocol)
    }
}

/// A Service port with everything that the datapath needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// What clients dial.
    pub frontends: BTreeSet<Frontend>,
    /// Backends that new flows may be sent to.
    pub selectable: BTreeSet<Backend>,
    /// All backends that are still in a slice: flows to them go on, also while they terminate or are not ready
    /// (cilium/cilium #41244).
    pub known: BTreeSet<Backend>,
}

/// All Service ports of the world.
#[must_use]
pub fn service_ports<'a>(
    services: &BTreeMap<ServiceName, Service>,
    slices: impl IntoIterator<Item = &'a Slice>,
) -> BTreeMap<PortName, ServicePort> {
    let mut by_service: BTreeMap<&ServiceName, Vec<&Slice>> = BTreeMap::new();
    for slice in slices {
        by_service.entry(&slice.service).or_default().push(slice);
    }
    let mut ports = BTreeMap::new();
    for (name, service) in services {
        let slices = by_service.get(name).map(Vec::as_slice).unwrap_or_default();
        for port in &service.ports {
            let id = PortName { service: name.clone(), port: port.port, protocol: port.protocol };
            ports.insert(id, service_port(service, port, slices));
        }
    }
    ports
}

fn service_port(service: &Service, port: &Port, slices: &[&Slice]) -> ServicePort {
    let mut ready = BTreeSet::new();
    let mut terminating = BTreeSet::new();
    let mut known = BTreeSet::new();
    for slice in slices {
        let Some(number) =
            slice.ports.iter().find(|(name, protocol, _)| *name == port.name && *protocol == port.protocol)
        else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let backend = Backend { address: endpoint.address, port: number.2, protocol: port.protocol };
            if endpoint.ready {
                ready.insert(backend.clone());
            } else if endpoint.serving && endpoint.terminating {
                terminating.insert(backend.clone());
            }
            known.insert(backend);
        }
    }
    let selectable = if ready.is_empty() { terminating } else { ready };
    ServicePort { frontends: frontends(service, port), selectable, known }
}

fn frontends(service: &Service, port: &Port) -> BTreeSet<Frontend> {
    let frontend =
        |address: IpAddr, number: u16, kind| Frontend { address, port: number, protocol: port.protocol, kind };
    let mut frontends = BTreeSet::new();
    let lists = [
        (&service.cluster_ips, FrontendKind::ClusterIp),
        (&service.ingress_ips, FrontendKind::LoadBalancer),
        (&service.external_ips, FrontendKind::ExternalIp),
    ];
    for (addresses, kind) in lists {
        frontends.extend(addresses.iter().map(|address| frontend(*address, port.port, kind)));
    }
    if let Some(number) = port.node_port {
        frontends.insert(frontend(IpAddr::V4(Ipv4Addr::UNSPECIFIED), number, FrontendKind::NodePort));
    }
    frontends
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
