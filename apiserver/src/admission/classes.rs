//! Classes of storage and of ingress: the default one is filled in; and what is in use is protected.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::kinds::{ingress, quantity};
use crate::state::State;
use crate::verbs::{Call, meta};

const STORAGE_CLASSES: &str = "storage.k8s.io/storageclasses";
const STORAGE_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const INGRESS_CLASSES: &str = "networking.k8s.io/ingressclasses";
const INGRESS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// The name of the default class: the newest of several, by name if they are of the same second.
fn default_of(state: &State, classes: &str, annotation: &str) -> Option<String> {
    let all = state.store.list(&Arc::from(classes), "").map(|(_, class)| class);
    let defaults = all.filter(|class| class["metadata"]["annotations"][annotation] == "true");
    let key =
        |class: &Arc<Value>| (Reverse(meta(class, "creationTimestamp").to_owned()), meta(class, "name").to_owned());
    defaults.min_by_key(key).map(|class| meta(&class, "name").to_owned())
}

/// Fills in the class of a claim or an Ingress that says none, and the finalizers that keep storage while it is used.
pub(super) fn fill(state: &State, call: &Call, object: &mut Value) {
    let finalizer = match (call.resource.group.as_str(), call.resource.plural.as_str()) {
        ("", "persistentvolumeclaims") => {
            if object["spec"]["storageClassName"].is_null()
                && let Some(name) = default_of(state, STORAGE_CLASSES, STORAGE_DEFAULT)
            {
                object["spec"]["storageClassName"] = json!(name);
            }
            "kubernetes.io/pvc-protection"
        }
        ("", "persistentvolumes") => "kubernetes.io/pv-protection",
        ("networking.k8s.io", "ingresses") => {
            if object["spec"]["ingressClassName"].is_null()
                && object["metadata"]["annotations"][ingress::CLASS_ANNOTATION].is_null()
                && let Some(name) = default_of(state, INGRESS_CLASSES, INGRESS_DEFAULT)
            {
                object["spec"]["ingressClassName"] = json!(name);
            }
            return;
        }
        _ => return,
    };
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|known| known == finalizer) {
        finalizers.push(json!(finalizer));
        object["metadata"]["finalizers"] = Value::Array(finalizers);
    }
}

/// Only a claim whose class says so may grow.
pub(super) fn admit_resize(state: &State, call: &Call, object: &Value, current: &Value) -> Outcome<()> {
    let size = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"].clone();
    if (call.resource.group.as_str(), call.resource.plural.as_str()) != ("", "persistentvolumeclaims")
        || current["status"]["phase"] != "Bound"
        || quantity::compare(&size(object), &size(current)) != Ordering::Greater
    {
        return Ok(());
    }
    let name = current["spec"]["storageClassName"].as_str().unwrap_or_default();
    let mut classes = state.store.list(&Arc::from(STORAGE_CLASSES), "").map(|(_, class)| class);
    if classes.any(|class| meta(&class, "name") == name && class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(Failure::forbidden("", &call.resource.plural, meta(object, "name"), why))
}
