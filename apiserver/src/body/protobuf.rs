//! Protobuf request bodies, as Go clients send them: an envelope that names the kind, then the object. A table
//! (`protobuf.txt`) says how each message is encoded; what comes out is what the same client would have sent in JSON.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Begins every body.
const MAGIC: &[u8] = b"k8s\0";
/// Messages may lie this deep in each other.
const DEPTH_MAX: u32 = 100;
pub(super) const TABLE: &str = include_str!("protobuf.txt");

/// Media type of such a body.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    Text,
    Bool,
    Int,
    Double,
    Bytes,
    Quantity,
    Time,
    MicroTime,
    Raw,
    IntOrString,
    SchemaOrItems,
    SchemaOrBool,
    SchemaOrStrings,
    List,
    Message(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    One,
    List,
    Map,
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    type_: Type,
    shape: Shape,
    /// Go has a pointer here, or prints zero too: a zero value says something.
    keep_zero: bool,
}

type Message = BTreeMap<u32, Field>;

#[derive(Debug, Default)]
struct Table {
    messages: HashMap<&'static str, Message>,
    /// Message of an `apiVersion` and kind.
    bodies: HashMap<(&'static str, &'static str), &'static str>,
}

/// A message of a table: its name, the `apiVersion` and kind of which it is the body, and its fields as they are written.
pub(super) struct Entry<F> {
    pub(super) name: &'static str,
    pub(super) body: Option<(&'static str, &'static str)>,
    pub(super) fields: F,
}

/// The messages of a table, one a line: `NAME[@APIVERSION] FIELD=…`.
pub(super) fn entries(table: &'static str) -> impl Iterator<Item = Entry<impl Iterator<Item = &'static str>>> {
    table.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split(' ');
        let head = words.next().unwrap_or_default();
        let (name, version) = head.split_once('@').unwrap_or((head, ""));
        let kind = name.rsplit('.').next().unwrap_or_default();
        Entry { name, body: (!version.is_empty()).then_some((version, kind)), fields: words }
    })
}

fn table() -> &'static Table {
    static PARSED: OnceLock<Table> = OnceLock::new();
    PARSED.get_or_init(|| {
        let mut table = Table::default();
        for Entry { name, body, fields } in entries(TABLE) {
            if let Some(body) = body {
                table.bodies.insert(body, name);
            }
            table.messages.insert(name, fields.filter_map(field).collect());
        }
        table
    })
}

/// `name=7:[]core.v1.Volume!`.
fn field(text: &'static str) -> Option<(u32, Field)> {
    let (name, rest) = text.split_once('=')?;
    let (number, code) = rest.split_once(':')?;
    let (code, marked) = code.strip_suffix('!').map_or((code, false), |code| (code, true));
    let (code, pointer) = code.strip_prefix('*').map_or((code, false), |code| (code, true));
    let (shape, code) = match (code.strip_prefix("[]"), code.strip_prefix("{}")) {
        (Some(code), _) => (Shape::List, code),
        (_, Some(code)) => (Shape::Map, code),
        _ => (Shape::One, code),
    };
    let type_ = match code {
        "string" => Type::Text,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "quantity" => Type::Quantity,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "raw" => Type::Raw,
        "intorstring" => Type::IntOrString,
        "schemaoritems" => Type::SchemaOrItems,
        "schemaorbool" => Type::SchemaOrBool,
        "schemaorstrings" => Type::SchemaOrStrings,
        "list" => Type::List,
        message => Type::Message(message),
    };
    Some((number.parse().ok()?, Field { name, type_, shape, keep_zero: marked || pointer }))
}

