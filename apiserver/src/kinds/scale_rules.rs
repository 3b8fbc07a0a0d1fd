//! Numbers of replicas of custom resources that have `/scale`.

use serde_json::{Value, json};

use crate::failure::FieldError;
use crate::registry::Custom;

/// What is wrong with the numbers that `/scale` shows.
pub(super) fn errors(custom: &Custom, subresource: &str, object: &Value) -> Vec<FieldError> {
    let Some(scale) = &custom.scale else { return Vec::new() };
    let mut errors = Vec::new();
    if subresource != "status" {
        errors.extend(number_error(object, &scale.spec));
    }
    errors.extend(number_error(object, &scale.status));
    if let Some(path) = &scale.selector
        && let Some(found) = find(object, path).filter(|found| !found.is_string())
    {
        let detail = format!("{path} accessor error: {found} is of the type {}, expected string", go_type(found));
        errors.push(FieldError::invalid(path, &json!(""), &detail));
    }
    errors
}

fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.trim_start_matches('.').split('.').try_fold(object, |value, name| value.get(name))
}

/// What stands on a path where a map is expected, and the path to what should be in it.
fn no_map<'a>(object: &'a Value, path: &str) -> Option<(String, &'a Value)> {
    let (mut at, mut walked) = (object, String::new());
    for name in path.trim_start_matches('.').split('.') {
        walked = format!("{walked}.{name}");
        if !at.is_object() {
            return Some((walked, at));
        }
        at = at.get(name)?;
    }
    None
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn number_error(object: &Value, path: &str) -> Option<FieldError> {
    if let Some((field, found)) = no_map(object, path) {
        let shown = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        let kind = go_type(found);
        let detail =
            format!("{field} accessor error: {shown} is of the type {kind}, expected map[string]interface{{}}");
        return Some(FieldError::invalid(path, &json!(0), &detail));
    }
    let found = find(object, path)?;
    let Some(number) = found.as_i64() else {
        let shown = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        let detail = format!("{path} accessor error: {shown} is of the type {}, expected int64", go_type(found));
        return Some(FieldError::invalid(path, &json!(0), &detail));
    };
    let detail = match number {
        ..0 => "should be a non-negative integer".to_owned(),
        number if number > i64::from(i32::MAX) => format!("should be less than or equal to {}", i32::MAX),
        _ => return None,
    };
    Some(FieldError::invalid(path, &json!(number), &detail))
}
