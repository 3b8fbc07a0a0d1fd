//! Validating a custom resource against its OpenAPI schema, in the words of the real validator.

use serde_json::{Value, json};

use super::formats::has_format;
use crate::failure::{FieldError, go_float};

/// Beyond it a number with a point counts as none that is whole.
const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;

/// Everything that is wrong with a custom resource; `schema` is the `openAPIV3Schema` of its version. What an update
/// leaves as it was is not looked at again.
pub fn validate(object: &Value, schema: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = check(object, schema, "", old).errors;
    let before = old.map(|old| duplicates(old, schema, "")).unwrap_or_default();
    if before.is_empty() {
        errors.extend(duplicates(object, schema, ""));
    }
    errors
}

/// Everything that is wrong with the status of a custom resource; the rest was looked at when it was written.
pub fn validate_status(object: &Value, schema: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(status) = object.get("status") {
        let own = &schema["properties"]["status"];
        let found = check(status, own, "status", old.and_then(|old| old.get("status"))).errors;
        errors.extend(found.into_iter().map(|mut error| {
            // What is told of the body is told of the status alone.
            let inner = error.field.strip_prefix("status").unwrap_or_default().trim_start_matches('.');
            error.message = error.message.replace(&format!("{} in body", error.field), &format!("{inner} in body"));
            error
        }));
    }
    let before = old.map(|old| duplicates(old, schema, "")).unwrap_or_default();
    if before.is_empty() {
        errors.extend(duplicates(object, schema, ""));
    }
    errors
}

/// Errors that leave nothing for rules in CEL to look at.
pub fn blocks_rules(errors: &[FieldError]) -> bool {
    let blocking = [
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    ];
    errors.iter().any(|error| blocking.contains(&error.reason))
}

/// What one part of a schema found; `matched` tells which of several alternatives came nearest.
#[derive(Default)]
struct Found {
    errors: Vec<FieldError>,
    matched: usize,
}

impl Found {
    fn merge(&mut self, other: Found) {
        self.errors.extend(other.errors);
        self.matched += other.matched;
    }
}

fn field(path: &str) -> String {
    let path = path.trim_start_matches('.');
    if path.is_empty() { "<nil>".into() } else { path.to_owned() }
}

fn check(value: &Value, schema: &Value, path: &str, old: Option<&Value>) -> Found {
    if old == Some(value) {
        return Found { errors: Vec::new(), matched: 1 };
    }
    let mut found = Found::default();
    found.errors.extend(type_error(value, schema, path));
    found.matched += 1;
    if value.is_null() {
        found.errors.extend(enum_error(value, schema, path));
        return found;
    }
    let alternatives = alternatives(value, schema, path);
    found.merge(alternatives);
    match value {
        Value::String(text) => found.errors.extend(text_errors(text, schema, path)),
        Value::Number(_) => found.errors.extend(number_errors(value, schema, path)),
        Value::Array(list) => found.merge(list_errors(list, schema, path, old)),
        _ => {}
    }
    found.errors.extend(enum_error(value, schema, path));
    if let Value::Object(_) = value {
        found.merge(object_errors(value, schema, path, old));
    }
    found.matched += 1;
    found
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn type_error(value: &Value, schema: &Value, path: &str) -> Option<FieldError> {
    let got = kind(value);
    let either = schema["x-kubernetes-int-or-string"] == true;
    let want = if either { "integer,string" } else { schema["type"].as_str()? };
    let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() <= WHOLE_MAX);
    let fits = match want {
        _ if value.is_null() => schema["nullable"] == true,
        "integer,string" => matches!(got, "integer" | "string"),
        "number" => matches!(got, "integer" | "number"),
        "integer" => got == "integer" || (got == "number" && whole),
        want => want == got,
    };
    let detail = format!("{path} in body must be of type {want}: \"{got}\"");
    (!fits).then(|| FieldError::type_invalid(field(path), &Value::from(got), &detail))
}

fn enum_error(value: &Value, schema: &Value, path: &str) -> Option<FieldError> {
    let words = schema["enum"].as_array()?;
    if words.contains(value) {
        return None;
    }
    let words: Vec<String> =
        words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(FieldError::not_supported(field(path), value, &words))
}

fn invalid(path: &str, value: &Value, detail: &str) -> FieldError {
    FieldError::invalid(field(path), value, &format!("{path} in body {detail}"))
}

