//! Which slices there should be for a service: a pure function of what is to be in them and the slices that are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{copied_labels, label, list, name, namespace, pod, text, uid};
use crate::controllers::cache::Change;
use crate::controllers::kind::{Kind, SERVICES};
use crate::controllers::object::{is_terminating, owner_reference};

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Most endpoints of one slice.
const MOST: usize = 100;

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<Value>,
    pub(super) update: Vec<Value>,
    pub(super) delete: Vec<Arc<Value>>,
}

/// Whether a node's zone changed, or the node came or went.
pub(super) fn node_changed(change: &Change) -> bool {
    let zone = |node: &Option<Arc<Value>>| node.as_ref().map(|node| label(node, ZONE).map(str::to_owned));
    zone(&change.before) != zone(&change.after)
}

/// Endpoints by the ports that they have; equal ports share slices.
#[derive(Debug, Default)]
pub(super) struct ByPorts(BTreeMap<String, (Vec<Value>, Vec<Value>)>);

impl ByPorts {
    pub(super) fn add(&mut self, ports: Vec<Value>, endpoint: Value) {
        self.0.entry(port_key(&ports)).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
    }
}

/// What slices are made for, and how.
pub(super) struct Source<'a> {
    pub(super) kind: &'a Kind,
    pub(super) object: &'a Value,
    pub(super) labels: Value,
    /// Nothing if those of the slices are left alone.
    pub(super) annotations: Option<Value>,
    /// Most endpoints of one slice.
    pub(super) most: usize,
    /// Clients tell a service without endpoints from one that was not looked at yet by an empty slice.
    pub(super) placeholder: bool,
}

/// The steps from what is there to what the pods of a service want.
pub(super) fn plan(
    service: &Value,
    pods: &[Arc<Value>],
    existing: &[Arc<Value>],
    node: impl Fn(&str) -> Option<Arc<Value>>,
) -> Plan {
    let mut families: Vec<&str> = list(service, "/spec/ipFamilies").iter().filter_map(Value::as_str).collect();
    if families.is_empty() {
        families.push("IPv4");
    }
    let wanted = families.iter().map(|family| (*family, wanted(service, pods, family, &node))).collect();
    let (labels, most) = (slice_labels(service, MANAGER, copied_labels(service, &[])), MOST);
    let source = Source { kind: &SERVICES, object: service, labels, annotations: None, most, placeholder: true };
    source.plan(wanted, existing)
}

/// Labels of slices: those of what they are made for, and whose they are.
pub(super) fn slice_labels(owner: &Value, manager: &str, mut labels: Value) -> Value {
    labels[SERVICE_NAME] = json!(name(owner));
    labels[MANAGED_BY] = json!(manager);
    labels
}

fn wanted(service: &Value, pods: &[Arc<Value>], family: &str, node: &impl Fn(&str) -> Option<Arc<Value>>) -> ByPorts {
    let publish = service["spec"]["publishNotReadyAddresses"] == true;
    let mut by_ports = ByPorts::default();
    for pod in pods.iter().filter(|pod| pod::may_serve(pod, true)) {
        let home = node(text(pod, "/spec/nodeName"));
        // A pod of a node that is gone serves nobody, unless it is to be shown in any case.
        if home.is_none() && !publish {
            continue;
        }
        let Some(address) = pod::address(pod, family) else { continue };
        by_ports.add(pod::ports(service, pod), endpoint(service, pod, home.as_deref(), address));
    }
    by_ports
}

fn port_key(ports: &[Value]) -> String {
    let mut texts: Vec<String> = ports.iter().map(Value::to_string).collect();
    texts.sort();
    texts.join(",")
}

