//! Reading request bodies: JSON with duplicate keys noticed, YAML, and the kind that must match the path.

pub mod order;
pub mod protobuf;
mod yaml_keys;

use std::fmt;

use serde_json::{Map, Value};

use crate::failure::{Failure, FieldError, Outcome};
use crate::registry::Resource;
use crate::request::Validation;
use crate::schema::builtin::{OBJECT_META, types};
use crate::schema::decode::decode;

/// A value, and the paths of keys that were there twice.
pub struct Parsed {
    /// What was read; of two equal keys the last one.
    pub value: Value,
    /// Paths of duplicate keys.
    pub duplicates: Vec<String>,
}

/// Parses JSON; the error is in the words of Go's parser.
pub fn parse_json(bytes: &[u8]) -> Result<Parsed, String> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed { path: String::new(), duplicates: &mut duplicates };
    let value = serde::de::DeserializeSeed::deserialize(seed, &mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| go_syntax_error(bytes, &error))?;
    Ok(Parsed { value, duplicates })
}

struct Seed<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, list.len());
            match access.next_element_seed(Seed { path, duplicates: self.duplicates })? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            let value = access.next_value_seed(Seed { path: path.clone(), duplicates: self.duplicates })?;
            if map.insert(name, value).is_some() {
                self.duplicates.push(path);
            }
        }
        Ok(Value::Object(map))
    }
}

/// What Go's parser says about the same text.
pub fn go_syntax_error(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let before = bytes
        .split(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(|line| line.len() + 1)
        .sum::<usize>();
    let at = (before + error.column()).saturating_sub(1);
    let character = char::from(*bytes.get(at).unwrap_or(&b' '));
    let previous = bytes[..at.min(bytes.len())].iter().rev().find(|byte| !byte.is_ascii_whitespace());
    let expectation = match previous {
        Some(b'{') => "looking for beginning of object key string",
        Some(b':' | b'[' | b',') | None => "looking for beginning of value",
        Some(_) if at >= bytes.len() => return "unexpected end of JSON input".into(),
        Some(_) => "after top-level value",
    };
    format!("invalid character '{character}' {expectation}")
}

/// Parses YAML as Kubernetes does: by its JSON form, with the booleans of YAML 1.1.
pub fn parse_yaml(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    // Of several documents the first one is meant.
    let Some(first) = serde_yaml::Deserializer::from_str(text).next() else { return Ok(Value::Null) };
    let value = serde::Deserialize::deserialize(first).map_err(|error: serde_yaml::Error| go_yaml_error(&error))?;
    Ok(yaml_booleans(value, text))
}

/// What Go's parser says: the line first, and nothing of the rest.
fn go_yaml_error(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match (text.split_once(" at line "), error.location()) {
        (Some((why, _)), Some(at)) => format!("yaml: line {}: {why}", at.line()),
        _ => format!("yaml: {text}"),
    }
}

/// `y`, `n`, `yes`, `no`, `on` and `off` are booleans in YAML 1.1 if they stand there without quotes.
fn yaml_booleans(value: Value, text: &str) -> Value {
    match value {
        Value::String(word) => {
            let flag = match word.to_ascii_lowercase().as_str() {
                "y" | "yes" | "on" => true,
                "n" | "no" | "off" => false,
                _ => return Value::String(word),
            };
            let bare = text.lines().any(|line| {
                let line = line.trim_end().trim_end_matches([',', '}', ']']).trim_end();
                line.ends_with(&format!(": {word}")) || line.ends_with(&format!("- {word}"))
            });
            if bare { Value::Bool(flag) } else { Value::String(word) }
        }
        Value::Array(list) => list.into_iter().map(|value| yaml_booleans(value, text)).collect(),
        Value::Object(map) => map.into_iter().map(|(name, value)| (name, yaml_booleans(value, text))).collect(),
        other => other,
    }
}

/// An object as it was sent, and what to warn about.
pub struct Decoded {
    /// The object; unknown fields are gone.
    pub object: Value,
    /// Texts of `Warning` headers.
    pub warnings: Vec<String>,
}

/// Parses a body of any media type that bodies may have; `kind` is what it should hold, for errors.
pub fn parse(bytes: &[u8], media_type: &str, kind: &str) -> Outcome<Parsed> {
    let plain = |value| Parsed { value, duplicates: Vec::new() };
    let refuse = |error: String| {
        let shown = summary(bytes);
        Failure::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {error} ({shown})"))
    };
    match media_type {
        "" | "application/json" => parse_json(bytes).map_err(|error| refuse(json_error(&error))),
        "application/yaml" => {
            let value = parse_yaml(bytes).map_err(refuse)?;
            Ok(Parsed { value, duplicates: yaml_keys::duplicates(&String::from_utf8_lossy(bytes)) })
        }
        protobuf::MEDIA_TYPE => protobuf::decode(bytes).map(plain).map_err(refuse),
        _ => Err(unsupported_body()),
    }
}

/// Reads an object of the resource's kind.
pub fn read_object(
    bytes: &[u8],
    media_type: &str,
    resource: &Resource,
    kind: &str,
    validation: Validation,
) -> Outcome<Decoded> {
    let parsed = parse(bytes, media_type, kind)?;
    let mut object = if parsed.value.is_null() { Value::Object(Map::new()) } else { parsed.value };
    if let Some(error) = type_meta_error(&object) {
        return Err(Failure::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {} ({})",
            json_error(&error),
            summary(bytes)
        )));
    }
    let version = object["apiVersion"].as_str().unwrap_or_default();
    if version.matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {version}");
        let shown = summary(bytes);
        let message = format!("the object provided is unrecognized (must be of type {kind}): {why} ({shown})");
        return Err(Failure::bad_request(message));
    }
    // Nothing but the object itself says what kind a custom resource is.
    if resource.custom.is_some() && object["kind"].as_str().unwrap_or_default().is_empty() {
        let text = String::from_utf8_lossy(bytes);
        return Err(Failure::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): Object 'Kind' is missing in '{text}' ({})",
            summary(bytes)
        )));
    }
    if resource.custom.is_some() && object["apiVersion"].is_null() {
        let message = format!(
            "the API version in the data () does not match the expected API version ({})",
            resource.api_version()
        );
        return Err(Failure::bad_request(message));
    }
    check_kind(&mut object, resource, kind)
        .map_err(|failure| surplus_of_version(failure, &object, resource, validation))?;
    let mut warnings = check_fields(&mut object, parsed.duplicates, resource, kind, validation)
        .map_err(|failure| if resource.custom.is_some() { failure } else { in_order(failure, bytes) })?;
    // Custom resources are looked through by name.
    if resource.custom.is_none() {
        sort_as_found(&mut warnings, bytes);
    }
    Ok(Decoded { object, warnings })
}

