//! What is wrong with the schema of a CustomResourceDefinition: it must be structural, its defaults must fit, and its
//! rules must be about what it has.

use serde_json::{Value, json};

use crate::failure::FieldError;
use crate::schema::cel_types::{Wanted, cel_path, check as check_expression};
use crate::schema::rules::Rules;
use crate::schema::validate::validate as check_value;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Everything that is wrong with a schema at `path`.
pub(super) fn errors(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if schema["nullable"] == true {
        errors.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    let mut structural = Vec::new();
    if is_convertible(schema) {
        structural = invariants(schema, Level::Root, path);
        structural.extend(completeness(schema, path));
    }
    structural.sort_by_key(FieldError::text);
    let defaults = if structural.is_empty() { default_errors(schema, path, true) } else { Vec::new() };
    let sound = structural.is_empty() && defaults.is_empty();
    errors.extend(structural);
    errors.extend(defaults);
    let mut walk = Walk { schema_errors: Vec::new(), rule_errors: Vec::new() };
    walk.node(schema, path, &Place { root: true, sound, ..Place::default() });
    errors.extend(walk.schema_errors);
    errors.extend(walk.rule_errors);
    errors
}

/// What a structural schema has no place for is told, and nothing else of the schema's structure.
fn is_convertible(schema: &Value) -> bool {
    let foreign = ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
    foreign.iter().all(|word| !is_set(&schema[*word]))
        && !schema["items"].is_array()
        && (!schema["items"].is_object() || is_convertible(&schema["items"]))
        && children(schema).all(|(_, own)| is_convertible(own))
        && (!schema["additionalProperties"].is_object() || is_convertible(&schema["additionalProperties"]))
}

fn children(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

/// What makes a schema structural: a type everywhere, and nothing that only a validator could follow.
fn invariants(schema: &Value, level: Level, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = schema["type"].as_str().unwrap_or_default();
    let flag = |name: &str| schema[name] == true;
    let (either, keeps, embedded) = (
        flag("x-kubernetes-int-or-string"),
        flag("x-kubernetes-preserve-unknown-fields"),
        flag("x-kubernetes-embedded-resource"),
    );
    if kind == "array" && !schema["items"].is_object() {
        errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
    if schema["items"].is_object() {
        errors.extend(invariants(&schema["items"], Level::Item, &format!("{path}.items")));
    }
    for (name, own) in children(schema) {
        errors.extend(invariants(own, Level::Field, &format!("{path}.properties[{name}]")));
    }
    let additional = &schema["additionalProperties"];
    if additional.is_object() || *additional == true {
        if level == Level::Root {
            errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), "must not be used at the root"));
        }
        if additional.is_object() {
            errors.extend(invariants(additional, Level::Field, &format!("{path}.additionalProperties")));
        }
        if embedded {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), detail));
        }
    }
    if either && keeps {
        let field = format!("{path}.x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(field, &json!(true), "must be false if x-kubernetes-int-or-string is true"));
    }
    if either && embedded {
        let field = format!("{path}.x-kubernetes-embedded-resource");
        errors.push(FieldError::invalid(field, &json!(true), "must be false if x-kubernetes-int-or-string is true"));
    }
    let number_or_text = json!([{"type": "integer"}, {"type": "string"}]);
    let plain_either = either && schema["anyOf"] == number_or_text;
    errors.extend(junctor_errors(schema, path, plain_either, either));
    let at = format!("{path}.type");
    match (kind, level) {
        ("", _) if embedded => {
            errors.push(FieldError::required(at, "must be object if x-kubernetes-embedded-resource is true"));
        }
        (other, _) if embedded && other != "object" => {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            errors.push(FieldError::invalid(at, &json!(other), detail));
        }
        ("", level) if !either && !keeps => errors.push(FieldError::required(
            at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        )),
        (other, Level::Root) if !other.is_empty() && other != "object" => {
            errors.push(FieldError::invalid(at, &json!(other), "must be object at the root"));
        }
        _ => {}
    }
    errors.extend(metadata_errors(schema, level, path, embedded));
    if embedded && !keeps && children(schema).next().is_none() {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(format!("{path}.properties"), detail));
    }
    errors
}

