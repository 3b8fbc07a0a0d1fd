//! Patches by media type: JSON patch and merge patch here, strategic merge next door. Apply is the field manager's.

pub mod strategic;

#[cfg(test)]
mod patch_tests;

use serde_json::{Map, Value};

use crate::state::is_deeper;

/// A JSON patch that does not fit the object; the real server does not say more.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected;

/// Most bytes that all `copy` operations together may add; kube-apiserver v1.34 has the same limit.
const COPIED_MAX: usize = 3 << 20;
/// Most levels of a path, and of what is put there. No object may have so many; without a limit, each of many operations
/// could go deeper than the last.
const LEVELS_MAX: usize = 200;

/// Applies RFC 6902 as the Go library does: `test` against null passes on an absent member, and `replace` makes one.
pub fn json_patch(target: &mut Value, operations: &[Value]) -> Result<(), Rejected> {
    let mut copied = 0;
    for operation in operations {
        let text = |name: &str| operation.get(name).and_then(Value::as_str);
        let path = pointer(text("path").ok_or(Rejected)?)?;
        let value = || operation.get("value").cloned().unwrap_or(Value::Null);
        match text("op").ok_or(Rejected)? {
            "add" => add(target, &path, value())?,
            "remove" => drop(remove(target, &path)?),
            "replace" => replace(target, &path, value())?,
            "test" => test(target, &path, &value())?,
            "move" => {
                let moved = remove(target, &pointer(text("from").ok_or(Rejected)?)?)?;
                add(target, &path, moved)?;
            }
            "copy" => {
                let from = pointer(text("from").ok_or(Rejected)?)?;
                let value = find(target, &from).filter(|value| !is_deeper(value, LEVELS_MAX)).ok_or(Rejected)?;
                copied += value.to_string().len();
                if copied > COPIED_MAX {
                    return Err(Rejected);
                }
                let value = value.clone();
                add(target, &path, value)?;
            }
            _ => return Err(Rejected),
        }
    }
    Ok(())
}

fn pointer(text: &str) -> Result<Vec<String>, Rejected> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text.strip_prefix('/').ok_or(Rejected)?;
    Ok(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect())
}

fn find<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, part| match value {
        Value::Object(map) => map.get(part),
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The container of the last part of a path.
fn parent<'a, 'p>(value: &'a mut Value, path: &'p [String]) -> Result<(&'a mut Value, &'p str), Rejected> {
    let (last, before) = path.split_last().ok_or(Rejected)?;
    let mut at = value;
    for part in before {
        at = match at {
            Value::Object(map) => map.get_mut(part).ok_or(Rejected)?,
            Value::Array(list) => list.get_mut(part.parse::<usize>().map_err(|_| Rejected)?).ok_or(Rejected)?,
            _ => return Err(Rejected),
        };
    }
    Ok((at, last))
}

fn add(target: &mut Value, path: &[String], value: Value) -> Result<(), Rejected> {
    if path.len() > LEVELS_MAX || is_deeper(&value, LEVELS_MAX) {
        return Err(Rejected);
    }
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, path)? {
        (Value::Object(map), name) => {
            map.insert(name.to_owned(), value);
        }
        (Value::Array(list), "-") => list.push(value),
        (Value::Array(list), index) => {
            let index = index.parse::<usize>().map_err(|_| Rejected)?;
            if index > list.len() {
                return Err(Rejected);
            }
            list.insert(index, value);
        }
        _ => return Err(Rejected),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &[String]) -> Result<Value, Rejected> {
    match parent(target, path)? {
        (Value::Object(map), name) => map.remove(name).ok_or(Rejected),
        (Value::Array(list), index) => {
            let index = index.parse::<usize>().map_err(|_| Rejected)?;
            if index < list.len() { Ok(list.remove(index)) } else { Err(Rejected) }
        }
        _ => Err(Rejected),
    }
}

fn replace(target: &mut Value, path: &[String], value: Value) -> Result<(), Rejected> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, path)? {
        (Value::Object(map), name) => {
            map.insert(name.to_owned(), value);
        }
        (Value::Array(list), index) => {
            let index = index.parse::<usize>().map_err(|_| Rejected)?;
            *list.get_mut(index).ok_or(Rejected)? = value;
        }
        _ => return Err(Rejected),
    }
    Ok(())
}

fn test(target: &Value, path: &[String], want: &Value) -> Result<(), Rejected> {
    let equal = match find(target, path) {
        Some(found) => found == want,
        None => want.is_null(),
    };
    if equal { Ok(()) } else { Err(Rejected) }
}

/// Applies RFC 7386.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge_patch(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
