//! Services: defaults, addresses and ports, and what is wrong with one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::clock::IdGenerator;
use crate::failure::FieldError;
use crate::store::Key;

const DRY_PORT: u16 = 32768;
const TAKEN: &str = "provided port is already allocated";

/// Addresses and ports in use, and the ranges that they come from.
pub struct Allocations {
    range: Ipv4Net,
    ports: std::ops::RangeInclusive<u16>,
    addresses: BTreeMap<Ipv4Addr, Key>,
    node_ports: BTreeMap<u16, Key>,
}

impl Allocations {
    /// Nothing is in use yet.
    pub fn new(range: Ipv4Net, ports: std::ops::RangeInclusive<u16>) -> Self {
        Self { range, ports, addresses: BTreeMap::new(), node_ports: BTreeMap::new() }
    }

    /// The address of `default/kubernetes`.
    pub fn first_address(&self) -> String {
        Ipv4Addr::from_bits(self.range.network().to_bits() + 1).to_string()
    }

    /// Keeps the books after a commit.
    pub fn follow(&mut self, key: &Key, before: Option<&Value>, after: Option<&Value>) {
        if &*key.resource != "/services" {
            return;
        }
        if let Some(service) = before {
            for address in addresses(service) {
                release(&mut self.addresses, &address, key);
            }
            for port in node_ports(service) {
                release(&mut self.node_ports, &port, key);
            }
        }
        if let Some(service) = after {
            self.addresses.extend(addresses(service).into_iter().map(|address| (address, key.clone())));
            self.node_ports.extend(node_ports(service).into_iter().map(|port| (port, key.clone())));
        }
    }

    /// Gives a Service what it needs and has not; `old` is the Service before an update.
    pub fn give(
        &self,
        chance: &mut IdGenerator,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Vec<FieldError> {
        let mut giving = Giving { chance, dry_run, picked: Vec::new() };
        let kind = text(&service["spec"]["type"]).to_owned();
        if let Some(error) = old.and_then(|old| health_port_error(service, old)) {
            return vec![error];
        }
        if kind == "ExternalName" {
            // What a new one may not say is refused when it is looked at; an old one gives up what it has.
            if old.is_none() {
                return Vec::new();
            }
            for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                drop_field(&mut service["spec"], name);
            }
            return Vec::new();
        }
        let mut errors = self.families(service);
        if errors.is_empty() {
            errors = self.address(&mut giving, service, old);
        }
        if errors.is_empty() && (kind == "NodePort" || kind == "LoadBalancer") {
            errors = self.give_ports(&mut giving, service, old);
        }
        errors
    }

