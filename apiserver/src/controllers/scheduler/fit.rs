//! Whether a pod fits on a node: the filters, in the order and with the words of the real scheduler.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::quantity::{amounts, requests};
use super::topology::Cluster;
use crate::controllers::object::{controller_of, fulfils, label, labels, list, name, text};
use crate::controllers::pods::is_finished;

pub(crate) const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// A node with the pods that are bound to it, or have its place reserved.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) node: Arc<Value>,
    pub(crate) pods: Vec<Arc<Value>>,
}

/// Why a node is not taken.
#[derive(Debug, PartialEq)]
pub(crate) struct Unfit {
    pub(crate) reasons: Vec<String>,
    /// Whether fewer pods on the node would help.
    pub(crate) crowded: bool,
}

impl Unfit {
    /// Whatever pods go.
    pub(super) fn never(reason: &str) -> Option<Self> {
        Some(Self { reasons: vec![reason.to_owned()], crowded: false })
    }

    /// As long as certain pods are there.
    pub(super) fn now(reason: &str) -> Option<Self> {
        Some(Self { reasons: vec![reason.to_owned()], crowded: true })
    }
}

/// The first reason against the node; nothing if the pod fits.
pub(crate) fn unfit(pod: &Value, place: &Place, cluster: &Cluster) -> Option<Unfit> {
    let node = &*place.node;
    if let Some(only) = only_nodes(pod)
        && !only.contains(&name(node))
    {
        return Unfit::never("node(s) didn't satisfy plugin(s) [NodeAffinity]");
    }
    let cordon = serde_json::json!({"key": UNSCHEDULABLE, "effect": "NoSchedule"});
    if node["spec"]["unschedulable"] == true && !tolerates(pod, &cordon) {
        return Unfit::never("node(s) were unschedulable");
    }
    if untolerated(pod, node, &["NoSchedule", "NoExecute"]).is_some() {
        return Unfit::never("node(s) had untolerated taint(s)");
    }
    if !matches_node(pod, node) {
        return Unfit::never("node(s) didn't match Pod's node affinity/selector");
    }
    let running: Vec<&Value> = place.pods.iter().map(|pod| &**pod).filter(|pod| !is_finished(pod)).collect();
    if running.iter().any(|other| ports_clash(pod, other)) {
        return Unfit::now("node(s) didn't have free ports for the requested pod ports");
    }
    short_of(pod, node, &running).or_else(|| cluster.unspread(pod, node)).or_else(|| cluster.unfriendly(pod, node))
}

/// The names that all required terms insist on, if they do: DaemonSets write such terms.
fn only_nodes(pod: &Value) -> Option<Vec<&str>> {
    let terms = list(pod, REQUIRED_TERMS);
    if terms.is_empty() {
        return None;
    }
    let mut names = Vec::new();
    for term in terms {
        let field = list(term, "/matchFields").iter().find(|f| f["key"] == "metadata.name" && f["operator"] == "In")?;
        names.extend(list(field, "/values").iter().filter_map(Value::as_str));
    }
    Some(names)
}

const REQUIRED_TERMS: &str =
    "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

/// Whether the node's labels and name are what the pod's node selector and required terms want.
pub(crate) fn matches_node(pod: &Value, node: &Value) -> bool {
    let wanted = pod["spec"]["nodeSelector"].as_object();
    if wanted.into_iter().flatten().any(|(key, value)| label(node, key) != value.as_str()) {
        return false;
    }
    let required = pod.pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_none_or(Value::is_null) {
        return true;
    }
    list(pod, REQUIRED_TERMS).iter().any(|term| term_matches(term, node))
}

/// Whether a node selector term matches; an empty one matches nothing.
pub(super) fn term_matches(term: &Value, node: &Value) -> bool {
    let (expressions, fields) = (list(term, "/matchExpressions"), list(term, "/matchFields"));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|need| fulfils(need, label(node, text(need, "/key"))))
        && fields.iter().all(|need| need["key"] == "metadata.name" && fulfils(need, Some(name(node))))
}

/// Whether one of the pod's tolerations covers a taint.
pub(crate) fn tolerates(pod: &Value, taint: &Value) -> bool {
    list(pod, "/spec/tolerations").iter().any(|toleration| covers(toleration, taint))
}