/// A version that a custom resource does not have has no fields either.
fn surplus_of_version(mut failure: Failure, object: &Value, resource: &Resource, validation: Validation) -> Failure {
    let other = object["apiVersion"] != resource.api_version().as_str();
    if resource.custom.is_some() && other && validation == Validation::Warn {
        let names = object.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        let unknown = names.filter(|name| !["apiVersion", "kind", "metadata"].contains(name));
        failure.warnings = unknown.map(|name| format!("unknown field \"{name}\"")).collect();
    }
    failure
}

/// The 415 of a media type that no body may have.
pub fn unsupported_body() -> Failure {
    let accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let message =
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
    Failure::unsupported_media(message, false)
}

/// The real decoder complains in the order of the text.
fn sort_as_found(texts: &mut [String], bytes: &[u8]) {
    if texts.len() < 2 {
        return;
    }
    let place = |text: &String| {
        let path = text.split('"').nth(1).unwrap_or_default();
        let mut from = 0;
        for name in path.split(['.', '[', ']']).filter(|name| !name.is_empty() && name.parse::<usize>().is_err()) {
            let key = format!("\"{name}\"");
            let found = bytes[from..].windows(key.len()).position(|window| window == key.as_bytes());
            from += found.map_or(0, |at| at + key.len());
        }
        from
    };
    texts.sort_by_cached_key(place);
}

fn in_order(mut failure: Failure, bytes: &[u8]) -> Failure {
    if let Some((head, list)) = failure.message.split_once("strict decoding error: ") {
        let mut texts: Vec<String> = list.split(", ").map(str::to_owned).collect();
        sort_as_found(&mut texts, bytes);
        failure.message = format!("{head}strict decoding error: {}", texts.join(", "));
    }
    failure
}

/// The beginning of a body: as text if it may be JSON, or else in hexadecimal digits.
fn summary(bytes: &[u8]) -> String {
    const MOST: usize = 30;
    let more = if bytes.len() > MOST { " ..." } else { "" };
    let begin = &bytes[..bytes.len().min(MOST)];
    match bytes.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(begin)),
        Some(_) => format!("{}{more}", begin.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

/// How the real server tells that it cannot even read the kind.
pub fn json_error(error: &str) -> String {
    format!("couldn't get version/kind; json parse error: {error}")
}

/// What Go's parser calls a value.
fn go_word(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Object(_) | Value::Null => "object",
    }
}