fn metadata_errors(schema: &Value, level: Level, path: &str, embedded: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let checked = level == Level::Root || embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(own) = schema["properties"].get(name).filter(|own| checked && own["type"] != "string") {
            let kind = json!(own["type"].as_str().unwrap_or_default());
            errors.push(FieldError::invalid(format!("{path}.properties[{name}].type"), &kind, "must be string"));
        }
    }
    if let Some(metadata) = schema["properties"].get("metadata") {
        let at = format!("{path}.properties[metadata]");
        if checked && metadata["type"] != "object" {
            let kind = json!(metadata["type"].as_str().unwrap_or_default());
            errors.push(FieldError::invalid(format!("{at}.type"), &kind, "must be object"));
        }
        let known = ["type", "properties", "default"];
        let foreign = metadata
            .as_object()
            .into_iter()
            .flatten()
            .any(|(word, value)| !known.contains(&word.as_str()) && is_set(value));
        let fields = children(metadata).any(|(name, _)| name != "name" && name != "generateName");
        if level == Level::Root && (foreign || fields) {
            let detail =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(at, detail));
        }
    }
    errors
}

/// `anyOf`, `allOf`, `oneOf` and `not` may only validate.
fn junctor_errors(schema: &Value, path: &str, skip_any: bool, either: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let number_or_text = json!([{"type": "integer"}, {"type": "string"}]);
    for word in ["anyOf", "allOf", "oneOf"] {
        if word == "anyOf" && skip_any {
            continue;
        }
        for (index, part) in schema[word].as_array().into_iter().flatten().enumerate() {
            let first = word == "allOf" && index == 0 && either && part["anyOf"] == number_or_text;
            errors.extend(nested_errors(part, &format!("{path}.{word}[{index}]"), first));
        }
    }
    if schema["not"].is_object() {
        errors.extend(nested_errors(&schema["not"], &format!("{path}.not"), false));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Err(error) = regex::Regex::new(pattern)
    {
        let why = go_regex_error(pattern, &error.to_string());
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), &json!(pattern), &detail));
    }
    errors
}

/// What Go's parser says of a pattern that ours refuses.
fn go_regex_error(pattern: &str, error: &str) -> String {
    let has = |word: &str| error.contains(word);
    let from = |word: &str| pattern.find(word).map_or(pattern, |at| &pattern[at..]);
    let (why, shown) = if has("look-around") {
        let at = ["(?!", "(?=", "(?<!", "(?<="].into_iter().find(|word| pattern.contains(word)).unwrap_or("(?");
        ("invalid or unsupported Perl syntax", if at.starts_with("(?<") { "(?<" } else { at })
    } else if has("unclosed group") {
        ("missing closing )", pattern)
    } else if has("unopened group") {
        ("unexpected )", pattern)
    } else if has("unclosed character class") {
        ("missing closing ]", from("["))
    } else if has("repetition operator missing expression") {
        let at = pattern.find(['*', '+', '?']).unwrap_or(0);
        ("missing argument to repetition operator", pattern.get(at..=at).unwrap_or(pattern))
    } else if has("unrecognized escape sequence") {
        let at = error.find('^').map_or("", |_| from("\\"));
        ("invalid escape sequence", at.get(..2).unwrap_or(pattern))
    } else {
        return error.to_owned();
    };
    format!("error parsing regexp: {why}: `{shown}`")
}