/// Reads a body; the error says what is wrong with it.
pub fn decode(body: &[u8]) -> Result<Value, String> {
    let envelope = body
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let (mut kind, mut raw, mut encoding) = (&b""[..], &b""[..], &b""[..]);
    each(envelope, |number, item| {
        match (number, item) {
            (1, Item::Bytes(bytes)) => kind = bytes,
            (2, Item::Bytes(bytes)) => raw = bytes,
            (3, Item::Bytes(bytes)) => encoding = bytes,
            _ => {}
        }
        Ok(())
    })?;
    if !encoding.is_empty() {
        return Err(format!("the content encoding {:?} is not known", String::from_utf8_lossy(encoding)));
    }
    let (mut version, mut name) = (String::new(), String::new());
    each(kind, |number, item| {
        match number {
            1 => version = item.text()?,
            2 => name = item.text()?,
            _ => {}
        }
        Ok(())
    })?;
    let table = table();
    let found =
        table.bodies.get(&(version.as_str(), name.as_str())).or_else(|| table.bodies.get(&("*", name.as_str())));
    let Some(message) = found else {
        return Err(format!(
            "no protobuf encoding is known for kind {name:?} of version {version:?}; send application/json"
        ));
    };
    let mut object = message_value(raw, message, 0)?;
    object.insert("apiVersion".into(), json!(version));
    object.insert("kind".into(), json!(name));
    Ok(Value::Object(object))
}

/// A field's bytes or number.
#[derive(Clone, Copy)]
enum Item<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Item<'a> {
    fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err("a number stands where bytes belong".into()),
        }
    }

    fn number(self) -> Result<u64, String> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err("bytes stand where a number belongs".into()),
        }
    }

    fn text(self) -> Result<String, String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|error| error.to_string())
    }
}