fn number_errors(value: &Value, schema: &Value, path: &str) -> Vec<FieldError> {
    let number = value.as_f64().unwrap_or_default();
    let mut errors = Vec::new();
    if ["multipleOf", "minimum", "maximum"].iter().all(|word| schema[*word].is_null()) {
        return errors;
    }
    errors.extend(range_error(value, schema, path));
    let whole = value.is_i64() || value.is_u64();
    let shown = |bound: f64| if whole { format!("{}", bound as i64) } else { go_float(bound) };
    if let Some(factor) = schema["multipleOf"].as_f64() {
        // Whole numbers are divided as whole numbers, by what is left of the factor then.
        let factor = if whole { factor.trunc() } else { factor };
        if factor <= 0.0 {
            let detail = format!("factor MultipleOf declared for {path} must be positive: {}", go_float(factor));
            errors.push(FieldError::invalid(field(path), &json!(factor as i64), &detail));
        } else if (number / factor).fract() != 0.0 {
            errors.push(invalid(path, value, &format!("should be a multiple of {}", go_float(factor))));
        }
    }
    if let Some(least) = schema["minimum"].as_f64() {
        let exclusive = schema["exclusiveMinimum"] == true;
        if number < least || (exclusive && number == least) {
            let words = if exclusive { "greater than" } else { "greater than or equal to" };
            errors.push(invalid(path, value, &format!("should be {words} {}", shown(least))));
        }
    }
    if let Some(most) = schema["maximum"].as_f64() {
        let exclusive = schema["exclusiveMaximum"] == true;
        if number > most || (exclusive && number == most) {
            let words = if exclusive { "less than" } else { "less than or equal to" };
            errors.push(invalid(path, value, &format!("should be {words} {}", shown(most))));
        }
    }
    errors
}

/// A number that its format cannot hold.
fn range_error(value: &Value, schema: &Value, path: &str) -> Option<FieldError> {
    let (form, type_) = (schema["format"].as_str()?, schema["type"].as_str().unwrap_or_default());
    let number = value.as_i64()?;
    let outside = form == "int32" && i32::try_from(number).is_err();
    let detail = format!("Checked value must be of type {type_} with format {form} in {path}");
    outside.then(|| FieldError::invalid("<nil>", &json!(""), &detail))
}

/// Only the first complaint about a text is made.
fn text_errors(text: &str, schema: &Value, path: &str) -> Vec<FieldError> {
    let length = text.chars().count() as u64;
    let value = json!(text);
    let mut errors = Vec::new();
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        errors.push(FieldError::too_long(field(path), most as usize));
    } else if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        errors.push(invalid(path, &value, &format!("should be at least {least} chars long")));
    } else if let Some(pattern) = schema["pattern"].as_str()
        && !regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
    {
        errors.push(invalid(path, &value, &format!("should match '{pattern}'")));
    }
    if let Some(format) = schema["format"].as_str().filter(|format| !has_format(text, format)) {
        let detail = format!("{path} in body must be of type {format}: {}", crate::failure::go_quoted(text));
        errors.push(FieldError::type_invalid(field(path), &value, &detail));
    }
    errors
}

fn list_errors(list: &[Value], schema: &Value, path: &str, old: Option<&Value>) -> Found {
    let mut found = Found::default();
    if schema["items"].is_object() {
        for (index, value) in list.iter().enumerate() {
            let before = old.and_then(|old| correlated(value, old, schema));
            found.merge(check(value, &schema["items"], &format!("{path}[{index}]"), before));
        }
    }
    let count = list.len() as u64;
    if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
        found.errors.push(invalid(path, &json!(count), &format!("should have at least {least} items")));
    }
    if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
        found.errors.push(FieldError::too_many(field(path), list.len(), most as usize));
    }
    if schema["uniqueItems"] == true && (1..list.len()).any(|at| list[..at].contains(&list[at])) {
        found.errors.push(invalid(path, &json!(""), "shouldn't contain duplicates"));
    }
    found.matched += 1;
    found
}

/// The element of the old list that has the same keys; other lists are not followed.
pub(super) fn correlated<'a>(value: &Value, old: &'a Value, schema: &Value) -> Option<&'a Value> {
    if schema["x-kubernetes-list-type"] != "map" {
        return None;
    }
    let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
    old.as_array()?.iter().find(|other| {
        keys.iter().filter_map(Value::as_str).all(|key| value.get(key).is_some() && value.get(key) == other.get(key))
    })
}