    fn families(&self, service: &mut Value) -> Vec<FieldError> {
        let spec = &mut service["spec"];
        if spec["clusterIPs"].is_null() && !text(&spec["clusterIP"]).is_empty() {
            spec["clusterIPs"] = json!([spec["clusterIP"]]);
        }
        let headless = spec["clusterIP"] == "None";
        let errors = super::service_rules::cluster_ip_errors(spec, headless);
        if !errors.is_empty() {
            return errors;
        }
        let bare = headless && spec["selector"].as_object().is_none_or(|s| s.is_empty());
        if bare && spec["ipFamilyPolicy"].is_null() && spec["ipFamilies"].as_array().is_none_or(|list| list.len() == 1)
        {
            spec["ipFamilyPolicy"] = json!("RequireDualStack");
            let six_first = spec["ipFamilies"][0] == "IPv6";
            spec["ipFamilies"] = if six_first { json!(["IPv6", "IPv4"]) } else { json!(["IPv4", "IPv6"]) };
            return Vec::new();
        }
        if bare {
            return Vec::new();
        }
        if spec["ipFamilyPolicy"] == "RequireDualStack" {
            let detail = "this cluster is not configured for dual-stack services";
            let mut errors = vec![FieldError::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], detail)];
            errors.extend(unserved_families(spec));
            return errors;
        }
        if let Some(error) = unserved_families(spec).into_iter().next() {
            return vec![error];
        }
        for (index, address) in spec["clusterIPs"].as_array().into_iter().flatten().enumerate() {
            if text(address).contains(':') {
                let field = format!("spec.clusterIPs[{index}]");
                return vec![FieldError::invalid(field, &spec["clusterIPs"], "IPv6 is not configured on this cluster")];
            }
        }
        if spec["ipFamilyPolicy"].is_null() {
            spec["ipFamilyPolicy"] = json!("SingleStack");
        }
        if spec["ipFamilies"].is_null() {
            spec["ipFamilies"] = json!(["IPv4"]);
        }
        Vec::new()
    }

    fn address(&self, chance: &mut Giving<'_>, service: &mut Value, old: Option<&Value>) -> Vec<FieldError> {
        let spec = &mut service["spec"];
        let asked = text(&spec["clusterIPs"][0]).to_owned();
        if asked == "None" {
            return Vec::new();
        }
        if asked.is_empty() {
            let free = if chance.dry_run { Some(self.range.network()) } else { self.free_address(chance.chance) };
            let Some(address) = free else {
                return vec![FieldError::invalid(
                    "spec.clusterIPs",
                    &json!([]),
                    "failed to allocate IP: range is full",
                )];
            };
            spec["clusterIP"] = json!(address.to_string());
            spec["clusterIPs"] = json!([address.to_string()]);
            return Vec::new();
        }
        let own = old.is_some_and(|old| text(&old["spec"]["clusterIP"]) == asked);
        // What is no address at all is left to validation.
        let Ok(address) = asked.parse::<Ipv4Addr>() else { return Vec::new() };
        let value = json!([asked]);
        let usable =
            self.range.contains(&address) && ![self.range.network(), self.range.broadcast()].contains(&address);
        if !usable {
            let detail =
                format!("failed to allocate IP {asked}: the provided network does not match the current range");
            return vec![FieldError::invalid("spec.clusterIPs", &value, &detail)];
        }
        if !own && self.addresses.contains_key(&address) {
            let detail = format!("failed to allocate IP {asked}: provided IP is already allocated");
            return vec![FieldError::invalid("spec.clusterIPs", &value, &detail)];
        }
        Vec::new()
    }

    /// A free address of the upper part of the range; the lower part is for those who ask for one.
    fn free_address(&self, chance: &mut IdGenerator) -> Option<Ipv4Addr> {
        let size = 1u32 << (32 - u32::from(self.range.prefix_len())).min(31);
        let lower = (size / 16).clamp(16, 256).min(size / 2);
        let base = self.range.network().to_bits();
        let upper = (size - 1).saturating_sub(lower).max(1);
        let start = chance.below(upper);
        let high = (0..upper).map(|step| base + lower + (start + step) % upper);
        let low = (1..lower).map(|step| base + step);
        high.chain(low).map(Ipv4Addr::from_bits).find(|address| !self.addresses.contains_key(address))
    }

    fn give_ports(&self, giving: &mut Giving<'_>, service: &mut Value, old: Option<&Value>) -> Vec<FieldError> {
        let own: Vec<u16> = old.map(node_ports).unwrap_or_default();
        let balancer = service["spec"]["type"] == "LoadBalancer";
        let wanted = !balancer || service["spec"]["allocateLoadBalancerNodePorts"] != false;
        let ports: Vec<Value> = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
        let asked_for = |port: &Value| port["nodePort"].as_i64().unwrap_or(0);
        // Entries with one port number share a node port, whatever their protocols.
        let mut shared: BTreeMap<i64, i64> = BTreeMap::new();
        for (index, port) in service["spec"]["ports"].as_array_mut().into_iter().flatten().enumerate() {
            let number = port["port"].as_i64().unwrap_or(0);
            let before = shared.get(&number).copied();
            let asked = match (before, asked_for(port)) {
                (Some(before), 0) => before,
                (_, 0) if wanted => ports
                    .iter()
                    .filter(|other| other["port"].as_i64() == Some(number))
                    .map(asked_for)
                    .find(|asked| *asked != 0)
                    .unwrap_or(0),
                (_, asked) => asked,
            };
            let field = format!("spec.ports[{index}].nodePort");
            let node = match asked {
                0 if !wanted => continue,
                0 => match self.free_port(giving) {
                    Some(node) => i64::from(node),
                    None => return vec![FieldError::invalid(field, &json!(0), "range is full")],
                },
                asked if before == Some(asked) => asked,
                asked => {
                    if let Some(detail) = self.taken(asked, &own, giving) {
                        return vec![FieldError::invalid(field, &json!(asked), &detail)];
                    }
                    giving.picked.extend(u16::try_from(asked).ok());
                    asked
                }
            };
            shared.entry(number).or_insert(node);
            port["nodePort"] = json!(node);
        }
        self.give_health_port(giving, service, &own).into_iter().collect()
    }

    /// Why a node port cannot be had.
    fn taken(&self, asked: i64, own: &[u16], giving: &Giving<'_>) -> Option<String> {
        let node = u16::try_from(asked).unwrap_or(0);
        if !self.ports.contains(&node) {
            let (low, high) = (self.ports.start(), self.ports.end());
            return Some(format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"));
        }
        let used = self.node_ports.contains_key(&node) || giving.picked.contains(&node);
        (!own.contains(&node) && used).then(|| TAKEN.into())
    }

    fn give_health_port(&self, giving: &mut Giving<'_>, service: &mut Value, own: &[u16]) -> Option<FieldError> {
        if !needs_health_port(service) {
            return None;
        }
        match service["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0) {
            0 => service["spec"]["healthCheckNodePort"] = json!(self.free_port(giving)?),
            asked => {
                let detail = self.taken(asked, own, giving)?;
                let message = format!("failed to allocate requested HealthCheck NodePort {asked}: {detail}");
                return Some(FieldError { reason: "InternalError", message, field: "spec.healthCheckNodePort".into() });
            }
        }
        None
    }

    fn free_port(&self, giving: &mut Giving<'_>) -> Option<u16> {
        if giving.dry_run {
            // A dry run is told a number that no port can have.
            let next = giving.picked.iter().max().copied().unwrap_or(DRY_PORT) + 1;
            giving.picked.push(next);
            return Some(next);
        }
        let (low, size) = (u32::from(*self.ports.start()), self.ports.len() as u32);
        let lower = (size / 32).clamp(16, 128).min(size / 2);
        let upper = size - lower;
        let start = giving.chance.below(upper);
        let high = (0..upper).map(|step| low + lower + (start + step) % upper);
        let mut ports = high.chain(low..low + lower).filter_map(|port| u16::try_from(port).ok());
        let found = ports.find(|port| !self.node_ports.contains_key(port) && !giving.picked.contains(port))?;
        giving.picked.push(found);
        Some(found)
    }
}