fn nested_errors(part: &Value, path: &str, skip_any: bool) -> Vec<FieldError> {
    let mut errors = junctor_errors(part, path, skip_any, false);
    if part["items"].is_object() {
        errors.extend(nested_errors(&part["items"], &format!("{path}.items"), false));
    }
    for (name, own) in children(part) {
        errors.extend(nested_errors(own, &format!("{path}.properties[{name}]"), false));
    }
    for (word, detail) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        if is_set(&part[word]) {
            errors.push(FieldError::forbidden(format!("{path}.{word}"), detail));
        }
    }
    if part["properties"].get("metadata").is_some() {
        let field = format!("{path}.properties[metadata]");
        errors.push(FieldError::forbidden(field, "must not be specified in a nested context"));
    }
    errors
}

/// Every field that a junctor of the root speaks of is one of the structure.
fn completeness(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for word in ["allOf", "anyOf", "oneOf"] {
        for (index, part) in schema[word].as_array().into_iter().flatten().enumerate() {
            errors.extend(completed(part, schema, &format!("{path}.{word}[{index}]"), path));
        }
    }
    if schema["not"].is_object() {
        errors.extend(completed(&schema["not"], schema, &format!("{path}.not"), path));
    }
    errors
}

fn completed(part: &Value, spine: &Value, path: &str, spine_path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, own) in children(part) {
        let missing = format!("{spine_path}.properties[{name}]");
        match spine["properties"].get(name) {
            Some(below) => errors.extend(completed(own, below, &format!("{path}.properties[{name}]"), &missing)),
            None => {
                let detail = format!("because it is defined in {path}.properties[{name}]");
                errors.push(FieldError::required(missing, &detail));
            }
        }
    }
    if part["items"].is_object() {
        let missing = format!("{spine_path}.items");
        match spine["items"].is_object() {
            true => errors.extend(completed(&part["items"], &spine["items"], &format!("{path}.items"), &missing)),
            false => {
                errors.push(FieldError::required(missing, &format!("because it is defined in {path}.items")));
            }
        }
    }
    for word in ["allOf", "anyOf", "oneOf"] {
        for (index, below) in part[word].as_array().into_iter().flatten().enumerate() {
            errors.extend(completed(below, spine, &format!("{path}.{word}[{index}]"), spine_path));
        }
    }
    errors
}

fn default_errors(schema: &Value, path: &str, root: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        let at = format!("{path}.default");
        if has_unknown(default, schema) {
            errors.push(FieldError::invalid(&*at, default, "must not have unknown fields"));
        }
        // The validator names fields from the default on.
        let place = |error: FieldError| {
            let field = if error.field == "<nil>" { at.clone() } else { format!("{at}.{}", error.field) };
            FieldError { field, ..error }
        };
        let found: Vec<FieldError> = check_value(default, schema, None).into_iter().map(place).collect();
        let sound = found.is_empty();
        errors.extend(found);
        if let (true, Some(rules)) = (sound, Rules::compile(schema)) {
            errors.extend(rules.verdict(default, None).errors.into_iter().map(place));
        }
    }
    if schema["items"].is_object() {
        errors.extend(default_errors(&schema["items"], &format!("{path}.items"), false));
    }
    for (name, own) in children(schema) {
        if !(root && matches!(name.as_str(), "metadata" | "kind" | "apiVersion")) {
            errors.extend(default_errors(own, &format!("{path}.properties[{name}]"), false));
        }
    }
    errors
}

fn has_unknown(value: &Value, schema: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(name, value)| {
            let own =
                schema["properties"].get(name).or(schema.get("additionalProperties").filter(|own| own.is_object()));
            match own {
                Some(own) => has_unknown(value, own),
                None => {
                    schema["x-kubernetes-preserve-unknown-fields"] != true && schema["additionalProperties"] != true
                }
            }
        }),
        Value::Array(list) => list.iter().any(|value| has_unknown(value, &schema["items"])),
        _ => false,
    }
}

/// What is known about a place from those above it.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// Rules are only looked at in a schema that is sound.
    sound: bool,
    in_metadata: bool,
    no_defaults: Option<String>,
    /// The list above whose elements cannot be found again in an older object.
    uncorrelated: Option<String>,
}

struct Walk {
    schema_errors: Vec<FieldError>,
    rule_errors: Vec<FieldError>,
}

