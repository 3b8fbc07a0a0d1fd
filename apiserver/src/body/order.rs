//! JSON as the real server writes it: fields in the order of its Go types, which the table of protobuf messages has, and
//! custom resources by name; `<`, `>` and `&` escaped.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::protobuf::{Entry, TABLE, entries};

/// What is in no message: begins, as objects do, with the fields that say what it is.
const MORE: &str = "meta.v1.APIGroup name= versions= preferredVersion= serverAddressByClientCIDRs=
meta.v1.APIGroupList groups=:meta.v1.APIGroup
meta.v1.APIResource name= singularName= namespaced= group= version= kind= verbs= shortNames= categories= storageVersionHash=
meta.v1.APIResourceList groupVersion= resources=:meta.v1.APIResource
meta.v1.APIVersions versions= serverAddressByClientCIDRs=
meta.v1.PartialObjectMetadata metadata=:meta.v1.ObjectMeta
meta.v1.Table metadata=:meta.v1.ListMeta columnDefinitions=:meta.v1.TableColumnDefinition rows=:meta.v1.TableRow
meta.v1.TableColumnDefinition name= type= format= description= priority=
meta.v1.TableRow cells= conditions= object=
version.Info major= minor= emulationMajor= emulationMinor= minCompatibilityMajor= minCompatibilityMinor= gitVersion= gitCommit= gitTreeState= buildDate= goVersion= compiler= platform=";
const LIST: &str = "List";

/// The fields of one Go type.
#[derive(Debug, Default)]
struct Type {
    /// Names in order, each with the type of its value or elements.
    fields: Vec<(&'static str, &'static str)>,
}

#[derive(Debug, Default)]
struct Types {
    types: HashMap<&'static str, Type>,
    /// Types by `apiVersion` and kind.
    kinds: HashMap<(&'static str, &'static str), &'static str>,
}

fn types() -> &'static Types {
    static TYPES: OnceLock<Types> = OnceLock::new();
    TYPES.get_or_init(|| {
        let mut types = Types::default();
        for Entry { name, body, fields } in entries(TABLE).chain(entries(MORE)) {
            if let Some(body) = body {
                types.kinds.insert(body, name);
            }
            let fields = fields.filter_map(|word| {
                let (field, rest) = word.split_once('=')?;
                let of = rest.split_once(':').map_or("", |(_, of)| of);
                Some((field, of.trim_start_matches(['*', '[', ']', '{', '}']).trim_end_matches('!')))
            });
            types.types.insert(name, Type { fields: fields.collect() });
        }
        types
    })
}

impl Types {
    /// The type of a whole object, by what it says it is.
    fn of_kind(&self, object: &Map<String, Value>) -> Option<&'static str> {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let (version, kind) = (text("apiVersion").unwrap_or("v1"), text("kind")?);
        if let Some(name) = self.kinds.get(&(version, kind)) {
            return Some(name);
        }
        let meta = matches!(version, "v1" | "meta.k8s.io/v1" | "meta.k8s.io/v1beta1");
        let known = self.types.get_key_value(format!("meta.v1.{kind}").as_str()).filter(|_| meta);
        known.map(|(name, _)| *name)
    }

    /// The type of the items of a list.
    fn of_items(&self, object: &Map<String, Value>) -> Option<&'static str> {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let kind = text("kind")?.strip_suffix(LIST)?;
        self.kinds.get(&(text("apiVersion")?, kind)).copied()
    }
}

/// The Go type of a kind, by a name that [`fields`] knows; empty if it has none.
pub fn type_of(api_version: &str, kind: &str) -> &'static str {
    let known = types().kinds.iter().find(|((version, name), _)| *version == api_version && *name == kind);
    known.map_or("", |(_, name)| name)
}

/// An answer as JSON.
pub fn text(value: &Value) -> String {
    let mut out = String::with_capacity(2048);
    write(value, "", &mut out);
    out
}

/// A value of a Go type as JSON.
pub fn typed(value: &Value, of: &str) -> String {
    let mut out = String::new();
    write(value, of, &mut out);
    out
}

/// The fields of a Go type in its order, each with the type of its value; nothing of a type that is not known.
pub fn fields_of(of: &str) -> Vec<(&'static str, &'static str)> {
    let mut all = Vec::new();
    if let Some(known) = types().types.get(of) {
        inline(&known.fields, &mut |name, of| all.push((name, of)));
    }
    all
}

/// Compact JSON with a line for each value, as people are shown it.
pub fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut characters = text.trim_end().chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str("  "));
    };
    while let Some(character) = characters.next() {
        if quoted {
            quoted = escaped || character != '"';
            escaped = !escaped && character == '\\';
            out.push(character);
            continue;
        }
        match character {
            '{' | '[' => {
                out.push(character);
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => {
                quoted = other == '"';
                out.push(other);
            }
        }
    }
    out
}

/// A line of a watch, without its end.
pub fn event(kind: &str, object: &Value) -> String {
    let mut out = String::with_capacity(2048);
    // Writing to a string cannot fail.
    let _ = write!(out, "{{\"type\":\"{kind}\",\"object\":");
    write(object, "", &mut out);
    out.push('}');
    out
}

/// Writes a value of a type; without one, of that which it says it is.
fn write(value: &Value, of: &str, out: &mut String) {
    match value {
        Value::Object(map) => write_object(map, of, out),
        Value::Array(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, of, out);
            }
            out.push(']');
        }
        Value::String(text) => write_text(text, out),
        other => drop(write!(out, "{other}")),
    }
}

fn write_object(map: &Map<String, Value>, of: &str, out: &mut String) {
    let types = types();
    let list = if of.is_empty() { types.of_items(map) } else { None };
    let name = if of.is_empty() { types.of_kind(map).unwrap_or_default() } else { of };
    let known = types.types.get(name);
    let whole = list.is_some() || known.is_some_and(|_| map.contains_key("kind"));
    out.push('{');
    let mut first = true;
    let mut put = |name: &str, of: &str, out: &mut String| {
        let Some(value) = map.get(name) else { return };
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        write_text(name, out);
        out.push(':');
        write(value, of, out);
    };
    let mut done: Vec<&str> = Vec::new();
    let fields = known.map(|known| &known.fields[..]).unwrap_or_default();
    // A type may have a field of such a name itself, at its own place.
    let own = |name: &str| fields.iter().any(|(field, _)| *field == name);
    if whole {
        for name in ["kind", "apiVersion"].into_iter().filter(|name| !own(name)) {
            put(name, "", out);
            done.push(name);
        }
    }
    if let Some(item) = list {
        put("metadata", "meta.v1.ListMeta", out);
        put("items", item, out);
        done.extend(["metadata", "items"]);
    }
    if known.is_some() {
        inline(fields, &mut |name, of| {
            put(name, of, out);
            done.push(name);
        });
    }
    for name in map.keys().filter(|name| !done.contains(&name.as_str())) {
        put(name, "", out);
    }
    out.push('}');
}

/// Visits fields in order; a field that is a dot stands for those of its type.
fn inline(fields: &'static [(&'static str, &'static str)], visit: &mut impl FnMut(&'static str, &'static str)) {
    for (name, of) in fields {
        match (*name, types().types.get(of)) {
            (".", Some(inner)) => inline(&inner.fields, visit),
            (name, _) => visit(name, of),
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"\"\\<>&".contains(&byte);
    if text.bytes().all(plain) {
        let _ = write!(out, "\"{text}\"");
        return;
    }
    for character in Value::from(text).to_string().chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => drop(write!(out, "\\u{:04x}", character as u32)),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