/// One act of giving: what was picked so far, and whether it is only tried.
struct Giving<'a> {
    chance: &'a mut IdGenerator,
    dry_run: bool,
    picked: Vec<u16>,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn drop_field(value: &mut Value, name: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(name);
    }
}

/// Gives back what an owner has.
fn release<T: Ord>(given: &mut BTreeMap<T, Key>, what: &T, owner: &Key) {
    if given.get(what).is_some_and(|own| own == owner) {
        given.remove(what);
    }
}

fn addresses(service: &Value) -> Vec<Ipv4Addr> {
    service["spec"]["clusterIPs"].as_array().into_iter().flatten().filter_map(|ip| text(ip).parse().ok()).collect()
}

fn node_ports(service: &Value) -> Vec<u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    let all = ports.chain([&service["spec"]["healthCheckNodePort"]]);
    all.filter_map(|port| u16::try_from(port.as_u64()?).ok()).filter(|port| *port != 0).collect()
}

/// The port of health checks stays while there is one.
fn health_port_error(service: &Value, old: &Value) -> Option<FieldError> {
    let port = |service: &Value| service["spec"]["healthCheckNodePort"].as_u64().unwrap_or(0);
    let both = needs_health_port(service) && needs_health_port(old);
    (both && port(service) != port(old))
        .then(|| FieldError::forbidden("spec.healthCheckNodePort", "field is immutable"))
}

