//! What makes a pod of a set this one pod: its number, and what follows from it.

use serde_json::{Value, json};

use super::claims;
use crate::controllers::kind::STATEFUL_SETS;
use crate::controllers::object::{label, name, set_entry, text};
use crate::controllers::pods::from_template;

/// Label of a pod: the name of its revision.
pub(super) const HASH: &str = "controller-revision-hash";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The number in a pod's name, if the set could have given it.
pub(super) fn ordinal(set: &Value, pod: &Value) -> Option<u64> {
    let digits = name(pod).strip_prefix(name(set))?.strip_prefix('-')?;
    digits.parse().ok().filter(|number: &u64| number.to_string() == digits)
}

/// The pod with a number, from the template of a revision.
pub(super) fn pod(set: &Value, ordinal: u64, revision: &str, template: &Value) -> Value {
    let mut pod = from_template(&STATEFUL_SETS, set, template);
    let named = format!("{}-{ordinal}", name(set));
    pod["metadata"]["name"] = json!(named);
    set_entry(&mut pod, "labels", POD_NAME, &named);
    set_entry(&mut pod, "labels", POD_INDEX, &ordinal.to_string());
    set_entry(&mut pod, "labels", HASH, revision);
    pod["spec"]["hostname"] = json!(named);
    let service = text(set, "/spec/serviceName");
    if !service.is_empty() {
        pod["spec"]["subdomain"] = json!(service);
    }
    claims::mount(set, &mut pod);
    pod
}

/// Whether the pod says who it is.
pub(super) fn is_marked(set: &Value, pod: &Value) -> bool {
    let number = ordinal(set, pod).map(|number| number.to_string());
    label(pod, POD_NAME) == Some(name(pod)) && label(pod, POD_INDEX) == number.as_deref()
}

/// The patch that lets it say so again.
pub(super) fn marks(set: &Value, pod: &Value) -> Value {
    let number = ordinal(set, pod).map(|number| number.to_string());
    json!({"metadata": {"labels": {POD_NAME: name(pod), POD_INDEX: number}}})
}