impl Walk {
    fn node(&mut self, schema: &Value, path: &str, place: &Place) {
        let before = self.schema_errors.len();
        self.standard(schema, path, place);
        self.below(schema, path, place);
        self.schema_errors.extend(list_errors(schema, path));
        let rules: Vec<&Value> = schema["x-kubernetes-validations"].as_array().into_iter().flatten().collect();
        for (index, rule) in rules.iter().enumerate() {
            let at = format!("{path}.x-kubernetes-validations[{index}]");
            self.schema_errors.extend(rule_form_errors(rule, schema, &at));
        }
        if self.schema_errors.len() == before && place.sound {
            for (index, rule) in rules.iter().enumerate() {
                let at = format!("{path}.x-kubernetes-validations[{index}]");
                self.rule_errors.extend(rule_errors(rule, schema, &at, place));
            }
        }
    }

    fn standard(&mut self, schema: &Value, path: &str, place: &Place) {
        let at = |word: &str| format!("{path}.{word}");
        let kind = schema["type"].as_str().unwrap_or_default();
        let errors = &mut self.schema_errors;
        if !kind.is_empty() && !TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(at("type"), &json!(kind), &TYPES));
        }
        if let (Some(reason), true) = (&place.no_defaults, schema.get("default").is_some_and(|d| !d.is_null())) {
            errors.push(FieldError::forbidden(at("default"), &format!("must not be set {reason}")));
        }
        for word in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
            if is_set(&schema[word]) {
                errors.push(FieldError::forbidden(at(word), &format!("{word} is not supported")));
            }
        }
        if kind == "null" {
            let detail = "type cannot be set to null, use nullable as an alternative";
            errors.push(FieldError::forbidden(at("type"), detail));
        }
        if schema["items"].is_array() {
            errors.push(FieldError::forbidden(at("items"), "items must be a schema object and not an array"));
        }
        if place.in_metadata && schema["x-kubernetes-embedded-resource"] == true {
            let detail = "must not be used inside of resource meta";
            errors.push(FieldError::forbidden(at("x-kubernetes-embedded-resource"), detail));
        }
        if schema["uniqueItems"] == true {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            errors.push(FieldError::forbidden(at("uniqueItems"), detail));
        }
    }

    fn below(&mut self, schema: &Value, path: &str, place: &Place) {
        let inner = Place { root: false, ..place.clone() };
        let additional = &schema["additionalProperties"];
        if additional.is_object() || additional.is_boolean() {
            if children(schema).next().is_some() && *additional != true {
                let detail = "additionalProperties and properties are mutual exclusive";
                self.schema_errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), detail));
            }
            if additional.is_object() {
                self.node(additional, &format!("{path}.additionalProperties"), &inner);
            }
        }
        let resource = place.root || schema["x-kubernetes-embedded-resource"] == true;
        for (name, own) in children(schema) {
            let mut inner = inner.clone();
            if resource && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                inner.in_metadata = true;
                if place.root {
                    inner.no_defaults = Some(format!("in top-level {name}"));
                }
            }
            self.node(own, &format!("{path}.properties[{name}]"), &inner);
        }
        let unsound = Place { sound: false, ..inner.clone() };
        if schema["not"].is_object() {
            self.node(&schema["not"], &format!("{path}.not"), &unsound);
        }
        for word in ["allOf", "oneOf", "anyOf"] {
            for (index, part) in schema[word].as_array().into_iter().flatten().enumerate() {
                self.node(part, &format!("{path}.{word}[{index}]"), &unsound);
            }
        }
        if schema["items"].is_object() {
            let mut inner = inner;
            if schema["x-kubernetes-list-type"] != "map" && inner.uncorrelated.is_none() {
                inner.uncorrelated = Some(path.to_owned());
            }
            self.node(&schema["items"], &format!("{path}.items"), &inner);
        }
    }
}