fn endpoint(service: &Value, pod: &Value, node: Option<&Value>, address: &str) -> Value {
    let publish = service["spec"]["publishNotReadyAddresses"] == true;
    let (serving, terminating) = (pod::is_ready(pod), is_terminating(pod));
    let ready = publish || (serving && !terminating);
    let mut endpoint = json!({
        "addresses": [address], "targetRef": pod::reference(pod),
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
    });
    let node_name = text(pod, "/spec/nodeName");
    if !node_name.is_empty() {
        endpoint["nodeName"] = json!(node_name);
    }
    let zone = node.and_then(|node| label(node, ZONE));
    if let Some(zone) = zone {
        endpoint["zone"] = json!(zone);
    }
    if let Some(hostname) = pod::hostname(service, pod) {
        endpoint["hostname"] = json!(hostname);
    }
    if let Some(hints) = hints(service, ready, zone, node_name) {
        endpoint["hints"] = hints;
    }
    endpoint
}

/// Where the traffic of this endpoint should come from.
fn hints(service: &Value, ready: bool, zone: Option<&str>, node: &str) -> Option<Value> {
    let distribution = service["spec"]["trafficDistribution"].as_str()?;
    let mut hints = json!({});
    if let Some(zone) = zone {
        hints["forZones"] = json!([{"name": zone}]);
    }
    if distribution == "PreferSameNode" && !node.is_empty() {
        hints["forNodes"] = json!([{"name": node}]);
    }
    let known = matches!(distribution, "PreferClose" | "PreferSameZone" | "PreferSameNode");
    (ready && known && hints != json!({})).then_some(hints)
}

/// What makes two forms of an endpoint the same endpoint.
fn identity(endpoint: &Value) -> String {
    json!([endpoint["addresses"], endpoint["hostname"], endpoint["targetRef"], endpoint["nodeName"]]).to_string()
}

impl Source<'_> {
    /// The steps from what is there to what is wanted of each family.
    pub(super) fn plan(&self, wanted: Vec<(&str, ByPorts)>, existing: &[Arc<Value>]) -> Plan {
        let mut plan = Plan::default();
        let foreign = existing.iter().filter(|slice| !wanted.iter().any(|(family, _)| slice["addressType"] == *family));
        plan.delete.extend(foreign.cloned());
        for (family, wanted) in wanted {
            let own: Vec<&Arc<Value>> = existing.iter().filter(|slice| slice["addressType"] == family).collect();
            self.reconcile(family, &wanted, &own, &mut plan);
        }
        if is_terminating(self.object) {
            plan.create.clear();
        }
        plan
    }

    /// An empty slice.
    fn fresh(&self, family: &str, ports: &[Value]) -> Value {
        json!({
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
            "metadata": {
                "generateName": format!("{}-", name(self.object)), "namespace": namespace(self.object),
                "labels": self.labels, "annotations": self.annotations.clone().unwrap_or_else(|| json!({})),
                "ownerReferences": [owner_reference(self.kind, self.object)],
            },
            "addressType": family, "ports": ports, "endpoints": [],
        })
    }

    /// A slice with the labels and annotations that it should have.
    fn described(&self, slice: &Value) -> Value {
        let mut slice = slice.clone();
        slice["metadata"]["labels"] = self.labels.clone();
        if let Some(annotations) = &self.annotations {
            slice["metadata"]["annotations"] = annotations.clone();
            // Who writes these writes all of them, and what a name was made from is told only when it is made.
            slice["metadata"].as_object_mut().map(|metadata| metadata.remove("generateName"));
        }
        slice
    }

    fn is_described(&self, slice: &Value) -> bool {
        let metadata = &slice["metadata"];
        let empty = |annotations: &Value| annotations.as_object().is_none_or(|annotations| annotations.is_empty());
        let held = &metadata["annotations"];
        metadata["labels"] == self.labels
            && self.annotations.as_ref().is_none_or(|own| held == own || (empty(held) && empty(own)))
    }

    fn owns(&self, slice: &Value) -> bool {
        let mut owners = list(slice, "/metadata/ownerReferences").iter();
        owners.any(|owner| owner["kind"] == self.kind.name.as_ref() && owner["uid"] == uid(self.object))
    }

    fn reconcile(&self, family: &str, wanted: &ByPorts, existing: &[&Arc<Value>], plan: &mut Plan) {
        let (mut create, mut update, mut delete) = (Vec::new(), Vec::new(), Vec::new());
        let key = |slice: &Value| port_key(list(slice, "/ports"));
        for (ports_key, (ports, endpoints)) in &wanted.0 {
            let own: Vec<Arc<Value>> =
                existing.iter().filter(|slice| key(slice) == *ports_key).map(|slice| Arc::clone(slice)).collect();
            let group = Group { source: self, family, ports, own };
            group.fill(endpoints.clone(), &mut create, &mut update, &mut delete);
        }
        let obsolete = existing.iter().filter(|slice| !wanted.0.contains_key(&key(slice)));
        delete.extend(obsolete.map(|slice| Arc::clone(slice)));
        if self.placeholder && existing.len() == delete.len() && create.is_empty() {
            match &delete[..] {
                [only] if list(only, "/endpoints").is_empty() && list(only, "/ports").is_empty() => {
                    if !self.is_described(only) {
                        update.push(self.described(only));
                    }
                    delete.clear();
                }
                _ => create.push(self.fresh(family, &[])),
            }
        }
        // A slice that would go is used for one that would come.
        while let (false, false) = (create.is_empty(), delete.is_empty()) {
            let (old, mut new) = (delete.remove(0), create.remove(0));
            new["metadata"] = self.described(&old)["metadata"].clone();
            update.push(new);
        }
        plan.create.extend(create);
        plan.update.extend(update);
        plan.delete.extend(delete);
    }
}