pub(super) fn needs_health_port(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

pub(super) fn externally_accessible(spec: &Value) -> bool {
    matches!(text(&spec["type"]), "NodePort" | "LoadBalancer")
        || (spec["type"] == "ClusterIP" && spec["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty()))
}

/// Defaults that depend on the type.
pub(super) fn default(service: &mut Value) {
    let spec = &mut service["spec"];
    if !spec.is_object() {
        return;
    }
    if spec["sessionAffinity"] == "ClientIP" && spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() {
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
    } else if spec["sessionAffinity"] == "None" {
        drop_field(spec, "sessionAffinityConfig");
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if matches!(&port["targetPort"], Value::Null) || port["targetPort"] == 0 || port["targetPort"] == "" {
            port["targetPort"] = port["port"].clone();
        }
    }
    let external = externally_accessible(spec);
    if external && spec["externalTrafficPolicy"].is_null() {
        spec["externalTrafficPolicy"] = json!("Cluster");
    }
    if spec["type"] != "ExternalName" && spec["internalTrafficPolicy"].is_null() {
        spec["internalTrafficPolicy"] = json!("Cluster");
    }
    if spec["type"] == "LoadBalancer" {
        if spec["allocateLoadBalancerNodePorts"].is_null() {
            spec["allocateLoadBalancerNodePorts"] = json!(true);
        }
        let ingress = service["status"].pointer_mut("/loadBalancer/ingress").and_then(Value::as_array_mut);
        for entry in ingress.into_iter().flatten() {
            if !text(&entry["ip"]).is_empty() && entry["ipMode"].is_null() {
                entry["ipMode"] = json!("VIP");
            }
        }
    }
}

/// Families that the cluster has no addresses of.
fn unserved_families(spec: &Value) -> Vec<FieldError> {
    let families = spec["ipFamilies"].as_array().into_iter().flatten().enumerate();
    let other = families.filter(|(_, family)| *family != "IPv4");
    let error = |index: usize, family: &Value| {
        FieldError::invalid(format!("spec.ipFamilies[{index}]"), family, "not configured on this cluster")
    };
    other.map(|(index, family)| error(index, family)).collect()
}

/// What a new Service of its type has no use for, and its addresses if it says only the first.
pub(super) fn prepare(service: &mut Value) {
    let spec = &mut service["spec"];
    if spec["type"] == "ExternalName" {
        if !text(&spec["clusterIP"]).is_empty() && spec["clusterIPs"].is_null() {
            spec["clusterIPs"] = json!([spec["clusterIP"]]);
        }
        spec.as_object_mut().map(|spec| spec.remove("internalTrafficPolicy"));
    }
    if let Some(service) = service.as_object_mut() {
        service.remove("status");
    }
}

/// What an update leaves out and the server keeps: addresses, node ports, the health check port; and what a change of
/// type gives back.
pub(super) fn carry_over(service: &mut Value, old: &Value) {
    let (new_type, old_type) = (text(&service["spec"]["type"]).to_owned(), text(&old["spec"]["type"]).to_owned());
    let has_ports = |kind: &str| kind == "NodePort" || kind == "LoadBalancer";
    let spec = &mut service["spec"];
    // Who says only the first address means all of them.
    if spec["clusterIP"] != old["spec"]["clusterIP"] && spec["clusterIPs"] == old["spec"]["clusterIPs"] {
        match spec["clusterIP"].as_str() {
            None | Some("") => spec["clusterIPs"] = Value::Null,
            Some(_) => spec["clusterIPs"] = json!([spec["clusterIP"]]),
        }
    }
    if new_type != "ExternalName" && old_type != "ExternalName" {
        if text(&spec["clusterIP"]).is_empty() && spec["clusterIPs"].is_null() {
            for name in ["clusterIP", "clusterIPs"] {
                spec[name] = old["spec"][name].clone();
            }
        }
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if spec[name].is_null() && !old["spec"][name].is_null() {
                spec[name] = old["spec"][name].clone();
            }
        }
    }
    if has_ports(&new_type) && has_ports(&old_type) {
        carry_ports(spec, &old["spec"]);
    }
    if needs_health_port(service) && needs_health_port(old) && service["spec"]["healthCheckNodePort"].is_null() {
        service["spec"]["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
    }
    if old_type == "LoadBalancer" && new_type != "LoadBalancer" {
        service["status"]["loadBalancer"] = json!({});
    }
    drop_unused(service, old, has_ports(&new_type));
}

fn carry_ports(spec: &mut Value, old: &Value) {
    let used: Vec<Value> =
        spec["ports"].as_array().into_iter().flatten().map(|port| port["nodePort"].clone()).collect();
    let old: Vec<Value> = old["ports"].as_array().cloned().unwrap_or_default();
    let single = old.len() == 1 && spec["ports"].as_array().is_some_and(|ports| ports.len() == 1);
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if !port["nodePort"].is_null() {
            continue;
        }
        let same = |other: &&Value| other["protocol"] == port["protocol"] && (single || other["port"] == port["port"]);
        if let Some(found) = old.iter().find(same).map(|found| found["nodePort"].clone())
            && !found.is_null()
            && !used.contains(&found)
        {
            port["nodePort"] = found;
        }
    }
}

/// A field that the new type does not know and the client did not change is dropped rather than refused.
fn drop_unused(service: &mut Value, old: &Value, has_ports: bool) {
    let changed_type = service["spec"]["type"] != old["spec"]["type"];
    if changed_type && !has_ports {
        let old_ports = node_ports(old);
        for port in service["spec"].get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if port["nodePort"].as_u64().is_some_and(|node| old_ports.iter().any(|old| u64::from(*old) == node)) {
                drop_field(port, "nodePort");
            }
        }
    }
    let external = externally_accessible(&service["spec"]);
    let keep = [
        ("healthCheckNodePort", needs_health_port(service)),
        ("externalTrafficPolicy", external),
        ("allocateLoadBalancerNodePorts", service["spec"]["type"] == "LoadBalancer"),
        ("loadBalancerClass", service["spec"]["type"] == "LoadBalancer"),
        ("internalTrafficPolicy", service["spec"]["type"] != "ExternalName"),
    ];
    for (name, kept) in keep {
        if !kept && service["spec"][name] == old["spec"][name] {
            drop_field(&mut service["spec"], name);
        }
    }
}

/// Whether a Service without addresses is still booked as having a policy for them.
pub(super) fn hides_policy(service: &Value) -> bool {
    let spec = &service["spec"];
    let entries = service["metadata"]["managedFields"].as_array();
    let booked = |entry: &Value| entry["fieldsV1"]["f:spec"].get("f:internalTrafficPolicy").is_some();
    spec["type"] == "ExternalName"
        && spec["internalTrafficPolicy"].is_null()
        && entries.is_some_and(|entries| entries.iter().any(booked))
}