/// What is wrong with the kinds of lists and maps.
fn list_errors(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = |word: &str| format!("{path}.{word}");
    let text = |word: &str| schema[word].as_str().unwrap_or_default();
    let (kind, list, map) = (text("type"), text("x-kubernetes-list-type"), text("x-kubernetes-map-type"));
    let items = &schema["items"];
    let typed = |field: String, want: &str, detail: &str| match kind {
        "" => Some(FieldError::required(field, detail)),
        kind if kind != want => Some(FieldError::invalid(field, &json!(kind), detail)),
        _ => None,
    };
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        let field = at("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(field, &json!(false), "must be true or undefined"));
    }
    if !map.is_empty() {
        errors.extend(typed(at("type"), "object", "must be object if x-kubernetes-map-type is specified"));
        if map != "atomic" && map != "granular" {
            errors.push(FieldError::not_supported(at("x-kubernetes-map-type"), &json!(map), &["atomic", "granular"]));
        }
    }
    if !list.is_empty() {
        let wrong = typed(at("type"), "array", "must be array if x-kubernetes-list-type is specified");
        if wrong.is_none() && list == "set" {
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let (inner, inner_map) = (&items["x-kubernetes-list-type"], &items["x-kubernetes-map-type"]);
            if items["type"] == "array" && !inner.is_null() && *inner != "atomic" {
                errors.push(FieldError::invalid(at("items.x-kubernetes-list-type"), inner, detail));
            } else if items["type"] == "object" && *inner_map != "atomic" {
                errors.push(FieldError::invalid(at("items.x-kubernetes-map-type"), inner, detail));
            }
        }
        errors.extend(wrong);
        if !["atomic", "set", "map"].contains(&list) {
            let field = at("x-kubernetes-list-type");
            errors.push(FieldError::not_supported(field, &json!(list), &["atomic", "set", "map"]));
        }
    }
    let keys: Vec<&str> =
        schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !keys.is_empty() && list != "map" {
        let (field, detail) = (at("x-kubernetes-list-type"), "must be map if x-kubernetes-list-map-keys is non-empty");
        errors.push(match list {
            "" => FieldError::required(field, detail),
            other => FieldError::invalid(field, &json!(other), detail),
        });
    }
    if list == "map" {
        errors.extend(map_list_errors(schema, path, &keys));
    }
    if items.is_object() && matches!(list, "set" | "map") {
        if items["nullable"] == true {
            let detail = format!("cannot be nullable when x-kubernetes-list-type is {list}");
            errors.push(FieldError::forbidden(at("items.nullable"), &detail));
        }
        for key in keys.iter().filter(|_| list == "map") {
            let Some(own) = items["properties"].get(*key) else { continue };
            let required = items["required"].as_array().is_some_and(|names| names.iter().any(|name| name == key));
            if !required && own["default"].is_null() {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                errors.push(FieldError::required(at(&format!("items.properties[{key}].default")), detail));
            }
            if own["nullable"] == true {
                let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                errors.push(FieldError::forbidden(at(&format!("items.properties[{key}].nullable")), detail));
            }
        }
    }
    errors
}

fn map_list_errors(schema: &Value, path: &str, keys: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = |word: &str| format!("{path}.{word}");
    let items = &schema["items"];
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(at("x-kubernetes-list-map-keys"), detail));
    }
    if items.is_null() {
        let detail = "must have a schema if x-kubernetes-list-type is map";
        errors.push(FieldError::required(at("items"), detail));
    }
    if items.is_object() && items["type"] != "object" {
        let kind = json!(items["type"].as_str().unwrap_or_default());
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(at("items.type"), &kind, detail));
    }
    if items["type"] == "object" {
        for (index, key) in keys.iter().enumerate() {
            match items["properties"].get(*key) {
                Some(own) if matches!(own["type"].as_str(), Some("array" | "object")) => {
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    let field = at(&format!("items.properties[{key}].type"));
                    errors.push(FieldError::invalid(field, &items["type"], detail));
                }
                Some(_) => {}
                None => {
                    let detail = "entries must all be names of item properties";
                    errors.push(FieldError::invalid(at("x-kubernetes-list-map-keys"), &json!(keys), detail));
                }
            }
            if keys[..index].contains(key) {
                let detail = "must not contain duplicate entries";
                errors.push(FieldError::invalid(at("x-kubernetes-list-map-keys"), &json!(keys), detail));
            }
        }
    }
    errors
}

