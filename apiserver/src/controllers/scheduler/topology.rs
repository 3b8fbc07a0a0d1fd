//! What pods want of other pods: to be near them, away from them, or spread evenly over the parts of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fit::{Place, Unfit, matches_node, untolerated};
use crate::controllers::object::{is_terminating, label, labels, list, namespace, selects, text};
use crate::controllers::pods::is_finished;

/// All nodes, and the namespaces whose labels terms may ask for.
pub(crate) struct Cluster<'a> {
    pub(crate) places: &'a [Place],
    pub(crate) namespaces: &'a [std::sync::Arc<Value>],
}

/// Parts of the cluster: a label's key and value.
type Domain<'a> = (&'a str, &'a str);

const AFFINITY: &str = "/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution";
const ANTI_AFFINITY: &str = "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";

/// Whether where a pod may go depends on other pods.
pub(super) fn depends_on_pods(pod: &Value) -> bool {
    [AFFINITY, ANTI_AFFINITY, "/spec/topologySpreadConstraints"].iter().any(|terms| !list(pod, terms).is_empty())
}

fn domain<'a>(node: &'a Value, term: &'a Value) -> Option<Domain<'a>> {
    let key = text(term, "/topologyKey");
    Some((key, label(node, key)?))
}

impl<'a> Cluster<'a> {
    /// The pods that run, with their nodes.
    fn pods(&self) -> impl Iterator<Item = (&'a Value, &'a Value)> + use<'a> {
        let places = self.places.iter();
        let with_node = |place: &'a Place| place.pods.iter().map(move |pod| (&**pod, &*place.node));
        places.flat_map(with_node).filter(|(pod, _)| !is_finished(pod))
    }

    /// Whether a term of `owner` means the pod.
    fn means(&self, term: &Value, owner: &Value, pod: &Value) -> bool {
        let spaces = list(term, "/namespaces");
        let selector = &term["namespaceSelector"];
        let here = namespace(pod);
        let selected = || {
            let space = self.namespaces.iter().find(|space| text(space, "/metadata/name") == here);
            space.is_some_and(|space| selects(selector, labels(space)))
        };
        let own = spaces.is_empty() && selector.is_null() && namespace(owner) == here;
        (own || spaces.iter().any(|space| *space == here) || selected()) && selects(&term["labelSelector"], labels(pod))
    }

    /// How many pods of each part the spread counts, in the parts that the pod may use.
    fn spread(&self, pod: &Value, constraint: &Value, keys: &[&str]) -> BTreeMap<&'a str, i64> {
        let mut counts = BTreeMap::new();
        for Place { node, pods } in self.places {
            let with_keys = keys.iter().all(|key| label(node, key).is_some());
            let wanted = text(constraint, "/nodeAffinityPolicy") == "Ignore" || matches_node(pod, node);
            let tolerated = text(constraint, "/nodeTaintsPolicy") != "Honor"
                || untolerated(pod, node, &["NoSchedule", "NoExecute"]).is_none();
            let Some(value) = label(node, text(constraint, "/topologyKey")) else { continue };
            if with_keys && wanted && tolerated {
                let counted = pods.iter().filter(|other| {
                    !is_finished(other)
                        && !is_terminating(other)
                        && namespace(other) == namespace(pod)
                        && selects(&constraint["labelSelector"], labels(other))
                });
                *counts.entry(value).or_insert(0) += counted.count() as i64;
            }
        }
        counts
    }

    /// Why a place would make the pod's kind too uneven.
    pub(super) fn unspread(&self, pod: &Value, node: &Value) -> Option<Unfit> {
        let all = list(pod, "/spec/topologySpreadConstraints").iter();
        let hard: Vec<&Value> = all.filter(|one| text(one, "/whenUnsatisfiable") == "DoNotSchedule").collect();
        let keys: Vec<&str> = hard.iter().map(|one| text(one, "/topologyKey")).collect();
        for constraint in hard {
            let Some((_, value)) = domain(node, constraint) else {
                return Unfit::never("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let counts = self.spread(pod, constraint, &keys);
            let few = constraint["minDomains"].as_u64().is_some_and(|least| (counts.len() as u64) < least);
            let least = if few { 0 } else { counts.values().copied().min().unwrap_or(0) };
            let own = i64::from(selects(&constraint["labelSelector"], labels(pod)));
            let skew = counts.get(value).copied().unwrap_or(0) + own - least;
            if skew > constraint["maxSkew"].as_i64().unwrap_or(1) {
                return Unfit::now("node(s) didn't match pod topology spread constraints");
            }
        }
        None
    }

    /// Why a place is too far from the pods that the pod wants to be near, or too near to others.
    pub(super) fn unfriendly(&self, pod: &Value, node: &Value) -> Option<Unfit> {
        if !self.near(pod, node) {
            return Unfit::never("node(s) didn't match pod affinity rules");
        }
        let mut avoided = list(pod, ANTI_AFFINITY).iter();
        let taken = |term: &Value| {
            let here = domain(node, term);
            here.is_some() && self.pods().any(|(other, on)| domain(on, term) == here && self.means(term, pod, other))
        };
        if avoided.any(taken) {
            return Unfit::now("node(s) didn't match pod anti-affinity rules");
        }
        let unwelcome = |(other, on): (&Value, &Value)| {
            let mut terms = list(other, ANTI_AFFINITY).iter();
            terms.any(|term| {
                let there = domain(on, term);
                there.is_some() && there == domain(node, term) && self.means(term, other, pod)
            })
        };
        if self.pods().any(unwelcome) {
            return Unfit::now("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        None
    }

    fn near(&self, pod: &Value, node: &Value) -> bool {
        let terms = list(pod, AFFINITY);
        if terms.is_empty() {
            return true;
        }
        let wanted = |other: &Value| terms.iter().all(|term| self.means(term, pod, other));
        let mates: Vec<&Value> = self.pods().filter(|(other, _)| wanted(other)).map(|(_, on)| on).collect();
        let taken: BTreeSet<Domain> =
            mates.iter().flat_map(|on| terms.iter().filter_map(|term| domain(on, term))).collect();
        let here: Option<Vec<Domain>> = terms.iter().map(|term| domain(node, term)).collect();
        // The first of a group that wants to be together has nobody to be near.
        here.is_some_and(|here| here.iter().all(|own| taken.contains(own)) || (taken.is_empty() && wanted(pod)))
    }
}
