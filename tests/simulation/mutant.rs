//! Planted faults of another kind: they make the product look as if it were wrong. Each rule must catch its own.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::case::Who;
use crate::ledger::{POOLS, Rule, SERVICES, SLICES};
use crate::model::ingress;
use crate::network::Network;

/// A product that is wrong in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Gives out what another Service has.
    GivesTwice,
    /// Gives out what is in no pool.
    GivesForeign,
    /// Takes addresses away.
    TakesAway,
    /// Does not hear of changes of pools.
    HearsNoPools,
    /// Counts wrong.
    CountsWrong,
    /// Does not see, when it starts, what it has written before.
    StartsBlind,
    /// Writes maps backwards.
    WritesBackwards,
    /// Waits before it writes maps.
    Batches,
    /// Writes no maps any more after a write has failed.
    GivesUp,
    /// Leaves slots out.
    ForgetsBackends,
    /// Needs more than its role allows.
    WantsMore,
}

/// All of them, with the rule that each breaks.
pub(crate) const ALL: [(Mutant, Rule); 11] = [
    (Mutant::GivesTwice, Rule::Unique),
    (Mutant::GivesForeign, Rule::InPool),
    (Mutant::TakesAway, Rule::Stays),
    (Mutant::HearsNoPools, Rule::Settles),
    (Mutant::CountsWrong, Rule::Settles),
    (Mutant::StartsBlind, Rule::Rests),
    (Mutant::WritesBackwards, Rule::NeverEmpty),
    (Mutant::Batches, Rule::AtOnce),
    (Mutant::GivesUp, Rule::MadeGood),
    (Mutant::ForgetsBackends, Rule::NodeSettles),
    (Mutant::WantsMore, Rule::Allowed),
];

impl Mutant {
    /// The body of a write as it arrives.
    pub(crate) fn on_write(self, network: &Network, who: Who, resource: Option<&'static str>, body: Bytes) -> Bytes {
        let Ok(mut patch) = serde_json::from_slice::<Value>(&body) else { return body };
        if who == Who::Agent {
            return body;
        }
        match (self, resource) {
            (Self::GivesTwice, Some(SERVICES)) if has_address(&patch) => {
                let held = network.ledger().services.values().flat_map(|service| ingress(service)).next();
                if let Some(address) = held {
                    patch["status"]["loadBalancer"] = json!({"ingress": [{"ip": address.to_string()}]});
                }
            }
            (Self::GivesForeign, Some(SERVICES)) if has_address(&patch) => {
                patch["status"]["loadBalancer"] = json!({"ingress": [{"ip": "203.0.113.77"}]});
            }
            (Self::TakesAway, Some(SERVICES)) if !has_address(&patch) => {
                patch["status"]["loadBalancer"] = json!({"ingress": null});
            }
            (Self::CountsWrong, Some(POOLS)) => {
                let conditions = patch["status"]["conditions"].as_array_mut();
                for condition in conditions.into_iter().flatten().filter(|one| one["type"] == "cilium.io/IPsUsed") {
                    condition["message"] = json!("7777");
                }
            }
            _ => return body,
        }
        Bytes::from(patch.to_string())
    }

    /// A list as it is read.
    pub(crate) fn on_list(self, who: Who, resource: &str, list: &mut Value) {
        if self == Self::StartsBlind && who != Who::Agent && resource == POOLS {
            let items = list["items"].as_array_mut().into_iter().flatten();
            items.filter_map(Value::as_object_mut).for_each(|item| drop(item.remove("status")));
        }
    }

    /// Whether a line of a watch does not come.
    pub(crate) fn swallows(self, who: Who, resource: &str, kind: &str) -> bool {
        self == Self::HearsNoPools && who != Who::Agent && resource == POOLS && kind != "BOOKMARK"
    }

    /// An object of the installation as it is installed.
    pub(crate) fn on_install(self, object: &mut Value) {
        if self == Self::WantsMore && object["kind"] == "ClusterRole" {
            let rules = object["rules"].as_array_mut();
            rules.into_iter().flatten().filter(|rule| rule["resources"] == json!(["services/status"])).for_each(
                |rule| {
                    rule["verbs"] = json!(["update"]);
                },
            );
        }
    }

    /// How long the node waits with what it has heard.
    pub(crate) fn dawdles(self, who: Who, resource: &str) -> Option<Duration> {
        (self == Self::Batches && who == Who::Agent && resource == SLICES).then_some(Duration::from_millis(100))
    }
}

fn has_address(patch: &Value) -> bool {
    patch["status"]["loadBalancer"]["ingress"].is_array()
}