/// Slices with the same ports.
struct Group<'a> {
    source: &'a Source<'a>,
    family: &'a str,
    ports: &'a [Value],
    own: Vec<Arc<Value>>,
}

impl Group<'_> {
    /// Keeps endpoints where they are as far as possible, then fills slices that change anyhow, then others, then new
    /// ones: few writes matter more than full slices.
    fn fill(self, wanted: Vec<Value>, create: &mut Vec<Value>, update: &mut Vec<Value>, delete: &mut Vec<Arc<Value>>) {
        let mut rest: BTreeMap<String, Value> =
            wanted.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
        let (mut changed, mut unchanged) = (Vec::new(), Vec::new());
        for slice in &self.own {
            let old = list(slice, "/endpoints");
            let kept: Vec<Value> = old.iter().filter_map(|endpoint| rest.remove(&identity(endpoint))).collect();
            if !self.source.owns(slice) || kept.is_empty() {
                rest.extend(kept.into_iter().map(|endpoint| (identity(&endpoint), endpoint)));
                delete.push(Arc::clone(slice));
            } else if kept != old || !self.source.is_described(slice) {
                let mut slice = self.source.described(slice);
                slice["endpoints"] = json!(kept);
                changed.push(slice);
            } else {
                unchanged.push(Value::clone(slice));
            }
        }
        let most = self.source.most;
        let mut rest: Vec<Value> = rest.into_values().collect();
        rest.sort_by_key(|endpoint| text(endpoint, "/targetRef/name").to_owned());
        changed.sort_by_key(|slice| std::cmp::Reverse(list(slice, "/endpoints").len()));
        for slice in &mut changed {
            top_up(slice, &mut rest, most);
        }
        while !rest.is_empty() {
            let free = |slice: &Value| most.saturating_sub(list(slice, "/endpoints").len());
            let fitting = unchanged.iter().enumerate().filter(|(_, slice)| free(slice) >= rest.len());
            let fullest = fitting.min_by_key(|(_, slice)| free(slice)).map(|(at, _)| at);
            let mut slice = match fullest {
                Some(at) => unchanged.remove(at),
                None => self.source.fresh(self.family, self.ports),
            };
            top_up(&mut slice, &mut rest, most);
            if fullest.is_some() { changed.push(slice) } else { create.push(slice) }
        }
        update.extend(changed);
    }
}

fn top_up(slice: &mut Value, rest: &mut Vec<Value>, most: usize) {
    let mut endpoints = list(slice, "/endpoints").to_vec();
    let room = most.saturating_sub(endpoints.len()).min(rest.len());
    endpoints.extend(rest.drain(..room));
    slice["endpoints"] = json!(endpoints);
}
