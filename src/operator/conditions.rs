//! Conditions of an object's status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// What a condition should say.
pub(super) struct Wanted<'a> {
    pub(super) kind: &'a str,
    pub(super) status: &'a str,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
}

/// The condition as it should stand, given those that stand: `lastTransitionTime` moves only with the status. An object
/// without a generation (Services had none for long) has none observed; the API drops a zero, and it would differ for ever.
pub(super) fn render(present: &[Condition], wanted: &Wanted<'_>, generation: Option<i64>, now: Timestamp) -> Condition {
    let old = present.iter().find(|condition| condition.type_ == wanted.kind);
    let since = old.filter(|condition| condition.status == wanted.status);
    // The API keeps whole seconds; with a fraction every comparison would differ.
    let now = || Time(Timestamp::from_second(now.as_second()).unwrap_or_default());
    Condition {
        type_: wanted.kind.to_owned(),
        status: wanted.status.to_owned(),
        reason: wanted.reason.to_owned(),
        message: wanted.message.to_owned(),
        observed_generation: generation.filter(|generation| *generation != 0),
        last_transition_time: since.map_or_else(now, |condition| condition.last_transition_time.clone()),
    }
}

/// Puts a condition in the place of the one of its type, or at the end.
pub(super) fn put(conditions: &mut Vec<Condition>, condition: Condition) {
    match conditions.iter_mut().find(|present| present.type_ == condition.type_) {
        Some(present) => *present = condition,
        None => conditions.push(condition),
    }
}