/// Calls `visit` with each field of a message, in order.
fn each<'a>(mut rest: &'a [u8], mut visit: impl FnMut(u32, Item<'a>) -> Result<(), String>) -> Result<(), String> {
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let number = u32::try_from(key >> 3).map_err(|_| "a field number is too large")?;
        let item = match key & 7 {
            0 => Item::Number(varint(&mut rest)?),
            1 => Item::Number(take(&mut rest, 8)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
            2 => {
                let length = varint(&mut rest)?;
                Item::Bytes(take(&mut rest, usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => Item::Number(take(&mut rest, 4)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
            other => return Err(format!("wire type {other} is not known")),
        };
        visit(number, item)?;
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (head, tail) = rest.split_at_checked(length).ok_or("unexpected end of the message")?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long".into())
}

fn message_value(bytes: &[u8], name: &str, depth: u32) -> Result<Map<String, Value>, String> {
    if depth > DEPTH_MAX {
        return Err(format!("messages lie more than {DEPTH_MAX} deep in each other"));
    }
    let message = table().messages.get(name).ok_or_else(|| format!("the message {name} is not known"))?;
    let mut object = Map::new();
    each(bytes, |number, item| match message.get(&number) {
        Some(field) => add(&mut object, field, item, depth).map_err(|error| match error.contains(": ") {
            true => format!("{}.{error}", field.name),
            false => format!("{}: {error}", field.name),
        }),
        None => Ok(()),
    })?;
    Ok(object)
}

fn add(object: &mut Map<String, Value>, field: &Field, item: Item<'_>, depth: u32) -> Result<(), String> {
    match field.shape {
        Shape::One => {
            let value = one(field.type_, item, depth)?;
            match (field.name, value) {
                (".", Value::Object(inner)) => object.extend(inner),
                (_, Value::Null) => {}
                (_, value) if !field.keep_zero && field.type_ != Type::IntOrString && is_zero(&value) => {}
                (name, value) => drop(object.insert(name.into(), value)),
            }
        }
        Shape::List => {
            let list = object.entry(field.name).or_insert_with(|| json!([]));
            let Some(list) = list.as_array_mut() else { return Ok(()) };
            match (field.type_, item) {
                // Numbers may be packed.
                (Type::Int, Item::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        list.push(json!(varint(&mut packed)? as i64));
                    }
                }
                _ => list.push(one(field.type_, item, depth)?),
            }
        }
        Shape::Map => {
            let (mut key, mut value) = (String::new(), None);
            each(item.bytes()?, |number, item| {
                match number {
                    1 => key = item.text()?,
                    2 => value = Some(one(field.type_, item, depth)?),
                    _ => {}
                }
                Ok(())
            })?;
            let absent = || if matches!(field.type_, Type::Text | Type::Bytes) { json!("") } else { json!({}) };
            object.entry(field.name).or_insert_with(|| json!({}))[&key] = value.unwrap_or_else(absent);
        }
    }
    Ok(())
}

/// What Go leaves out where it is told to omit what is empty.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn one(type_: Type, item: Item<'_>, depth: u32) -> Result<Value, String> {
    Ok(match type_ {
        Type::Text => json!(item.text()?),
        Type::Bool => json!(item.number()? != 0),
        Type::Int => json!(item.number()? as i64),
        Type::Double => json!(f64::from_bits(item.number()?)),
        Type::Bytes => json!(STANDARD.encode(item.bytes()?)),
        Type::Message(name) => Value::Object(message_value(item.bytes()?, name, depth + 1)?),
        Type::Quantity => json!(first(item)?.map_or(Ok("0".into()), Item::text)?),
        Type::Raw => match first(item)? {
            Some(raw) => serde_json::from_slice(raw.bytes()?).map_err(|error| error.to_string())?,
            None => Value::Null,
        },
        Type::Time => time(item, false)?,
        Type::MicroTime => time(item, true)?,
        Type::List => {
            let mut list = Vec::new();
            each(item.bytes()?, |_, item| {
                list.push(json!(item.text()?));
                Ok(())
            })?;
            json!(list)
        }
        Type::IntOrString => {
            let (mut text, mut number, mut string) = (false, 0, String::new());
            each(item.bytes()?, |field, item| {
                match field {
                    1 => text = item.number()? == 1,
                    2 => number = item.number()? as i64,
                    3 => string = item.text()?,
                    _ => {}
                }
                Ok(())
            })?;
            if text { json!(string) } else { json!(number) }
        }
        Type::SchemaOrItems | Type::SchemaOrBool | Type::SchemaOrStrings => alternative(type_, item, depth)?,
    })
}

/// The only field of a message that wraps one.
fn first(item: Item<'_>) -> Result<Option<Item<'_>>, String> {
    let mut found = None;
    each(item.bytes()?, |number, item| {
        if number == 1 {
            found = Some(item);
        }
        Ok(())
    })?;
    Ok(found)
}

/// A time of this precision; one that was never set is null.
fn time(item: Item<'_>, micro: bool) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (None, 0);
    each(item.bytes()?, |number, item| {
        match number {
            1 => seconds = Some(item.number()? as i64),
            2 => nanos = item.number()? as i32,
            _ => {}
        }
        Ok(())
    })?;
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|error| error.to_string())?;
    Ok(json!(if micro { format!("{time:.6}") } else { crate::clock::seconds(time) }))
}

/// A place of a CustomResourceDefinition's schema that is a schema or something else.
fn alternative(type_: Type, item: Item<'_>, depth: u32) -> Result<Value, String> {
    const SCHEMA: &str = "apiextensions.v1.JSONSchemaProps";
    let (mut schema, mut list, mut allows) = (None, Vec::new(), false);
    each(item.bytes()?, |number, item| {
        match (type_, number) {
            (Type::SchemaOrBool, 1) => allows = item.number()? != 0,
            (Type::SchemaOrBool, 2) | (_, 1) => {
                schema = Some(Value::Object(message_value(item.bytes()?, SCHEMA, depth + 1)?));
            }
            (Type::SchemaOrItems, 2) => list.push(Value::Object(message_value(item.bytes()?, SCHEMA, depth + 1)?)),
            (Type::SchemaOrStrings, 2) => list.push(json!(item.text()?)),
            _ => {}
        }
        Ok(())
    })?;
    Ok(match (schema, type_) {
        (Some(schema), _) => schema,
        (None, Type::SchemaOrBool) => json!(allows),
        (None, _) => json!(list),
    })
}

#[cfg(test)]
#[path = "protobuf_tests.rs"]
mod tests;
