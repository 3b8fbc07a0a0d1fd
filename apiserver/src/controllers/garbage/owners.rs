//! What a reference to an owner is worth.

use serde_json::Value;

use super::FOREGROUND;
use crate::controllers::kind::Kind;
use crate::controllers::object::{is_terminating, list, name, text};

/// How an owner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there.
    Solid,
    /// It is being deleted and waits for its dependents.
    Waiting,
    /// It is not there, or another one has its name.
    Gone,
}

/// Whether the object has a finalizer.
pub(super) fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    list(object, "/metadata/finalizers").iter().any(|own| own == finalizer)
}

/// How an owner that is there stands.
pub(super) fn standing(owner: &Value) -> Standing {
    match is_terminating(owner) && has_finalizer(owner, FOREGROUND) {
        true => Standing::Waiting,
        false => Standing::Solid,
    }
}

/// Whether a reference names this owner.
pub(super) fn is_named(reference: &Value, kind: &Kind, owner: &Value) -> bool {
    let group = text(reference, "/apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
    group == kind.group && text(reference, "/kind") == kind.name && text(reference, "/name") == name(owner)
}

/// Whether a dependent keeps its owner from going.
pub(super) fn blocks(dependent: &Value, owner: &str) -> bool {
    let mut references = list(dependent, "/metadata/ownerReferences").iter();
    references.any(|reference| reference["uid"] == owner && reference["blockOwnerDeletion"] == true)
}

/// The references to other owners.
pub(super) fn without_owners(object: &Value, uids: &[String]) -> Vec<Value> {
    let references = list(object, "/metadata/ownerReferences").iter();
    references.filter(|reference| !uids.iter().any(|uid| reference["uid"] == uid.as_str())).cloned().collect()
}
