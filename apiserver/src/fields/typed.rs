//! Objects as the schema sees them: which fields they hold, how two of them differ, and what does not fit.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::set::{Set, show};
use crate::go;
use crate::schema::{ListType, Node, Type};

/// How a value is shared between owners.
pub(super) enum Shape<'a> {
    /// As a whole.
    Leaf,
    /// Field by field.
    Object(&'a Map<String, Value>),
    /// Element by element.
    List(&'a Vec<Value>),
}

/// The node of what the schema does not describe.
pub(super) fn any() -> &'static Node {
    static ANY: OnceLock<Node> = OnceLock::new();
    ANY.get_or_init(Node::default)
}

pub(super) fn child<'a>(node: &'a Node, name: &str) -> &'a Node {
    node.child(name).unwrap_or_else(|| any())
}

pub(super) fn item(node: &Node) -> &Node {
    node.resolve().items.as_deref().unwrap_or_else(|| any())
}

pub(super) fn shape<'a>(value: &'a Value, node: &Node) -> Shape<'a> {
    match value {
        Value::Object(map) if !node.is_atomic() && matches!(node.resolve().type_, Type::Object | Type::Any) => {
            Shape::Object(map)
        }
        Value::Array(list) if *node.list_type() != ListType::Atomic => Shape::List(list),
        _ => Shape::Leaf,
    }
}

/// The path element of a list's element. Missing keys take the default that the schema gives them.
pub(super) fn element(value: &Value, list: &Node) -> String {
    match list.list_type() {
        ListType::Map(keys) => {
            let keys = keys.iter().filter_map(|key| {
                let own = |node: &Node| node.default.clone().or(node.zero.clone());
                let default = || item(list).child(key).and_then(own);
                value.get(key).cloned().or_else(default).map(|value| (key.clone(), value))
            });
            format!("k:{}", canonical(&keys.collect()))
        }
        _ => format!("v:{value}"),
    }
}

/// Keys sorted, whatever the order of the map type.
fn canonical(map: &BTreeMap<String, Value>) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// All fields of an object.
pub fn fields(value: &Value, node: &Node) -> Set {
    let mut set = Set::default();
    match shape(value, node) {
        Shape::Object(map) => {
            for (name, value) in map {
                let own = child(node, name);
                let mut below = fields(value, own);
                let list = matches!(shape(value, own), Shape::List(_));
                // Of what no schema describes the whole is owned too; an empty list of elements is nobody's.
                let whole = value.is_object() && own.resolve().type_ == Type::Any;
                below.member |= whole || (below.children.is_empty() && !list);
                if !below.is_empty() {
                    set.children.insert(format!("f:{name}"), below);
                }
            }
        }
        Shape::List(list) => {
            for value in list {
                let mut below = fields(value, item(node));
                below.member = true;
                set.children.entry(element(value, node)).or_default().add(&below);
            }
        }
        Shape::Leaf => {}
    }
    set
}

/// How two objects differ.
#[derive(Debug, Default, PartialEq)]
pub struct Difference {
    /// Only in the new one.
    pub added: Set,
    /// Only in the old one.
    pub removed: Set,
    /// In both, with another value.
    pub modified: Set,
}

impl Difference {
    /// Fields that the new object sets.
    pub fn taken(&self) -> Set {
        self.added.union(&self.modified)
    }
}

/// Compares two objects field by field.
pub fn compare(old: &Value, new: &Value, node: &Node) -> Difference {
    let mut difference = Difference::default();
    walk(Some(old), Some(new), node, &mut Vec::new(), &mut difference);
    difference
}

fn walk(old: Option<&Value>, new: Option<&Value>, node: &Node, path: &mut Vec<String>, out: &mut Difference) {
    // A null is a value that is not there, in a place that is.
    let (null_old, old) = (old.is_some_and(Value::is_null), old.filter(|value| !value.is_null()));
    let (null_new, new) = (new.is_some_and(Value::is_null), new.filter(|value| !value.is_null()));
    match (old, new) {
        (None, Some(value)) if null_old && !matches!(shape(value, node), Shape::Leaf) => {}
        (Some(value), None) if null_new && matches!(shape(value, node), Shape::Leaf) => out.modified.insert(path),
        (Some(_), None) if null_new => out.removed.insert(path),
        (None, None) if null_new && !null_old => out.added.insert(path),
        (None, None) => return,
        (None, Some(_)) => out.added.insert(path),
        (Some(_), None) => out.removed.insert(path),
        (Some(old), Some(new)) if old == new => return,
        (Some(_), Some(_)) => {}
    }
    let shapes = (old.map(|value| shape(value, node)), new.map(|value| shape(value, node)));
    match shapes {
        (Some(Shape::Object(old)), Some(Shape::Object(new))) => walk_maps(Some(old), Some(new), node, path, out),
        (Some(Shape::Object(old)), None) => walk_maps(Some(old), None, node, path, out),
        (None, Some(Shape::Object(new))) => walk_maps(None, Some(new), node, path, out),
        (Some(Shape::List(old)), Some(Shape::List(new))) => walk_lists(old, new, node, path, out),
        (Some(Shape::List(old)), None) => walk_lists(old, &Vec::new(), node, path, out),
        (None, Some(Shape::List(new))) => walk_lists(&Vec::new(), new, node, path, out),
        (Some(_), Some(_)) => out.modified.insert(path),
        _ => {}
    }
}

