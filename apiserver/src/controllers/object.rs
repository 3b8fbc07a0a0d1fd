//! Reading and making the parts that objects have in common.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::kind::{Kind, REPLICATION_CONTROLLERS};
use crate::verbs::meta;

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    meta(object, "name")
}

/// `metadata.namespace`, empty for a cluster-scoped object.
pub(crate) fn namespace(object: &Value) -> &str {
    meta(object, "namespace")
}

/// `metadata.uid`.
pub(crate) fn uid(object: &Value) -> &str {
    meta(object, "uid")
}

/// `metadata.resourceVersion`.
pub(crate) fn revision(object: &Value) -> &str {
    meta(object, "resourceVersion")
}

/// A text at a JSON pointer; empty if it is not there.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A whole number at a JSON pointer; zero if it is not there.
pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// A list at a JSON pointer; empty if it is not there.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `metadata.labels`.
pub(crate) fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object["metadata"]["labels"].as_object()
}

/// A label's value.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

/// An annotation's value.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(key)?.as_str()
}

/// Sets a label or an annotation (`map`), and makes the map if there is none.
pub(crate) fn set_entry(object: &mut Value, map: &str, key: &str, value: &str) {
    let metadata = &mut object["metadata"];
    if !metadata[map].is_object() {
        metadata[map] = json!({});
    }
    metadata[map][key] = json!(value);
}

/// Whether it is being deleted.
pub(crate) fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// `metadata.generation`.
pub(crate) fn generation(object: &Value) -> i64 {
    number(object, "/metadata/generation")
}

/// The owner that controls the object.
pub(crate) fn controller_of(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true)
}

/// Whether `owner` controls the object.
pub(crate) fn is_controlled_by(object: &Value, owner: &Value) -> bool {
    controller_of(object).is_some_and(|reference| reference["uid"] == uid(owner))
}

/// A reference to the controlling owner.
pub(crate) fn owner_reference(kind: &Kind, owner: &Value) -> Value {
    json!({
        "apiVersion": kind.api_version(), "kind": kind.name, "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The status condition of a type.
pub(crate) fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|condition| condition["type"] == type_)
}

/// The status of a condition; empty if there is none.
pub(crate) fn condition_status<'a>(object: &'a Value, type_: &str) -> &'a str {
    condition(object, type_).and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

/// A status with other numbers; of `counts` those that are zero are left out.
pub(crate) fn counted(status: &Value, always: &[(&str, i64)], counts: &[(&str, i64)]) -> Value {
    let mut fields = status.as_object().cloned().unwrap_or_default();
    for (name, number) in always {
        fields.insert((*name).into(), json!(number));
    }
    for (name, count) in counts {
        match count {
            0 => fields.remove(*name),
            count => fields.insert((*name).into(), json!(count)),
        };
    }
    Value::Object(fields)
}

/// A number or a percentage of `total` (`25%`), rounded up or down; nothing that can be read counts as zero.
pub(crate) fn scaled(value: &Value, total: i64, up: bool) -> i64 {
    match value {
        Value::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0);
            // Somebody may have written any number.
            let product = i128::from(percent) * i128::from(total);
            let share = if up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i64::from(i32::try_from(share).unwrap_or(i32::MAX))
        }
        other => other.as_i64().unwrap_or(0).clamp(0, i32::MAX.into()),
    }
}

/// What an owner's children are selected by, as a LabelSelector: a ReplicationController has labels in its place.
pub(crate) fn selector<'a>(kind: &Kind, owner: &'a Value) -> Cow<'a, Value> {
    let selector = &owner["spec"]["selector"];
    match *kind == REPLICATION_CONTROLLERS {
        true => Cow::Owned(json!({"matchLabels": selector})),
        false => Cow::Borrowed(selector),
    }
}

/// Whether a LabelSelector selects labels: an absent one selects nothing, an empty one everything.
pub(crate) fn selects(selector: &Value, labels: Option<&Map<String, Value>>) -> bool {
    let Some(selector) = selector.as_object() else { return false };
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let pairs = selector.get("matchLabels").and_then(Value::as_object);
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    pairs.into_iter().flatten().all(|(key, value)| label(key) == value.as_str())
        && expressions.into_iter().flatten().all(|term| fulfils(term, label(term["key"].as_str().unwrap_or_default())))
}

/// Whether a value (or its absence) fulfils a requirement with `operator` and `values`.
pub(crate) fn fulfils(term: &Value, value: Option<&str>) -> bool {
    let among = || value.is_some_and(|value| list(term, "/values").iter().any(|other| other == value));
    let compare = |order: std::cmp::Ordering| {
        let limit = text(term, "/values/0").parse::<i64>();
        let value = value.and_then(|value| value.parse::<i64>().ok());
        matches!((value, limit), (Some(value), Ok(limit)) if value.cmp(&limit) == order)
    };
    match term["operator"].as_str().unwrap_or_default() {
        "In" => among(),
        "NotIn" => !among(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

/// A short hash that follows from a value alone, in the letters of generated names.
pub(crate) fn hash(value: &Value, collisions: i64) -> String {
    // FNV-1a over the text: keys of a JSON object are sorted, so equal values have equal texts.
    let mut state: u32 = 0x811c_9dc5;
    let salt = if collisions == 0 { String::new() } else { collisions.to_string() };
    for byte in value.to_string().bytes().chain(salt.bytes()) {
        state = (state ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let letters = b"bcdfghjklmnpqrstvwxz2456789";
    state.to_string().bytes().map(|digit| char::from(letters[usize::from(digit) % letters.len()])).collect()
}
