//! How many pods a budget may count on: what their owners want, or what is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::controllers::cache::Key;
use crate::controllers::client::Refused;
use crate::controllers::context::Tools;
use crate::controllers::garbage::discover;
use crate::controllers::kind::{DEPLOYMENTS, Kind, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS};
use crate::controllers::object::{controller_of, name, namespace, scaled, text, uid};

/// What a budget wants.
pub(super) struct Expected {
    /// Pods that there should be.
    pub(super) pods: i64,
    /// Healthy ones among them.
    pub(super) healthy: i64,
    /// Whether there are pods without an owner, of which nobody can say how many there should be.
    pub(super) unmanaged: bool,
}

/// Counts for a budget.
///
/// # Errors
/// An owner does not say how many pods it wants.
pub(super) async fn count(tools: &Tools<Key>, budget: &Value, pods: &[Arc<Value>]) -> Result<Expected, Refused> {
    let (least, most) = (&budget["spec"]["minAvailable"], &budget["spec"]["maxUnavailable"]);
    if most.is_null() && !least.is_string() {
        let pods = if least.is_null() { 0 } else { pods.len() as i64 };
        return Ok(Expected { pods, healthy: least.as_i64().unwrap_or(0), unmanaged: false });
    }
    let (pods, unmanaged) = wanted(tools, pods).await?;
    let healthy = match most {
        Value::Null => scaled(least, pods, true),
        most => (pods - scaled(most, pods, true)).max(0),
    };
    Ok(Expected { pods, healthy, unmanaged })
}

/// What all owners of these pods want together, and whether some pods have none.
async fn wanted(tools: &Tools<Key>, pods: &[Arc<Value>]) -> Result<(i64, bool), Refused> {
    let (mut sizes, mut unmanaged) = (BTreeMap::new(), false);
    for pod in pods {
        let Some(owner) = controller_of(pod) else {
            unmanaged = true;
            continue;
        };
        let id = text(owner, "/uid");
        if !sizes.contains_key(id) {
            let missing = || failed(format!("found no controllers for pod {:?}", name(pod)));
            let (top, size) = size(tools, owner, namespace(pod)).await?.ok_or_else(missing)?;
            // Sets of one Deployment count once.
            sizes.insert(top, size);
        }
    }
    Ok((sizes.values().sum(), unmanaged))
}

/// How many pods an owner wants, and the uid of the one who says so.
async fn size(tools: &Tools<Key>, owner: &Value, inside: &str) -> Result<Option<(String, i64)>, Refused> {
    let group = text(owner, "/apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
    let known = [REPLICATION_CONTROLLERS, REPLICA_SETS, STATEFUL_SETS];
    let Some(kind) = known.iter().find(|kind| kind.group == group && kind.name == text(owner, "/kind")) else {
        return scale(tools, owner, group, inside).await;
    };
    let Some(found) = named(tools, kind, owner, inside) else { return Ok(None) };
    let above =
        controller_of(&found).filter(|above| *kind == REPLICA_SETS && above["kind"] == DEPLOYMENTS.name.as_ref());
    let top = match above {
        Some(above) => named(tools, &DEPLOYMENTS, above, inside),
        None => Some(found),
    };
    Ok(top.map(|top| (uid(&top).to_owned(), top["spec"]["replicas"].as_i64().unwrap_or(1))))
}

fn named(tools: &Tools<Key>, kind: &Kind, reference: &Value, inside: &str) -> Option<Arc<Value>> {
    let found = tools.cache.get(kind, inside, text(reference, "/name"))?;
    (uid(&found) == text(reference, "/uid")).then_some(found)
}

/// What the scale of any other kind says.
async fn scale(tools: &Tools<Key>, owner: &Value, group: &str, inside: &str) -> Result<Option<(String, i64)>, Refused> {
    let kinds = discover(&tools.client).await?;
    let kind = text(owner, "/kind");
    let Some(found) = kinds.iter().find(|known| known.group == group && known.name == kind) else {
        return Err(failed(format!("no matches for kind {kind:?} in version {:?}", text(owner, "/apiVersion"))));
    };
    match tools.client.document(&found.path(inside, text(owner, "/name"), "scale"), "application/json").await {
        Ok(scale) if uid(&scale) != text(owner, "/uid") => Ok(None),
        Ok(scale) => Ok(Some((uid(&scale).to_owned(), scale["spec"]["replicas"].as_i64().unwrap_or(0)))),
        // An object that is not there has a kind and a name in the answer's details, a path that is not there has not.
        Err(refused) if refused.is_not_found() && refused.message.contains('"') => Ok(None),
        Err(refused) if refused.is_not_found() => {
            let separator = if group.is_empty() { "" } else { "." };
            Err(failed(format!("{}{separator}{group} does not implement the scale subresource", found.plural)))
        }
        Err(refused) => Err(refused),
    }
}

fn failed(message: String) -> Refused {
    Refused { code: 500, reason: String::new(), message }
}
