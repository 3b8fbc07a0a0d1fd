//! Merging an applied configuration into a live object, and taking out what is no longer applied.

use serde_json::{Map, Value};

use super::set::Set;
use super::typed::{Shape, child, element, item, shape};
use crate::schema::{ListType, Node};

/// The live object with everything that the configuration says.
pub fn merge(live: &Value, config: &Value, node: &Node) -> Value {
    match (shape(live, node), shape(config, node)) {
        (Shape::Object(live), Shape::Object(config)) => {
            let mut out = live.clone();
            for (name, value) in config {
                let merged = match live.get(name) {
                    Some(live) => merge(live, value, child(node, name)),
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Shape::List(live), Shape::List(config)) => Value::Array(merge_lists(live, config, node)),
        _ => config.clone(),
    }
}

/// Elements of both, in an order that keeps each list's own: live elements stay where they are, shared ones follow
/// the configuration's order.
fn merge_lists(live: &[Value], config: &[Value], node: &Node) -> Vec<Value> {
    let name = |value: &Value| element(value, node);
    let names = |list: &[Value]| list.iter().map(name).collect::<Vec<_>>();
    let (live_names, config_names) = (names(live), names(config));
    let merged = |at: usize| match live_names.iter().position(|name| *name == config_names[at]) {
        Some(found) => merge(&live[found], &config[at], item(node)),
        None => config[at].clone(),
    };
    let mut shared = config_names.iter().filter(|name| live_names.contains(name)).peekable();
    let (mut out, mut l, mut c) = (Vec::new(), 0, 0);
    while l < live.len() || c < config.len() {
        if l < live.len() && c < config.len() && live_names[l] == config_names[c] {
            out.push(merged(c));
            (l, c) = (l + 1, c + 1);
            shared.next();
        } else if l < live.len() && !config_names.contains(&live_names[l]) {
            out.push(live[l].clone());
            l += 1;
        } else if l < live.len() && shared.peek().is_none_or(|next| **next != live_names[l]) {
            // Shared, but the configuration has it elsewhere; it comes with the configuration.
            l += 1;
        } else if c < config.len() {
            if shared.peek().is_some_and(|next| **next == config_names[c]) {
                shared.next();
            }
            out.push(merged(c));
            c += 1;
        } else {
            l += 1;
        }
    }
    out
}

/// Takes out each member of `gone`, unless `kept` owns it or something below it. Maps that become empty go too.
pub fn prune(value: &mut Value, gone: &Set, kept: &Set, node: &Node) {
    let list = !matches!(node.list_type(), ListType::Atomic);
    match value {
        Value::Object(map) => prune_map(map, gone, kept, node),
        Value::Array(items) if list => {
            items.retain_mut(|value| {
                let name = element(value, node);
                let Some(below) = gone.children.get(&name) else { return true };
                let nothing = Set::default();
                let kept = kept.children.get(&name).unwrap_or(&nothing);
                if below.member && kept.is_empty() {
                    return false;
                }
                prune(value, below, kept, item(node));
                true
            });
        }
        _ => {}
    }
}

fn prune_map(map: &mut Map<String, Value>, gone: &Set, kept: &Set, node: &Node) {
    let nothing = Set::default();
    for (name, below) in &gone.children {
        let Some(field) = name.strip_prefix("f:") else { continue };
        let kept = kept.children.get(name).unwrap_or(&nothing);
        if below.member && kept.is_empty() {
            map.remove(field);
        } else if let Some(value) = map.get_mut(field) {
            let before = is_empty(value);
            prune(value, below, kept, child(node, field));
            if is_empty(value) && !before && !kept.member {
                map.remove(field);
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
