//! Strategic merge patch: a merge patch whose lists merge by key, with directives.
//!
//! `$patch: replace|delete|merge` in a map or in an element of a list, `$retainKeys`, `$deleteFromPrimitiveList/F` and
//! `$setElementOrder/F` beside the field F.

use serde_json::{Map, Value};

use crate::go;
use crate::schema::Node;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Applies `patch` to `target`; errors are in the words of the real server.
pub fn strategic_merge(target: &mut Value, patch: &Value, node: &Node) -> Result<(), String> {
    let (Value::Object(target), Value::Object(patch)) = (target, patch) else {
        return Err("invalid strategic merge patch: it must be an object".into());
    };
    merge_map(target, patch, node)
}

fn merge_map(target: &mut Map<String, Value>, patch: &Map<String, Value>, node: &Node) -> Result<(), String> {
    if let Some(odd) = patch.get(DIRECTIVE).filter(|directive| !directive.is_string()) {
        return Err(unknown(&odd_text(odd), patch));
    }
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *target =
                patch.iter().filter(|(name, _)| *name != DIRECTIVE).map(|(n, v)| (n.clone(), v.clone())).collect();
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some(other) => return Err(unknown(other, patch)),
    }
    check_orders(patch, node)?;
    if let Some(keep) = patch.get(RETAIN).and_then(Value::as_array) {
        target.retain(|name, _| keep.iter().any(|kept| kept == name));
    }
    let before = target.clone();
    for (name, value) in patch {
        if name == DIRECTIVE || name == RETAIN || name.starts_with(ORDER) {
            continue;
        }
        if let Some(field) = name.strip_prefix(DELETE_FROM) {
            let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(list) = target.get_mut(field).and_then(Value::as_array_mut) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        merge_field(target, name, value, node)?;
    }
    for (name, value) in patch {
        // A merged list is in the order that the patch gives for it, or else in that of the patch's own elements.
        let field = name.strip_prefix(ORDER).unwrap_or(name);
        if field == name && patch.contains_key(&format!("{ORDER}{name}")) {
            continue;
        }
        let key = node.child(field).and_then(|node| node.patch_key.clone());
        let list = target.get_mut(field).and_then(Value::as_array_mut);
        if let (Some(key), Some(list), Some(order)) = (key, list, value.as_array()) {
            let old = before.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
            if !order.iter().any(|element| element.get(DIRECTIVE).is_some()) || name != field {
                reorder(list, order, &old, &key);
            }
        }
    }
    Ok(())
}

fn merge_field(target: &mut Map<String, Value>, name: &str, value: &Value, node: &Node) -> Result<(), String> {
    let nothing = Node::default();
    let field = node.child(name).unwrap_or(&nothing);
    match value {
        Value::Null => {
            target.remove(name);
        }
        // What is not there yet is taken from the patch as it is.
        Value::Object(_) | Value::Array(_) if !target.contains_key(name) => {
            if let Some(value) = without_directives(value) {
                target.insert(name.to_owned(), value);
            }
        }
        Value::Object(patch) => {
            if !target.get(name).is_some_and(Value::is_object) {
                target.insert(name.to_owned(), Value::Object(Map::new()));
            }
            if let Some(Value::Object(target)) = target.get_mut(name) {
                merge_map(target, patch, field)?;
            }
            if patch.get(DIRECTIVE).is_some_and(|directive| directive == "delete") {
                target.remove(name);
            }
        }
        Value::Array(patch) => match &field.patch_key {
            Some(key) => {
                let old = target.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
                let merged = merge_list(old, patch, key, field)?;
                target.insert(name.to_owned(), Value::Array(merged));
            }
            None => {
                target.insert(name.to_owned(), value.clone());
            }
        },
        scalar => {
            target.insert(name.to_owned(), scalar.clone());
        }
    }
    Ok(())
}

fn merge_list(mut list: Vec<Value>, patch: &[Value], key: &str, node: &Node) -> Result<Vec<Value>, String> {
    if key.is_empty() {
        for value in patch {
            if !list.contains(value) {
                list.push(value.clone());
            }
        }
        return Ok(list);
    }
    if let Some(first) = list.iter().chain(patch).next()
        && list.iter().chain(patch).any(|value| go::type_name(value) != go::type_name(first))
    {
        let shown = |list: &[Value]| go::plain(&Value::Array(list.to_vec()));
        return Err(format!("list element types are not identical: [{} {}]", shown(&list), shown(patch)));
    }
    if patch.iter().any(|element| element.get(DIRECTIVE).is_some_and(|d| d == "replace")) {
        return Ok(patch.iter().filter(|element| element.get(DIRECTIVE).is_none()).cloned().collect());
    }
    for element in patch {
        let map =
            element.as_object().ok_or("invalid strategic merge patch: an element of a keyed list must be an object")?;
        let value = map.get(key);
        if let Some(odd) = map.get(DIRECTIVE).filter(|directive| !directive.is_string()) {
            return Err(unknown(&odd_text(odd), map));
        }
        match map.get(DIRECTIVE).and_then(Value::as_str) {
            None => {}
            Some("merge") => return Err("merging lists cannot yet be specified in the patch".into()),
            Some("delete") if value.is_none() => {
                return Err(format!("map: {} does not contain declared merge key: {key}", go_map(map)));
            }
            Some("delete") => {
                list.retain(|item| item.get(key) != value);
                continue;
            }
            Some(other) => return Err(unknown(other, map)),
        }
        let Some(value) = value else {
            return Err(format!("map: {} does not contain declared merge key: {key}", go_map(map)));
        };
        let items = node.resolve().items.as_deref().cloned().unwrap_or_default();
        match list.iter_mut().find(|item| item.get(key) == Some(value)) {
            Some(Value::Object(item)) => merge_map(item, map, &items)?,
            _ => {
                let mut fresh = Map::new();
                merge_map(&mut fresh, map, &items)?;
                list.push(Value::Object(fresh));
            }
        }
    }
    Ok(list)
}

