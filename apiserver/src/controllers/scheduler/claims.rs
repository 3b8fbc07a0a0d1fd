//! The claims of a pod: it gets no place before they are bound.

use serde_json::Value;

use crate::controllers::cache::Cache;
use crate::controllers::kind::PERSISTENT_VOLUME_CLAIMS;
use crate::controllers::object::{annotation, is_terminating, namespace, text};
use crate::controllers::storage::claims;

/// Annotation of a claim that has its volume.
const BOUND: &str = "pv.kubernetes.io/bind-completed";

/// Why a pod cannot be placed because of its claims, in the scheduler's words. Nothing here binds a claim to a volume.
pub(super) fn missing(cache: &Cache, pod: &Value) -> Option<String> {
    claims(pod).find_map(|name| match cache.get(&PERSISTENT_VOLUME_CLAIMS, namespace(pod), name) {
        None => Some(format!("persistentvolumeclaim {name:?} not found")),
        Some(claim) if is_terminating(&claim) => Some(format!("persistentvolumeclaim {name:?} is being deleted")),
        Some(claim) if annotation(&claim, BOUND).is_none() || text(&claim, "/spec/volumeName").is_empty() => {
            Some("pod has unbound immediate PersistentVolumeClaims".into())
        }
        Some(_) => None,
    })
}