/// What keeps `apiVersion` and `kind` from being read.
pub fn type_meta_error(object: &Value) -> Option<String> {
    if !object.is_object() {
        let versioned = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
        return Some(format!("json: cannot unmarshal {} into Go value of type {versioned}", go_word(object)));
    }
    let odd =
        ["apiVersion", "kind"].into_iter().find(|name| !matches!(object[*name], Value::String(_) | Value::Null))?;
    Some(format!("json: cannot unmarshal {} into Go struct field .{odd} of type string", go_word(&object[odd])))
}

/// Fills in an absent kind and version; another kind is refused.
pub fn check_kind(object: &mut Value, resource: &Resource, kind: &str) -> Outcome<()> {
    let want_version = resource.api_version();
    let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let (got_version, got_kind) = (text("apiVersion"), text("kind"));
    if (got_version.is_empty() || got_version == want_version) && (got_kind.is_empty() || got_kind == kind) {
        object["apiVersion"] = want_version.into();
        object["kind"] = kind.into();
        return Ok(());
    }
    if resource.custom.is_some() {
        if got_version == want_version {
            let error = FieldError::invalid("kind", &got_kind.as_str().into(), &format!("must be {kind}"));
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            return Err(Failure::invalid(&resource.group, &got_kind, name, &[error]));
        }
        let message = format!(
            "the API version in the data ({got_version}) does not match the expected API version ({want_version})"
        );
        return Err(Failure::bad_request(message));
    }
    let whole_version = if got_version.is_empty() { &want_version } else { &got_version };
    let whole_kind = if got_kind.is_empty() { kind } else { &got_kind };
    // A list of anything is a kind of v1 that no resource has.
    let any_list = whole_version.as_str() == "v1" && whole_kind == "List";
    let why = if any_list || crate::schema::builtin::is_kind(whole_version, whole_kind) {
        let package =
            if resource.group.is_empty() { "core" } else { resource.group.split('.').next().unwrap_or_default() };
        format!("converting (v1.{whole_kind}) to ({package}.{kind}): unknown conversion")
    } else {
        format!(
            "no kind \"{whole_kind}\" is registered for version \"{whole_version}\" in scheme \"pkg/runtime/scheme.go:110\""
        )
    };
    let short = whole_version.rsplit('/').next().unwrap_or_default();
    Err(Failure::bad_request(format!("{whole_kind} in version \"{short}\" cannot be handled as a {kind}: {why}")))
}

/// Drops unknown fields, refuses or warns about them and about duplicates.
pub fn check_fields(
    object: &mut Value,
    duplicates: Vec<String>,
    resource: &Resource,
    kind: &str,
    validation: Validation,
) -> Outcome<Vec<String>> {
    let wrong = |why: &str| {
        let message = format!("{kind} in version \"{}\" cannot be handled as a {kind}: {why}", resource.version);
        Failure::bad_request(message)
    };
    // Of a custom resource only the metadata has Go types.
    if let (Some(_), Some(node)) = (&resource.custom, types().get(OBJECT_META))
        && let Err(error) = decode(&mut object["metadata"].clone(), node)
    {
        return Err(wrong(&error));
    }
    if resource.custom.is_some() && !matches!(object["metadata"], Value::Object(_) | Value::Null) {
        return Err(wrong(&format!(
            "json: cannot unmarshal {} into Go value of type v1.ObjectMeta",
            go_word(&object["metadata"])
        )));
    }
    let surplus = if kind == resource.kind { decode(object, &resource.schema) } else { Ok(Default::default()) };
    let unknown = match (surplus, &resource.custom) {
        (Ok(surplus), _) => surplus.unknown,
        // Types of custom resources are validated, not decoded: there the answer is a 422.
        (Err(_), Some(_)) => Vec::new(),
        (Err(error), None) => return Err(wrong(&error)),
    };
    // YAML has told of its own in its words.
    let told = |path: &String| match path.starts_with("line ") {
        true => path.clone(),
        false => format!("duplicate field \"{path}\""),
    };
    let mut texts: Vec<String> = duplicates.iter().map(told).collect();
    texts.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    match validation {
        Validation::Strict if !texts.is_empty() => {
            if texts[0].starts_with("line ") {
                let first = format!("yaml: unmarshal errors:\n  {}", texts[0]);
                texts[0] = first;
            }
            Err(wrong(&format!("strict decoding error: {}", texts.join(", "))))
        }
        Validation::Warn => Ok(texts),
        _ => Ok(Vec::new()),
    }
}