/// What is wrong with the words of a rule.
fn rule_form_errors(rule: &Value, schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = |word: &str| format!("{path}.{word}");
    let text = |word: &str| rule[word].as_str().unwrap_or_default();
    let broken = |text: &str| text.contains(['\n', '\r']);
    let (source, message) = (text("rule").trim(), text("message").trim());
    if source.is_empty() {
        errors.push(FieldError::required(at("rule"), "rule is not specified"));
    } else if !text("message").is_empty() && message.is_empty() {
        errors.push(FieldError::invalid(at("message"), &rule["message"], "must be non-empty if specified"));
    } else if broken(message) {
        errors.push(FieldError::invalid(at("message"), &rule["message"], "must not contain line breaks"));
    } else if broken(source) && message.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(at("message"), detail));
    }
    if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(at("messageExpression"), detail));
    }
    if let Some(reason) = rule["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
        errors.push(FieldError::not_supported(at("reason"), &json!(reason), &REASONS));
    }
    let place = text("fieldPath");
    if !place.is_empty() {
        if place.trim().is_empty() {
            errors.push(FieldError::invalid(at("fieldPath"), &json!(place), "must be non-empty if specified"));
        }
        if broken(place) {
            errors.push(FieldError::invalid(at("fieldPath"), &json!(place), "must not contain line breaks"));
        }
        if cel_path(place, schema, true).is_err() {
            errors.push(FieldError::invalid(at("fieldPath"), &json!(place), "must be a valid path"));
        }
    }
    errors
}

/// What is wrong with the expressions of a rule.
fn rule_errors(rule: &Value, schema: &Value, path: &str, place: &Place) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = |word: &str| format!("{path}.{word}");
    let text = |word: &str| rule[word].as_str().unwrap_or_default();
    let optional = rule["optionalOldSelf"] == true;
    let shown = shown(rule);
    let broken = |word: &str, detail: String| FieldError {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {shown}: {detail}"),
        field: at(word),
    };
    let root = place.root || schema["x-kubernetes-embedded-resource"] == true;
    let checked = check_expression(text("rule"), schema, root, optional, Wanted::Bool);
    let compiled = checked.is_ok();
    errors.extend(checked.err().map(|detail| broken("rule", detail)));
    if !text("messageExpression").is_empty() {
        let checked = check_expression(text("messageExpression"), schema, root, optional, Wanted::String);
        errors.extend(checked.err().map(|detail| broken("messageExpression", detail)));
    }
    if compiled && uses_old(text("rule")) {
        if let Some(above) = &place.uncorrelated {
            let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}");
            errors.push(FieldError::invalid(at("rule"), &json!(text("rule")), &detail));
        }
    } else if !rule["optionalOldSelf"].is_null() {
        let detail = "may not be set if oldSelf is not used in rule";
        errors.push(FieldError::invalid(at("optionalOldSelf"), &rule["optionalOldSelf"], detail));
    }
    errors
}

fn uses_old(rule: &str) -> bool {
    kube_cel::cel::Program::compile(rule).is_ok_and(|program| program.references().has_variable("oldSelf"))
}

/// A rule as Go prints it.
fn shown(rule: &Value) -> String {
    let text = |word: &str| {
        let text = Value::from(rule[word].as_str().unwrap_or_default()).to_string();
        text.replace('>', "\\u003e").replace('<', "\\u003c").replace('&', "\\u0026")
    };
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        rule["reason"],
        text("fieldPath"),
        rule["optionalOldSelf"],
    )
}
