//! Reading a body against its kind: unknown and duplicate fields, wrong types, in the words of the real decoder.

use serde_json::{Map, Number, Value};

use super::times::{base64_error, time_error};
use super::{Node, Type};
use crate::kinds::quantity::canonical;

/// What a body holds beyond its kind.
#[derive(Debug, Default, PartialEq)]
pub struct Surplus {
    /// Paths of fields that the kind does not have; already removed from the value.
    pub unknown: Vec<String>,
}

/// Drops unknown fields (and remembers them); a value of a wrong type is an error.
pub fn decode(value: &mut Value, node: &Node) -> Result<Surplus, String> {
    let mut surplus = Surplus::default();
    let place = Place { structure: String::new(), fields: String::new(), path: String::new() };
    check(value, node, &place, &mut surplus)?;
    Ok(surplus)
}

#[derive(Clone)]
struct Place {
    /// Go name of the innermost struct.
    structure: String,
    /// Field names from the root, dotted, without indices.
    fields: String,
    /// Path with indices.
    path: String,
}

impl Place {
    fn field(&self, structure: &str, name: &str) -> Self {
        let join = |base: &str| if base.is_empty() { name.to_owned() } else { format!("{base}.{name}") };
        Self { structure: structure.to_owned(), fields: join(&self.fields), path: join(&self.path) }
    }
}

fn check(value: &mut Value, node: &Node, place: &Place, surplus: &mut Surplus) -> Result<(), String> {
    if node.is_quantity() {
        return check_quantity(value, place);
    }
    let micro = node.micro;
    let node = node.resolve();
    match (node.type_, &mut *value) {
        (_, Value::Null) | (Type::Any, _) => Ok(()),
        (Type::Object, Value::Object(map)) if node.is_struct() => check_struct(map, node, place, surplus),
        (Type::Object, Value::Object(map)) => {
            let Some(item) = &node.additional else { return Ok(()) };
            for (key, value) in map.iter_mut() {
                // A key of a map is no field: errors name the map, paths name the key.
                let inner = Place { path: format!("{}.{key}", place.path), ..place.clone() };
                zero_value(value, item, place);
                check(value, item, &inner, surplus)?;
            }
            Ok(())
        }
        (Type::Array, Value::Array(list)) => {
            let Some(item) = &node.items else { return Ok(()) };
            for (index, value) in list.iter_mut().enumerate() {
                let inner = Place { path: format!("{}[{index}]", place.path), ..place.clone() };
                zero_value(value, item, place);
                check(value, item, &inner, surplus)?;
            }
            Ok(())
        }
        // What is wrong with texts of custom resources, their validator says.
        (Type::String, Value::String(text)) if !place.structure.is_empty() => {
            let wrong = match node.format.as_str() {
                "date-time" => time_error(text, micro),
                "byte" => base64_error(text),
                _ => None,
            };
            wrong.map_or(Ok(()), Err)
        }
        (Type::String, Value::String(_)) | (Type::Boolean, Value::Bool(_)) => Ok(()),
        (Type::Integer, Value::Number(number)) if fits(number, node, place) => Ok(()),
        (Type::IntOrString, Value::Number(number)) if !place.structure.is_empty() && !is_int32(number) => {
            Err(wrong_type(value, node, place))
        }
        (Type::Number, Value::Number(_)) | (Type::IntOrString, Value::Number(_) | Value::String(_)) => Ok(()),
        // A scalar has no fields.
        (Type::String | Type::Integer | Type::Number | Type::Boolean, Value::Object(map))
            if place.structure.is_empty() =>
        {
            surplus.unknown.extend(map.keys().map(|name| format!("{}.{name}", place.path)));
            map.clear();
            Ok(())
        }
        // Types of custom resources are their validator's business too.
        _ if place.structure.is_empty() => Ok(()),
        _ => Err(wrong_type(value, node, place)),
    }
}

/// Go's types hold what is nothing in them where a list or map has null: an empty text, an empty struct, no amount.
fn zero_value(value: &mut Value, item: &Node, place: &Place) {
    if !value.is_null() || place.structure.is_empty() {
        return;
    }
    if item.is_quantity() {
        *value = Value::from("0");
    } else if item.type_ == Type::String && matches!(item.format.as_str(), "" | "byte") {
        *value = Value::from("");
    } else if item.resolve().is_struct() {
        *value = Value::Object(Map::new());
    }
}

fn check_quantity(value: &mut Value, place: &Place) -> Result<(), String> {
    let text = match &*value {
        Value::Null => return Ok(()),
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ if place.structure.is_empty() => return Ok(()),
        other => other.to_string(),
    };
    *value = Value::from(canonical(&text).map_err(str::to_owned)?);
    Ok(())
}

fn check_struct(map: &mut Map<String, Value>, node: &Node, place: &Place, surplus: &mut Surplus) -> Result<(), String> {
    let mut unknown = Vec::new();
    for (name, value) in map.iter_mut() {
        let inner = place.field(&node.struct_name, name);
        match node.fields.get(name) {
            Some(field) => check(value, field, &inner, surplus)?,
            None if node.preserve_unknown => {}
            None => {
                surplus.unknown.push(inner.path);
                unknown.push(name.clone());
            }
        }
    }
    for name in unknown {
        map.remove(&name);
    }
    Ok(())
}

/// Whether Go's type can hold a whole number; that of a custom resource is its validator's business.
fn fits(number: &Number, node: &Node, place: &Place) -> bool {
    match (place.structure.is_empty(), node.format.as_str()) {
        (true, _) => number.is_i64() || number.is_u64(),
        (false, "int32") => is_int32(number),
        (false, _) => number.is_i64(),
    }
}

fn is_int32(number: &Number) -> bool {
    number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
}

fn wrong_type(value: &Value, node: &Node, place: &Place) -> String {
    // Bytes may be a list of numbers.
    let bytes = node.format == "byte" && node.type_ == Type::String;
    if let (true, Value::Array(list)) = (bytes, value)
        && let Some(first) = list.iter().find(|item| !item.is_number())
    {
        let node = Node { type_: Type::Integer, format: "uint8".into(), ..Node::default() };
        return wrong_type(first, &node, place);
    }
    let whole = matches!(node.type_, Type::Integer | Type::IntOrString);
    let got = match value {
        Value::Number(number) if whole => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) | Value::Null => "object".to_owned(),
    };
    let at = if place.fields.is_empty() {
        "Go value ".to_owned()
    } else {
        format!("Go struct field {}.{} ", place.structure, place.fields)
    };
    let wanted = match (node.type_, value) {
        (Type::IntOrString, Value::Number(_)) => "int32".to_owned(),
        _ => go_type(node),
    };
    format!("json: cannot unmarshal {got} into {at}of type {wanted}")
}

fn go_type(node: &Node) -> String {
    if !node.go_type.is_empty() {
        return node.go_type.clone();
    }
    let node = node.resolve();
    match node.type_ {
        Type::Object if node.is_struct() => format!("v1.{}", node.struct_name),
        Type::Object => match &node.additional {
            Some(item) => format!("map[string]{}", go_type(item)),
            None => "map[string]interface {}".into(),
        },
        Type::Array => format!("[]{}", node.items.as_deref().map_or_else(|| "interface {}".into(), go_type)),
        Type::String if node.format == "byte" => "[]uint8".into(),
        Type::String => "string".into(),
        Type::Boolean => "bool".into(),
        Type::Number => "float64".into(),
        Type::Integer if !node.format.is_empty() => node.format.clone(),
        Type::Integer => "int64".into(),
        Type::IntOrString => "int32".into(),
        Type::Any => "interface {}".into(),
    }
}
