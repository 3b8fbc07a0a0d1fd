//! PATCH: the four types, each ending in the same commit as a PUT.

use std::sync::Arc;

use serde_json::{Value, json};

use super::create::{Terms, dedup_owners, finish, insert, zero};
use super::spelled::spelled;
use super::update::{check_named, check_names, replace};
use super::{Call, Written, in_version, parse_revision};
use crate::body::order;
use crate::body::{check_fields, check_kind, go_syntax_error, parse_json, parse_yaml};
use crate::failure::{Failure, FieldError, Outcome};
use crate::fields::{managed, typed};
use crate::patch::strategic::strategic_merge;
use crate::patch::{json_patch, merge_patch};
use crate::registry::Resource;
use crate::request::{Validation, WriteOptions};
use crate::schema::{Node, builtin, shape};
use crate::state::State;

/// More operations than this are refused.
const OPERATIONS_MAX: usize = 10_000;

/// Types of fields into which the real server converts a value of a patch without looking into it.
const SIMPLE: [&str; 4] = ["bool", "int32", "int64", "string"];

/// Patches an object, or its status.
pub fn patch(state: &mut State, call: &Call) -> Outcome<Written> {
    let apply = call.media_type == "application/apply-patch+yaml";
    let custom = call.resource.custom.is_some();
    match call.media_type.as_str() {
        "application/json-patch+json" | "application/merge-patch+json" | "application/apply-patch+yaml" => {}
        "application/strategic-merge-patch+json" if !custom => {}
        "application/strategic-merge-patch+json" => return Err(no_strategic_merge()),
        _ => return Err(Failure::unsupported_media("415: Unsupported Media Type", true)),
    }
    let options = read_options(call, apply)?;
    if apply {
        return apply_patch(state, call, &options);
    }
    let live = state.read(&call.resource, call.namespace(), &call.target.name)?;
    let mut object = in_version(&live, &call.resource);
    change(&mut object, call, &call.resource.schema)?;
    check_named(&object, call)?;
    let before_decoding = object.clone();
    let of = (!custom).then(|| order::type_of(&call.resource.api_version(), &call.resource.kind));
    check_kind(&mut object, &call.resource, &call.resource.kind).map_err(|failure| match call.resource.custom {
        None => misfit(&before_decoding, call, of, &failure),
        Some(_) => failure,
    })?;
    let mut warnings = check_fields(&mut object, Vec::new(), &call.resource, &call.resource.kind, options.validation)
        .map_err(|failure| misfit(&before_decoding, call, of, &failure))?;
    warnings.extend(dedup_owners(&mut object));
    let changed = check_names(&mut object, call).and_then(|()| {
        finish(&mut object, call);
        replace(state, call, &live, object, Some(&options), options.dry_run)
    });
    let stored = changed.map_err(|failure| failure.after(&warnings))?;
    warnings.extend(crate::kinds::warnings(&call.resource, &stored, Some(&live)));
    Ok(Written { code: 200, object: stored, warnings })
}

/// Options of a patch; who applies says who it is, and who does not cannot force anything.
pub(super) fn read_options(call: &Call, apply: bool) -> Outcome<WriteOptions> {
    let wrong = match apply {
        true if call.query.get("fieldManager").is_empty() => {
            Some(FieldError::required("fieldManager", "is required for apply patch"))
        }
        false if call.query.has("force") => {
            Some(FieldError::forbidden("force", "may not be specified for non-apply patch"))
        }
        _ => None,
    };
    WriteOptions::parse_with(&call.query, "PatchOptions", &call.user_agent, wrong)
}

/// The 415 that clients of custom resources rely on to fall back to a merge patch.
pub(super) fn no_strategic_merge() -> Failure {
    let types = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    let message = format!("the body of the request was in an unknown format - accepted media types include: {types}");
    Failure::unsupported_media(message, false)
}

/// The 422 of a patch whose result does not fit the kind, which has a Go type unless it is a custom one.
pub(super) fn misfit(object: &Value, call: &Call, of: Option<&str>, failure: &Failure) -> Failure {
    let patch = serde_json::from_slice(&call.body).unwrap_or_default();
    let (_, why) = failure.message.split_once("cannot be handled as a ").unwrap_or(("", &failure.message));
    let why = why.split_once(": ").map_or(why, |(_, why)| why);
    let error = match call.media_type.as_str() {
        "application/strategic-merge-patch+json" => {
            let why = unconvertible(why);
            FieldError::invalid("patch", &json!(as_go_prints(&patch)), &why)
        }
        _ => {
            // Custom resources have no other order than that of names.
            let text = of.map_or_else(|| order::text(object), |of| spelled(object, &patch, of));
            FieldError::invalid("patch", &json!(text), why)
        }
    };
    let mut failure = Failure::invalid("", "", "", &[error]);
    failure.message = format!(" {}", failure.message.trim_start());
    failure
}