fn object_errors(value: &Value, schema: &Value, path: &str, old: Option<&Value>) -> Found {
    let mut found = Found::default();
    let Some(map) = value.as_object() else { return found };
    let count = map.len() as u64;
    if let Some(least) = schema["minProperties"].as_u64().filter(|least| count < *least) {
        found.errors.push(invalid(path, &json!(count), &format!("should have at least {least} properties")));
    }
    if let Some(most) = schema["maxProperties"].as_u64().filter(|most| count > *most) {
        found.errors.push(FieldError::too_many(field(path), map.len(), most as usize));
    }
    for (name, value) in map {
        // Metadata and the kind are the server's own business.
        if path.is_empty() && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
            continue;
        }
        let own = schema["properties"].get(name).or(schema.get("additionalProperties"));
        if let Some(own) = own.filter(|own| own.is_object()) {
            found.merge(check(value, own, &join(path, name), old.and_then(|old| old.get(name))));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(name) {
            found.errors.push(FieldError::required(field(&format!("{path}.{name}")), ""));
        }
    }
    found
}

/// `anyOf`, `oneOf`, `allOf` and `not`; of alternatives that all fail the nearest one says why.
fn alternatives(value: &Value, schema: &Value, path: &str) -> Found {
    let mut found = Found::default();
    let list = |word: &str| schema[word].as_array().cloned().unwrap_or_default();
    let refuse = |text: String| FieldError::invalid("<nil>", &json!(""), &text);
    let quoted = crate::failure::go_quoted(path);
    let nearest = |results: Vec<Found>| {
        let mut best: Option<Found> = None;
        for result in results {
            if best.as_ref().is_none_or(|best| result.matched > best.matched) {
                best = Some(result);
            }
        }
        best.unwrap_or_default()
    };
    let any = list("anyOf");
    if !any.is_empty() {
        let results: Vec<Found> = any.iter().map(|one| check(value, one, path, None)).collect();
        if !results.iter().any(|result| result.errors.is_empty()) {
            found.errors.push(refuse(format!("{quoted} must validate at least one schema (anyOf)")));
            found.merge(nearest(results));
        }
    }
    let one = list("oneOf");
    if !one.is_empty() {
        let results: Vec<Found> = one.iter().map(|one| check(value, one, path, None)).collect();
        match results.iter().filter(|result| result.errors.is_empty()).count() {
            1 => {}
            0 => {
                let text = format!("{quoted} must validate one and only one schema (oneOf). Found none valid");
                found.errors.push(refuse(text));
                found.merge(nearest(results));
            }
            several => found.errors.push(refuse(format!(
                "{quoted} must validate one and only one schema (oneOf). Found {several} valid alternatives"
            ))),
        }
    }
    let all = list("allOf");
    if !all.is_empty() {
        let results: Vec<Found> = all.iter().map(|one| check(value, one, path, None)).collect();
        let valid = results.iter().filter(|result| result.errors.is_empty()).count();
        if valid != results.len() {
            results.into_iter().for_each(|result| found.merge(result));
            let none = if valid == 0 { ". None validated" } else { "" };
            found.errors.push(refuse(format!("{quoted} must validate all the schemas (allOf){none}")));
        }
    }
    if schema["not"].is_object() && check(value, &schema["not"], path, None).errors.is_empty() {
        found.errors.push(refuse(format!("{quoted} must not validate the schema (not)")));
    }
    found.matched += 1;
    found
}

/// Elements of sets and keyed lists that are there twice, anywhere in the object.
fn duplicates(value: &Value, schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match value {
        Value::Array(list) => {
            errors.extend(list_duplicates(list, schema, path));
            for (index, value) in list.iter().enumerate() {
                errors.extend(duplicates(value, &schema["items"], &format!("{path}[{index}]")));
            }
        }
        Value::Object(map) => {
            for (name, value) in map {
                match schema["properties"].get(name) {
                    Some(own) => errors.extend(duplicates(value, own, &join(path, name))),
                    None if schema["additionalProperties"].is_object() => {
                        errors.extend(duplicates(value, &schema["additionalProperties"], &format!("{path}[{name}]")));
                    }
                    None => {}
                }
            }
        }
        _ => {}
    }
    errors
}

fn list_duplicates(list: &[Value], schema: &Value, path: &str) -> Vec<FieldError> {
    let keys: Vec<&str> =
        schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let identity = |value: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(value.clone()),
        Some("map") => Some(keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(key)?.clone()))).collect()),
        _ => None,
    };
    let mut errors = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let Some(own) = identity(value) else { return errors };
        let earlier = list[..index].iter().filter(|other| identity(other).as_ref() == Some(&own)).count();
        // A third one is not told apart from the second.
        if earlier == 1 {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), &own));
        }
    }
    errors
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
