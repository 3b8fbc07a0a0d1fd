//! Validating a custom resource against its OpenAPI schema, in the words of the real validator.

use serde_json::Value;

use crate::failure::FieldError;

const RULES_SKIPPED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// Everything that is wrong with a custom resource; `schema` is the `openAPIV3Schema` of its version.
pub fn validate(object: &Value, schema: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(object, schema, "", &mut errors);
    let duplicates_only = errors.iter().all(|error| error.reason == "FieldValueDuplicate");
    if !errors.is_empty() && !duplicates_only && has_rules(schema) {
        errors.push(FieldError::invalid("<nil>", &Value::Null, RULES_SKIPPED));
    }
    errors
}

/// Whether the schema has rules in CEL anywhere.
pub fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.iter().any(|(name, value)| name == "x-kubernetes-validations" || has_rules(value)),
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

fn check(value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if let Some(wrong) = type_error(value, schema, path) {
        errors.push(wrong);
        return;
    }
    errors.extend(scalar_errors(value, schema, path));
    match value {
        Value::Object(map) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !map.contains_key(name) {
                    errors.push(FieldError::required(join(path, name), ""));
                }
            }
            for (name, value) in map {
                // Metadata and the kind are the server's own business.
                if path.is_empty() && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                    continue;
                }
                let own = schema["properties"].get(name).or(schema.get("additionalProperties"));
                if let Some(own) = own.filter(|own| own.is_object()) {
                    check(value, own, &join(path, name), errors);
                }
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                check(value, &schema["items"], &format!("{path}[{index}]"), errors);
            }
            errors.extend(duplicates(list, schema, path));
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
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
    let fits = match want {
        "integer,string" => matches!(got, "integer" | "string"),
        "number" => matches!(got, "integer" | "number"),
        want => want == got,
    };
    let detail = format!("{path} in body must be of type {want}: \"{got}\"");
    (!fits).then(|| FieldError::type_invalid(path, &Value::from(got), &detail))
}

fn scalar_errors(value: &Value, schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        errors.push(FieldError::not_supported(path, value, &words));
    }
    let mut bound = |broken: bool, detail: String| {
        if broken {
            errors.push(FieldError::invalid(path, value, &format!("{path} in body {detail}")));
        }
    };
    if let Some(number) = value.as_f64() {
        if let Some(least) = schema["minimum"].as_f64() {
            bound(number < least, format!("should be greater than or equal to {least}"));
        }
        if let Some(most) = schema["maximum"].as_f64() {
            bound(number > most, format!("should be less than or equal to {most}"));
        }
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if let Some(least) = schema["minLength"].as_u64() {
            bound(length < least, format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            let fits = regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text));
            bound(!fits, format!("should match '{pattern}'"));
        }
        if let Some(format) = schema["format"].as_str().filter(|format| !has_format(text, format)) {
            let detail = format!("{path} in body must be of type {format}: \"{text}\"");
            errors.push(FieldError::type_invalid(path, value, &detail));
        }
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            let message = format!("Too long: may not be more than {most} bytes");
            errors.push(FieldError { reason: "FieldValueTooLong", message, field: path.to_owned() });
        }
    }
    errors
}

/// Formats that the real server checks; it ignores those that it does not know.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        _ => true,
    }
}

fn duplicates(list: &[Value], schema: &Value, path: &str) -> Vec<FieldError> {
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
        if list[..index].iter().any(|other| identity(other).as_ref() == Some(&own)) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), &own));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_of_each_error() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [{"rule": "true"}], "properties": {
            "on": {"type": "boolean"}, "mode": {"type": "string", "enum": ["Yes", "No"]},
            "cidr": {"type": "string", "format": "cidr"}, "count": {"type": "integer", "minimum": 0},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}}}});
        let texts = |object: Value| -> Vec<(String, String)> {
            validate(&object, &schema).into_iter().map(|error| (error.field, error.message)).collect()
        };
        assert_eq!(texts(json!({}))[0], ("spec".into(), "Required value".into()));
        assert_eq!(texts(json!({})).len(), 2, "rules are skipped, and that is said");
        let errors = texts(json!({"spec": {"on": "no", "mode": "yes", "cidr": "x", "count": -1}}));
        let messages: Vec<&str> = errors.iter().map(|(_, message)| message.as_str()).collect();
        assert!(messages.contains(&"Invalid value: \"string\": spec.on in body must be of type boolean: \"string\""));
        assert!(messages.contains(&"Unsupported value: \"yes\": supported values: \"Yes\", \"No\""));
        assert!(messages.contains(&"Invalid value: \"x\": spec.cidr in body must be of type cidr: \"x\""));
        assert!(messages.contains(&"Invalid value: -1: spec.count in body should be greater than or equal to 0"));
        let twice = texts(json!({"spec": {"tags": ["a", "a"]}}));
        assert_eq!(twice, [("spec.tags[1]".into(), "Duplicate value: \"a\"".into())]);
        assert!(texts(json!({"spec": {"on": true, "mode": "No", "cidr": "10.0.0.0/8", "count": 0}})).is_empty());
    }
}