fn walk_maps(
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    node: &Node,
    path: &mut Vec<String>,
    out: &mut Difference,
) {
    let both = old.into_iter().chain(new).flat_map(Map::keys);
    let names: std::collections::BTreeSet<&String> = both.collect();
    for name in names {
        path.push(format!("f:{name}"));
        walk(old.and_then(|map| map.get(name)), new.and_then(|map| map.get(name)), child(node, name), path, out);
        path.pop();
    }
}

fn walk_lists(old: &[Value], new: &[Value], node: &Node, path: &mut Vec<String>, out: &mut Difference) {
    let index = |list: &[Value]| -> BTreeMap<String, Value> {
        list.iter().map(|value| (element(value, node), value.clone())).collect()
    };
    let mut seen = std::collections::BTreeSet::new();
    let twice: std::collections::BTreeSet<String> =
        new.iter().map(|value| element(value, node)).filter(|name| !seen.insert(name.clone())).collect();
    let (old, new) = (index(old), index(new));
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        path.push(name.clone());
        if twice.contains(name) {
            // Who of several of one name is meant nobody can say: they count as a whole.
            match (old.get(name), new.get(name)) {
                (None, _) => out.added.insert(path),
                (_, None) => out.removed.insert(path),
                (Some(old), Some(new)) if old != new => out.modified.insert(path),
                _ => {}
            }
            path.pop();
            continue;
        }
        walk(old.get(name), new.get(name), item(node), path, out);
        path.pop();
    }
}

/// What does not fit the schema, in the words of the real merge library: `.spec.x: field not declared in schema`.
pub fn validate(value: &Value, node: &Node) -> Result<(), String> {
    let mut wrong = Vec::new();
    validate_at(value, node, &mut Vec::new(), &mut wrong);
    match &wrong[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("errors:\n  {}", several.join("\n  "))),
    }
}

fn validate_at(value: &Value, node: &Node, path: &mut Vec<String>, out: &mut Vec<String>) {
    let target = node.resolve();
    let got = match (target.type_, value) {
        (_, Value::Null) | (Type::Any, _) => return,
        (Type::Object, Value::Object(map)) => {
            for (name, value) in map {
                path.push(format!("f:{name}"));
                match node.child(name) {
                    Some(field) => validate_at(value, field, path, out),
                    None if target.preserve_unknown || !target.is_struct() => {}
                    None => out.push(format!("{}: field not declared in schema", show(path))),
                }
                path.pop();
            }
            return;
        }
        (Type::Array, Value::Array(list)) => return validate_list(list, node, path, out),
        (Type::String, Value::String(_)) | (Type::Boolean, Value::Bool(_)) => return,
        // Times, amounts and ports are scalars of whatever type.
        _ if is_scalar(node) && !matches!(value, Value::Object(_) | Value::Array(_)) => return,
        _ if is_scalar(node) => format!("any scalar, got &{{{}}}", go::plain(value)),
        (Type::Integer | Type::Number, Value::Number(_)) => return,
        (Type::Object, other) => format!("map, got &{{{}}}", go::plain(other)),
        (Type::Array, other) => format!("list, got &{{{}}}", go::plain(other)),
        (Type::Boolean, other) => format!("boolean, got &{{{}}}", go::plain(other)),
        (Type::String, other) => format!("string, got &value.valueUnstructured{{Value:{}}}", go::syntax(other)),
        (Type::Integer | Type::Number, other) => format!("numeric (int or float), got {}", go::type_name(other)),
        (Type::IntOrString, _) => return,
    };
    out.push(format!("{}: expected {got}", show(path)));
}

/// Whether a value is of a type that has a form of its own.
fn is_scalar(node: &Node) -> bool {
    let target = node.resolve();
    // In a custom resource a time is a text.
    let time = target.format == "date-time" && node.reference.is_some();
    node.is_quantity() || target.type_ == Type::IntOrString || time
}

fn validate_list(list: &[Value], node: &Node, path: &mut Vec<String>, out: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    let keyed = matches!(node.list_type(), ListType::Map(_));
    for (index, value) in list.iter().enumerate() {
        if keyed && !value.is_object() {
            let why = match value.is_null() {
                true => "associative list with keys may not have a null element",
                false => "associative list with keys may not have non-map elements",
            };
            out.push(format!("{}: element {index}: {why}", show(path)));
            continue;
        }
        if let ListType::Map(keys) = node.list_type()
            && element(value, node) == "k:{}"
        {
            let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            let why = "associative list with keys has an element that omits all key fields";
            let rest = "(and doesn't have default values for any key fields)";
            out.push(format!("{}: element {index}: {why} [{}] {rest}", show(path), keys.join(" ")));
            continue;
        }
        let name = match node.list_type() {
            ListType::Atomic => format!("[{index}]"),
            _ => element(value, node),
        };
        if *node.list_type() != ListType::Atomic && !seen.insert(name.clone()) {
            out.push(format!("{}: duplicate entries for key {}", show(path), show(std::slice::from_ref(&name))));
        }
        path.push(name);
        validate_at(value, item(node), path, out);
        path.pop();
    }
}