/// A value of a patch without what only says how to patch; nothing if it says that nothing is to be there.
fn without_directives(value: &Value) -> Option<Value> {
    match value {
        Value::Object(map) => {
            if map.get(DIRECTIVE).is_some_and(|directive| directive == "delete") {
                return None;
            }
            let said = |name: &str| {
                name == DIRECTIVE || name == RETAIN || name.starts_with(ORDER) || name.starts_with(DELETE_FROM)
            };
            let left = map.iter().filter(|(name, value)| !said(name) && !value.is_null());
            Some(left.filter_map(|(name, value)| Some((name.clone(), without_directives(value)?))).collect())
        }
        Value::Array(list) => {
            let bare =
                |value: &&Value| value.as_object().is_none_or(|map| map.len() != 1 || !map.contains_key(DIRECTIVE));
            Some(list.iter().filter(bare).filter_map(without_directives).collect())
        }
        other => Some(other.clone()),
    }
}

/// The order that a patch gives for a list names what the patch has for it, in that order.
fn check_orders(patch: &Map<String, Value>, node: &Node) -> Result<(), String> {
    for (name, order) in patch {
        let Some(field) = name.strip_prefix(ORDER) else { continue };
        let (Some(order), Some(list)) = (order.as_array(), patch.get(field).and_then(Value::as_array)) else {
            continue;
        };
        let key = node.child(field).and_then(|node| node.patch_key.clone()).unwrap_or_default();
        let alike = |a: &Value, b: &Value| if key.is_empty() { a == b } else { a.get(&key) == b.get(&key) };
        let set: Vec<&Value> = list.iter().filter(|item| item.get(DIRECTIVE).is_none()).collect();
        let mut places = order.iter();
        if !set.iter().all(|item| places.any(|place| alike(place, item))) {
            let shown = |list: &[&Value]| list.iter().map(|value| go_value(value)).collect::<Vec<_>>().join(" ");
            let order: Vec<&Value> = order.iter().collect();
            return Err(format!(
                "The order in patch list:\n[{}]\n doesn't match $setElementOrder list:\n[{}]\n",
                shown(&list.iter().collect::<Vec<_>>()),
                shown(&order)
            ));
        }
    }
    Ok(())
}

/// Sorts as `order` says. Elements that it does not name keep their old order, each before the named ones that it
/// was in front of; what is new comes before what is not named.
fn reorder(list: &mut Vec<Value>, order: &[Value], old: &[Value], key: &str) {
    let place = |item: &Value, among: &[Value]| {
        among.iter().position(|other| if key.is_empty() { other == item } else { other.get(key) == item.get(key) })
    };
    let (mut named, others): (Vec<_>, Vec<_>) = list.drain(..).partition(|item| place(item, order).is_some());
    named.sort_by_key(|item| place(item, order));
    let mut others = others.into_iter().peekable();
    for item in named {
        while let Some(other) = others.peek() {
            match (place(other, old), place(&item, old)) {
                (Some(before), Some(after)) if before < after => list.extend(others.next()),
                _ => break,
            }
        }
        list.push(item);
    }
    list.extend(others);
}

/// What should be a text and is none, as Go's `%s` prints it.
fn odd_text(value: &Value) -> String {
    match value {
        Value::Null => "%!s(<nil>)".into(),
        value => format!("%!s({}={})", go::type_name(value), go::plain(value)),
    }
}

fn unknown(directive: &str, map: &Map<String, Value>) -> String {
    format!("unknown patch type: {directive} in map: {}", go_map(map))
}

/// A map as Go prints it.
fn go_map(map: &Map<String, Value>) -> String {
    let mut pairs: Vec<String> = map.iter().map(|(name, value)| format!("{name}:{}", go_value(value))).collect();
    pairs.sort();
    format!("map[{}]", pairs.join(" "))
}

/// A value as Go prints it.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => go_map(map),
        Value::Array(list) => format!("[{}]", list.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Null => "<nil>".into(),
        other => other.to_string(),
    }
}
