//! Giving an object the form in which the real server holds and prints it: defaults, zero values, nothing empty.

use serde_json::{Map, Value};

use super::{Node, Type};

/// Fills in defaults of absent fields, everywhere an object is.
pub fn default(value: &mut Value, node: &Node) {
    walk(value, node, &|map, node| {
        for (name, field) in &node.fields {
            if let Some(default) = &field.default
                && !map.contains_key(name)
            {
                map.insert(name.clone(), default.clone());
            }
        }
    });
}

/// Drops what Go's encoder leaves out (null, empty lists and maps, zero scalars of fields that omit them) and adds
/// what it always prints.
pub fn normalise(value: &mut Value, node: &Node) {
    drop_empty(value, node);
    fill_zero(value, node);
}

/// Adds what Go's types hold though nobody set it.
pub fn fill_zero(value: &mut Value, node: &Node) {
    walk(value, node, &|map, node| {
        for (name, field) in &node.fields {
            if let Some(zero) = &field.zero
                && !map.contains_key(name)
            {
                map.insert(name.clone(), zero.clone());
            }
        }
    });
}

/// Drops each null that is no value: of a field with a default, which then takes it, and of one that the schema does
/// not let be null.
pub fn drop_nulls(value: &mut Value, node: &Node) {
    walk(value, node, &|map, node| {
        map.retain(|name, value| !value.is_null() || node.fields.get(name).is_none_or(|field| field.nullable));
    });
}

/// What Go makes of a whole number that it converts to a smaller type: its lower bits.
pub fn wrap_numbers(value: &mut Value, node: &Node) {
    let node = node.resolve();
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(field) = node.fields.get(name).or(node.additional.as_deref()) {
                    wrap_numbers(value, field);
                }
            }
        }
        Value::Array(list) => {
            let Some(item) = &node.items else { return };
            list.iter_mut().for_each(|value| wrap_numbers(value, item));
        }
        Value::Number(number) if node.type_ == Type::Integer && node.format == "int32" => {
            if let Some(whole) = number.as_i64() {
                *value = Value::from(whole as i32);
            }
        }
        _ => {}
    }
}

fn drop_empty(value: &mut Value, node: &Node) {
    let node = node.resolve();
    match value {
        Value::Object(map) if node.type_ == Type::Object => {
            map.retain(|name, value| {
                let Some(field) = node.fields.get(name).or(node.additional.as_deref()) else { return true };
                drop_empty(value, field);
                polish(value, field);
                !is_empty(value, field, node, name)
            });
        }
        Value::Array(list) => {
            let Some(item) = &node.items else { return };
            list.iter_mut().for_each(|value| drop_empty(value, item));
        }
        _ => {}
    }
}

/// Times, amounts and bytes are kept in one form.
fn polish(value: &mut Value, field: &Node) {
    let Value::String(text) = value else { return };
    let printed = if field.is_quantity() {
        crate::kinds::quantity::canonical(text).ok()
    } else if field.format == "byte" {
        super::times::bytes_printed(text)
    } else if field.format == "date-time" || field.resolve().format == "date-time" {
        super::times::printed(text, field.micro)
    } else {
        None
    };
    if let Some(printed) = printed {
        *text = printed;
    }
}

/// An empty list of a field that is always printed is kept as nothing. Owners are booked before.
pub fn settle(value: &mut Value, node: &Node) {
    walk(value, node, &|map, node| {
        for (name, value) in map.iter_mut() {
            let printed = node.fields.get(name).is_some_and(|field| field.zero == Some(Value::Null));
            if printed && value.as_array().is_some_and(Vec::is_empty) {
                *value = Value::Null;
            }
        }
    });
}

/// Whether Go leaves the field out.
fn is_empty(value: &Value, field: &Node, parent: &Node, name: &str) -> bool {
    let kind = field.resolve();
    match value {
        Value::Null => kind.type_ != Type::Any || parent.fields.contains_key(name),
        // An empty list of owners asks to forget them all.
        Value::Array(list) if name == "managedFields" => list.is_empty() && !parent.fields.contains_key("finalizers"),
        Value::Array(list) => list.is_empty() && parent.is_struct() && field.zero != Some(Value::Null),
        Value::Object(map) => {
            map.is_empty() && parent.is_struct() && kind.type_ == Type::Object && kind.additional.is_some()
        }
        Value::String(text) => text.is_empty() && field.omit_zero,
        Value::Bool(flag) => !flag && field.omit_zero,
        Value::Number(number) => field.omit_zero && number.as_i64() == Some(0),
    }
}

/// Calls `visit` for each object that has named fields, outermost first, so that what it adds is visited too.
fn walk(value: &mut Value, node: &Node, visit: &impl Fn(&mut Map<String, Value>, &Node)) {
    let node = node.resolve();
    match value {
        Value::Object(map) if node.type_ == Type::Object => {
            if node.is_struct() {
                visit(map, node);
            }
            for (name, value) in map.iter_mut() {
                if let Some(field) = node.fields.get(name).or(node.additional.as_deref()) {
                    walk(value, field, visit);
                }
            }
        }
        Value::Array(list) => {
            let Some(item) = &node.items else { return };
            list.iter_mut().for_each(|value| walk(value, item, visit));
        }
        _ => {}
    }
}