/// Whether a toleration covers a taint.
pub(crate) fn covers(toleration: &Value, taint: &Value) -> bool {
    let (key, effect) = (text(toleration, "/key"), text(toleration, "/effect"));
    (effect.is_empty() || taint["effect"] == effect)
        && (key.is_empty() || taint["key"] == key)
        && match text(toleration, "/operator") {
            "Exists" => true,
            "" | "Equal" => !key.is_empty() && text(toleration, "/value") == text(taint, "/value"),
            _ => false,
        }
}

/// The first taint of one of these effects that the pod does not tolerate.
pub(crate) fn untolerated<'a>(pod: &Value, node: &'a Value, effects: &[&str]) -> Option<&'a Value> {
    list(node, "/spec/taints").iter().find(|taint| effects.contains(&text(taint, "/effect")) && !tolerates(pod, taint))
}

fn host_ports(pod: &Value) -> impl Iterator<Item = (&str, &str, i64)> {
    list(pod, "/spec/containers").iter().flat_map(|container| list(container, "/ports")).filter_map(|port| {
        let number = port["hostPort"].as_i64().filter(|number| *number > 0)?;
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let address = port["hostIP"].as_str().filter(|address| !address.is_empty()).unwrap_or("0.0.0.0");
        Some((protocol, address, number))
    })
}

fn ports_clash(pod: &Value, other: &Value) -> bool {
    host_ports(pod).any(|(protocol, address, number)| {
        host_ports(other).any(|(other_protocol, other_address, other_number)| {
            number == other_number
                && protocol == other_protocol
                && (address == other_address || address == "0.0.0.0" || other_address == "0.0.0.0")
        })
    })
}

/// The resources of which the node has too little left.
fn short_of(pod: &Value, node: &Value, running: &[&Value]) -> Option<Unfit> {
    let capacity = amounts(&node["status"]["allocatable"]);
    let has = |name: &str| capacity.get(name).copied().unwrap_or(0);
    let (mut reasons, mut crowded) = (Vec::new(), true);
    if (running.len() as i128 + 1) * 1000 > has("pods") {
        reasons.push("Too many pods".to_owned());
    }
    let wanted = requests(pod);
    let mut used = BTreeMap::new();
    for (resource, amount) in running.iter().flat_map(|other| requests(other)) {
        *used.entry(resource).or_insert(0) += amount;
    }
    for (resource, amount) in wanted.iter().filter(|(_, amount)| **amount > 0) {
        if amount + used.get(resource).copied().unwrap_or(0) > has(resource) {
            reasons.push(format!("Insufficient {resource}"));
            crowded &= *amount <= has(resource);
        }
    }
    (!reasons.is_empty()).then_some(Unfit { reasons, crowded })
}

/// Whether pods have the same owner, or none and the same labels: such pods are spread over nodes.
fn are_alike(pod: &Value, other: &Value) -> bool {
    text(pod, "/metadata/namespace") == text(other, "/metadata/namespace")
        && match (controller_of(pod), controller_of(other)) {
            (Some(owner), Some(of_other)) => owner["uid"] == of_other["uid"],
            (None, None) => labels(pod).is_some() && labels(pod) == labels(other),
            _ => false,
        }
}

/// How good a node is, the smallest is the best: avoided taints, unmet wishes, pods of the same kind, load, and the name.
pub(super) fn rank(pod: &Value, place: &Place) -> (usize, i64, usize, i128, String) {
    let node = &*place.node;
    let avoided = list(node, "/spec/taints")
        .iter()
        .filter(|taint| taint["effect"] == "PreferNoSchedule" && !tolerates(pod, taint))
        .count();
    let wishes = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution";
    let met: i64 = list(pod, wishes)
        .iter()
        .filter(|wish| term_matches(&wish["preference"], node))
        .map(|wish| wish["weight"].as_i64().unwrap_or(0))
        .sum();
    let alike = place.pods.iter().filter(|other| !is_finished(other) && are_alike(pod, other));
    let capacity = amounts(&node["status"]["allocatable"]);
    let load = |resource: &str| {
        let used: i128 = place.pods.iter().filter_map(|other| requests(other).get(resource).copied()).sum();
        used * 1000 / capacity.get(resource).copied().unwrap_or(1).max(1)
    };
    (avoided, -met, alike.count(), load("cpu") + load("memory"), name(node).to_owned())
}
