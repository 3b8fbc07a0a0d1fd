//! Schemas of built-in kinds, from three tables: fields and types (`types.txt`, which `tests/types.rs` makes from
//! `k8s-openapi`, so that this crate chooses no version of Kubernetes for those who use it), how lists merge and what Go's
//! defaults and zero values are (`merges.txt`), and what values a field may have (`words.txt`).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::{ListType, Node, Type};

/// Metadata of every object.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

const FIELDS: &str = include_str!("types.txt");
const MERGES: &str = include_str!("merges.txt");
const WORDS: &str = include_str!("words.txt");
/// Begins the part of a description that is about the values of a field.
const CHOICES: &str = "\n\nPossible enum values:";

/// All built-in types by name, such as `io.k8s.api.core.v1.Service`.
pub fn types() -> &'static BTreeMap<Arc<str>, Arc<Node>> {
    static TYPES: OnceLock<BTreeMap<Arc<str>, Arc<Node>>> = OnceLock::new();
    TYPES.get_or_init(|| {
        let mut types: BTreeMap<Arc<str>, Node> = BTreeMap::new();
        for line in lines_of(FIELDS) {
            let Some((name, schema)) = read_type(line) else { continue };
            let mut node = convert(&schema);
            node.struct_name = name.rsplit('.').next().unwrap_or_default().to_owned();
            types.insert(Arc::from(name), node);
        }
        overlay(&mut types);
        for line in lines_of(WORDS) {
            describe(&mut types, line);
        }
        types.into_iter().map(|(name, node)| (name, Arc::new(node))).collect()
    })
}

/// Name and JSON schema of a type. A line that cannot be read is a mistake that the test of this module finds.
fn read_type(line: &str) -> Option<(&str, Value)> {
    let (name, schema) = line.split_once(' ')?;
    Some((name, serde_json::from_str(schema).ok()?))
}

/// Whether a kind, or the list of one, is known in a version: one of those whose objects say their kind themselves.
pub fn is_kind(api_version: &str, kind: &str) -> bool {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let package = match group.split('.').next().unwrap_or_default() {
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
        group => format!("io.k8s.api.{group}"),
    };
    let known = |kind: &str| {
        let found = types().get(format!("{package}.{version}.{kind}").as_str());
        found.is_some_and(|node| node.fields.contains_key("kind") && node.fields.contains_key("apiVersion"))
    };
    known(kind) || kind.strip_suffix("List").is_some_and(known)
}

/// Turns a JSON schema into a node; used for built-in types and, with the `x-kubernetes-` words, for structural ones.
pub fn convert(schema: &Value) -> Node {
    let mut node = Node::default();
    if let Some(name) = schema["$ref"].as_str() {
        node.reference = Some(Arc::from(name.rsplit('/').next().unwrap_or_default()));
    }
    let text = |name: &str| schema[name].as_str().unwrap_or_default().to_owned();
    let flag = |name: &str| schema[name].as_bool().unwrap_or(false);
    node.description = text("description");
    node.format = text("format");
    node.nullable = flag("nullable");
    node.preserve_unknown = flag("x-kubernetes-preserve-unknown-fields");
    node.embedded = flag("x-kubernetes-embedded-resource");
    node.type_ = match schema["type"].as_str() {
        _ if flag("x-kubernetes-int-or-string") => Type::IntOrString,
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ => Type::Any,
    };
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        node.fields.insert(name.clone(), convert(field));
    }
    if node.embedded {
        // Like the whole object, one within has a kind and metadata.
        let text = || Node { type_: Type::String, ..Node::default() };
        let metadata = Node { reference: Some(Arc::from(OBJECT_META)), ..Node::default() };
        node.fields.extend([("apiVersion".into(), text()), ("kind".into(), text()), ("metadata".into(), metadata)]);
    }
    node.required =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    node.items = schema.get("items").filter(|items| items.is_object()).map(|items| Box::new(convert(items)));
    node.additional = match &schema["additionalProperties"] {
        Value::Object(_) => Some(Box::new(convert(&schema["additionalProperties"]))),
        Value::Bool(true) => Some(Box::default()),
        _ => None,
    };
    node.default = schema.get("default").cloned();
    node.atomic = schema["x-kubernetes-map-type"] == "atomic";
    node.list = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            ListType::Map(keys.filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => ListType::Atomic,
    };
    node
}

/// Applies the table. A line that names nothing known is a mistake that the test of this module finds.
fn overlay(types: &mut BTreeMap<Arc<str>, Node>) {
    for line in lines_of(MERGES) {
        apply_line(types, line);
    }
}

fn lines_of(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn apply_line(types: &mut BTreeMap<Arc<str>, Node>, line: &str) -> Option<()> {
    let (path, rules) = line.split_once(' ')?;
    let (type_name, field) = match path.split_once(':') {
        Some((type_name, field)) => (type_name, Some(field)),
        None => (path, None),
    };
    let full = full_name(type_name);
    let mut node = types.get_mut(full.as_str())?;
    if let Some(field) = field {
        node = node.fields.get_mut(field)?;
    }
    for rule in rules.split_whitespace() {
        apply_rule(node, rule)?;
    }
    Some(())
}

/// Applies a line of the table of words.
fn describe(types: &mut BTreeMap<Arc<str>, Node>, line: &str) -> Option<()> {
    let (path, rest) = line.split_once(' ')?;
    // The values are JSON without spaces.
    let (choices, rest) = rest.split_once(' ')?;
    let (how, text) = rest.split_once(' ')?;
    let (type_name, field) = path.split_once(':')?;
    let node = types.get_mut(full_name(type_name).as_str())?.fields.get_mut(field)?;
    let text: String = serde_json::from_str(text).ok()?;
    let whole = if how == "=" { text } else { format!("{}{text}", node.description) };
    let about = whole.find(CHOICES).unwrap_or(whole.len());
    (node.description, node.choices_about) = (whole[..about].to_owned(), whole[about..].to_owned());
    let choices: Vec<Value> = serde_json::from_str(choices).ok()?;
    match &mut node.items {
        Some(item) => item.choices = choices,
        None => node.choices = choices,
    }
    Some(())
}

fn full_name(short: &str) -> String {
    match short.split_once('.') {
        Some(("meta", name)) => format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"),
        Some(("crd", name)) => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{name}"),
        Some((group, name)) => format!("io.k8s.api.{group}.v1.{name}"),
        None => short.to_owned(),
    }
}

fn apply_rule(node: &mut Node, rule: &str) -> Option<()> {
    let (word, value) = rule.split_once('=').unwrap_or((rule, ""));
    match word {
        "map" => node.list = ListType::Map(value.split(',').map(str::to_owned).collect()),
        "set" => node.list = ListType::Set,
        "smp" => node.patch_key = Some(value.to_owned()),
        "retain" => node.retain_keys = true,
        "atomic" => node.atomic = true,
        "granular" => node.granular = true,
        "any" => *node = Node { type_: Type::Any, description: node.description.clone(), ..Node::default() },
        "default" => node.default = Some(serde_json::from_str(value).ok()?),
        "zero" => node.zero = Some(serde_json::from_str(value).ok()?),
        "omitzero" => node.omit_zero = true,
        "micro" => node.micro = true,
        "optional" => node.required.retain(|name| name != value),
        "required" => node.required.push(value.to_owned()),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
#[path = "builtin_tests.rs"]
mod tests;