/// What Go says of a value that it cannot convert, where its decoder would have named the field.
fn unconvertible(why: &str) -> String {
    let Some((got, kind)) = why.strip_prefix("json: cannot unmarshal ").and_then(|why| why.rsplit_once(" of type "))
    else {
        return why.to_owned();
    };
    // Only of some a number is shown.
    let number = got.split(' ').nth(1).filter(|word| word.parse::<f64>().is_ok()).unwrap_or_default();
    let got = match got.split(' ').next().unwrap_or_default() {
        "object" => "map",
        "array" => "slice",
        "number" if number.contains(['.', 'e', 'E']) => "float64",
        "number" => "int64",
        other => other,
    };
    let is_struct = || {
        let name = kind.rsplit('.').next().unwrap_or_default();
        builtin::types().keys().any(|full| full.rsplit('.').next() == Some(name))
    };
    let word = kind == "string"
        || kind == "types.UID"
        || (kind.starts_with("v1.") && kind != "v1.ResourceList" && !is_struct());
    match kind {
        // Go has a conversion from one to the other, which is not what is meant.
        kind if word && got == "int64" => format!("cannot convert int64 to {kind}"),
        kind if kind.starts_with("int") && got == "float64" => format!("cannot convert float64 to {kind}"),
        _ if word => "unrecognized type: string".into(),
        kind if SIMPLE.contains(&kind) => format!("unrecognized type: {kind}"),
        kind if kind.starts_with("[]") => format!("cannot restore slice from {got}"),
        kind if kind.starts_with("map[") || kind == "v1.ResourceList" => format!("cannot restore map from {got}"),
        kind if kind.starts_with("v1.") => format!("cannot restore struct from: {got}"),
        _ => why.to_owned(),
    }
}

/// A decoded value in Go's `%+v`: maps by their keys, text without quotes.
fn as_go_prints(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(as_go_prints).collect())),
        Value::Object(fields) => {
            // A list whose order is told has been merged by then, and is taken out of the patch with its order.
            const ORDER: &str = "$setElementOrder/";
            let merged = |name: &str| name.starts_with(ORDER) || fields.contains_key(&format!("{ORDER}{name}"));
            let left = fields.iter().filter(|(name, _)| !merged(name));
            let pairs = left.map(|(name, value)| format!("{name}:{}", as_go_prints(value)));
            format!("map[{}]", joined(pairs.collect()))
        }
        other => other.to_string(),
    }
}

/// Applies a JSON, merge or strategic merge patch to an object of this schema.
pub(super) fn change(object: &mut Value, call: &Call, schema: &Node) -> Outcome<()> {
    let undecodable = |error: String| Failure::bad_request(format!("error decoding patch: {error}"));
    let strategic = call.media_type == "application/strategic-merge-patch+json";
    let patch: Value = serde_json::from_slice(&call.body).map_err(|error| {
        let why = go_syntax_error(&call.body, &error);
        if strategic { Failure::bad_request(why) } else { undecodable(why) }
    })?;
    let operations = call.media_type == "application/json-patch+json";
    let got = match &patch {
        Value::Array(_) if !operations => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        _ => "",
    };
    if !operations && !got.is_empty() {
        let error = format!("json: cannot unmarshal {got} into Go value of type map[string]interface {{}}");
        return Err(match strategic {
            true => Failure::bad_request(error),
            // The library that merges looks no further than for braces.
            false if got != "array" && call.query.get("fieldValidation") == "Ignore" => {
                Failure::bad_request("Invalid JSON Patch")
            }
            false => undecodable(error),
        });
    }
    match call.media_type.as_str() {
        "application/json-patch+json" => operate(object, &patch),
        "application/strategic-merge-patch+json" if patch.is_null() => Ok(()),
        "application/strategic-merge-patch+json" => {
            let kind = ["apiVersion", "kind"].map(|name| object[name].clone());
            strategic_merge(object, &patch, schema).map_err(Failure::plain)?;
            shape::wrap_numbers(object, schema);
            // What kind it is the server knows.
            [object["apiVersion"], object["kind"]] = kind;
            Ok(())
        }
        _ if patch.is_null() => Ok(()),
        _ => {
            merge_patch(object, &patch);
            Ok(())
        }
    }
}

/// Applies a list of operations.
fn operate(object: &mut Value, patch: &Value) -> Outcome<()> {
    let undecodable = |got: &str, kind: &str| {
        Failure::bad_request(format!("error decoding patch: json: cannot unmarshal {got} into Go value of type {kind}"))
    };
    let Some(operations) = patch.as_array() else {
        let got = if patch.is_object() { "object" } else { "value" };
        return Err(undecodable(got, "[]handlers.jsonPatchOp"));
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(Failure::too_large(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        )));
    }
    let odd = operations.iter().find_map(|operation| match operation {
        Value::Object(_) | Value::Null => None,
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Bool(_) => Some("bool"),
    });
    if let Some(got) = odd {
        return Err(undecodable(got, "handlers.jsonPatchOp"));
    }
    json_patch(object, operations).map_err(|_| Failure::rejected_patch())?;
    // A whole object is changed, not exchanged.
    if object.is_object() { Ok(()) } else { Err(Failure::rejected_patch()) }
}

