//! The claims of a set's pods: their names, and with whom they go.

use serde_json::{Value, json};

use crate::controllers::kind::{PODS, STATEFUL_SETS};
use crate::controllers::object::{is_terminating, list, name, namespace, owner_reference, text, uid};

/// The claims that a pod needs, as they are made.
pub(super) fn of(set: &Value, pod: &Value) -> Vec<Value> {
    let selected = set["spec"]["selector"]["matchLabels"].as_object();
    let made = |template: &Value| {
        let mut claim = template.clone();
        claim["metadata"]["name"] = json!(format!("{}-{}", name(template), name(pod)));
        claim["metadata"]["namespace"] = json!(namespace(set));
        if !claim["metadata"]["labels"].is_object() {
            claim["metadata"]["labels"] = json!({});
        }
        for (key, value) in selected.into_iter().flatten() {
            claim["metadata"]["labels"][key] = value.clone();
        }
        claim
    };
    list(set, "/spec/volumeClaimTemplates").iter().map(made).collect()
}

/// Lets the pod's volumes be its claims; one of the template with the name of a claim gives way.
pub(super) fn mount(set: &Value, pod: &mut Value) {
    let templates = list(set, "/spec/volumeClaimTemplates");
    if templates.is_empty() {
        return;
    }
    let claimed = |volume: &&Value| templates.iter().any(|template| name(template) == text(volume, "/name"));
    let pod_name = name(pod).to_owned();
    let mut volumes: Vec<Value> = templates
        .iter()
        .map(|template| {
            let claim = format!("{}-{pod_name}", name(template));
            json!({"name": name(template), "persistentVolumeClaim": {"claimName": claim}})
        })
        .collect();
    volumes.extend(list(pod, "/spec/volumes").iter().filter(|volume| !claimed(volume)).cloned());
    pod["spec"]["volumes"] = json!(volumes);
}

/// A claim with the owners that the set's retention policy wants, if it has others: none, the set, or a pod that the set
/// has no more need of.
pub(super) fn kept(set: &Value, pod: &Value, surplus: bool, claim: &Value) -> Option<Value> {
    let policy = &set["spec"]["persistentVolumeClaimRetentionPolicy"];
    let deletes = |when: &str| policy[when] == "Delete";
    let wanted = match (deletes("whenScaled") && surplus, deletes("whenDeleted")) {
        (true, _) => Some(owner_reference(&PODS, pod)),
        (false, true) => Some(owner_reference(&STATEFUL_SETS, set)),
        (false, false) => None,
    };
    let owners = list(claim, "/metadata/ownerReferences");
    let ours = |owner: &&Value| owner["uid"] == uid(set) || owner["uid"] == uid(pod);
    let found: Vec<&Value> = owners.iter().filter(ours).collect();
    if is_terminating(claim) || found == wanted.iter().collect::<Vec<_>>() {
        return None;
    }
    let mut owners: Vec<Value> = owners.iter().filter(|owner| !ours(owner)).cloned().collect();
    owners.extend(wanted);
    let mut kept = claim.clone();
    kept["metadata"]["ownerReferences"] = json!(owners);
    Some(kept)
}