fn apply_patch(state: &mut State, call: &Call, options: &WriteOptions) -> Outcome<Written> {
    let mut config = read_config(call, &call.resource)?;
    let live = state.read(&call.resource, call.namespace(), &call.target.name).ok();
    let base = match &live {
        Some(live) => in_version(live, &call.resource),
        None if call.target.subresource.is_empty() => zero(call),
        None => return Err(Failure::not_found(&call.resource.group, &call.resource.plural, &call.target.name)),
    };
    if let Some(error) = typed::validate(&config, &call.resource.schema).err() {
        // The real server prints the object's key, which it cannot read if the name is the trouble.
        let key = key_of(&config, &call.resource);
        return Err(Failure::plain(format!("failed to create typed patch object ({key}): {error}")));
    }
    let place = key_of(&config, &call.resource);
    // Another name is told when nothing else is wrong.
    let mut named = config.clone();
    let names = check_names(&mut named, call);
    if names.is_ok() {
        config = named;
    }
    let revision = config["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
    let write = call.write(options, true, state.now());
    let revision = revision.as_ref().and_then(Value::as_str).filter(|revision| !revision.is_empty());
    if let (Some(revision), Some(live)) = (revision, &live) {
        parse_revision(revision).map_err(Failure::plain)?;
        if live["metadata"]["resourceVersion"] != revision && revision != "0" {
            return Err(call.modified());
        }
    }
    let mut merged = managed::apply(&base, &config, &write, options.force)?;
    names?;
    merged["apiVersion"] = json!(call.resource.api_version());
    merged["kind"] = json!(call.resource.kind);
    let ignored = if call.resource.custom.is_some() { Validation::Ignore } else { options.validation };
    if call.resource.custom.is_none() {
        shape::wrap_numbers(&mut merged, &call.resource.schema);
    }
    let mut warnings = check_fields(&mut merged, Vec::new(), &call.resource, &call.resource.kind, ignored)
        .map_err(|failure| unconverted(failure, call, &place))?;
    let terms = Terms { dry_run: options.dry_run, bare: crate::kinds::is_bare(&call.resource, &merged) };
    finish(&mut merged, call);
    let before = live.clone();
    let (code, stored) = match live {
        Some(live) => (200, commit(state, call, &live, merged, options)),
        None => (201, insert(state, call, merged, terms)),
    };
    let object = stored.map_err(|failure| failure.after(&warnings))?;
    warnings.extend(crate::kinds::warnings(&call.resource, &object, before.as_deref()));
    Ok(Written { code, object, warnings })
}

/// An object as errors about its fields name it.
pub(super) fn key_of(object: &Value, resource: &Resource) -> String {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    let version = slashed(&resource.api_version());
    format!("{}/{}; {version}, Kind={}", text("namespace"), text("name"), resource.kind)
}

/// What was applied is an object of the schema, but none of the Go type.
fn unconverted(failure: Failure, call: &Call, place: &str) -> Failure {
    let why = failure.message.split_once("cannot be handled as a ").and_then(|(_, why)| why.split_once(": "));
    let Some((_, why)) = why.filter(|(_, why)| !why.starts_with("strict decoding error")) else { return failure };
    let kind = format!("{}, Kind={}", call.resource.api_version(), call.resource.kind);
    let kind = if kind.contains('/') { kind } else { format!("/{kind}") };
    let why = unconvertible(why);
    Failure::plain(format!(
        "failed to convert new object ({place}) to proper version: unable to convert unstructured object to {kind}: {why}"
    ))
}

/// `v1` is group `` version `v1`: `/v1`.
fn slashed(api_version: &str) -> String {
    if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") }
}

fn commit(state: &mut State, call: &Call, live: &Arc<Value>, merged: Value, options: &WriteOptions) -> Outcome<Value> {
    replace(state, call, live, merged, None, options.dry_run)
}

/// The configuration that is applied, which says what kind it is.
pub(super) fn read_config(call: &Call, resource: &Resource) -> Outcome<Value> {
    // JSON is tried first: it is what clients send, and its strings need no guessing.
    let config = match parse_json(&call.body) {
        Ok(parsed) => parsed.value,
        Err(_) => {
            parse_yaml(&call.body).map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))?
        }
    };
    let got = match &config {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        _ => "",
    };
    if !got.is_empty() {
        let decoding = "error decoding YAML: error unmarshaling JSON: while decoding JSON: json";
        let target = "Go value of type map[string]interface {}";
        return Err(Failure::bad_request(format!("{decoding}: cannot unmarshal {got} into {target}")));
    }
    let text = |name: &str| config[name].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version.matches('/').count() > 1 {
        return Err(Failure::bad_request("invalid object type: /, Kind="));
    }
    if version.is_empty() || kind.is_empty() {
        let version = if version.is_empty() { "/".into() } else { slashed(version) };
        return Err(Failure::bad_request(format!("invalid object type: {version}, Kind={kind}")));
    }
    if version != resource.api_version() || kind != resource.kind {
        return Err(Failure::bad_request(format!("invalid object type: {}, Kind={kind}", slashed(version))));
    }
    if config["metadata"].get("managedFields").is_some_and(|managed| !managed.is_null()) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    Ok(config)
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
