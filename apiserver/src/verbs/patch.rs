//! PATCH: the four types, each ending in the same commit as a PUT.

use std::sync::Arc;

use serde_json::{Value, json};

use super::create::{Terms, finish, insert, zero};
use super::spelled::spelled;
use super::update::{check_named, check_names, replace};
use super::{Call, Written, in_version};
use crate::body::order;
use crate::body::{check_fields, check_kind, go_syntax_error, parse_json, parse_yaml};
use crate::failure::{Failure, FieldError, Outcome};
use crate::fields::{managed, typed};
use crate::patch::strategic::strategic_merge;
use crate::patch::{json_patch, merge_patch};
use crate::request::{Validation, WriteOptions};
use crate::schema::{Node, shape};
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
    let options = WriteOptions::parse(&call.query, "PatchOptions", &call.user_agent)?;
    if call.query.has("force") && !apply {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(Failure::invalid_options("PatchOptions", error));
    }
    if apply {
        return apply_patch(state, call, &options);
    }
    let live = state.read(&call.resource, call.namespace(), &call.target.name)?;
    let mut object = in_version(&live, &call.resource);
    change(&mut object, call, &call.resource.schema)?;
    let before_decoding = object.clone();
    let of = (!custom).then(|| order::type_of(&call.resource.api_version(), &call.resource.kind));
    check_kind(&mut object, &call.resource, &call.resource.kind).map_err(|failure| match call.resource.custom {
        None => misfit(&before_decoding, call, of, &failure),
        Some(_) => failure,
    })?;
    let mut warnings = check_fields(&mut object, Vec::new(), &call.resource, &call.resource.kind, options.validation)
        .map_err(|failure| misfit(&before_decoding, call, of, &failure))?;
    let named = check_named(&object, call).and_then(|()| check_names(&mut object, call));
    let changed = named.and_then(|()| {
        finish(&mut object, call);
        replace(state, call, &live, object, Some(&options), options.dry_run)
    });
    let stored = changed.map_err(|failure| failure.after(&warnings))?;
    warnings.extend(crate::kinds::warnings(&call.resource, &stored, Some(&live)));
    Ok(Written { code: 200, object: stored, warnings })
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
    let got = match got.split(' ').next().unwrap_or_default() {
        "object" => "map",
        "array" => "slice",
        "number" => "int64",
        other => other,
    };
    match kind {
        kind if SIMPLE.contains(&kind) => format!("unrecognized type: {kind}"),
        kind if kind.starts_with("[]") => format!("cannot restore slice from {got}"),
        kind if kind.starts_with("map[") => format!("cannot restore map from {got}"),
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
        return Err(if strategic { Failure::bad_request(error) } else { undecodable(error) });
    }
    match call.media_type.as_str() {
        "application/json-patch+json" => {
            let Some(operations) = patch.as_array() else {
                let got = if patch.is_object() { "object" } else { "value" };
                return Err(undecodable(format!(
                    "json: cannot unmarshal {got} into Go value of type []handlers.jsonPatchOp"
                )));
            };
            if operations.len() > OPERATIONS_MAX {
                return Err(Failure::too_large(format!(
                    "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
                    operations.len()
                )));
            }
            json_patch(object, operations).map_err(|_| Failure::rejected_patch())?;
            // A whole object is changed, not exchanged.
            if object.is_object() { Ok(()) } else { Err(Failure::rejected_patch()) }
        }
        "application/strategic-merge-patch+json" if patch.is_null() => Ok(()),
        "application/strategic-merge-patch+json" => {
            strategic_merge(object, &patch, schema).map_err(Failure::plain)?;
            shape::wrap_numbers(object, schema);
            Ok(())
        }
        _ if patch.is_null() => Ok(()),
        _ => {
            merge_patch(object, &patch);
            Ok(())
        }
    }
}

fn apply_patch(state: &mut State, call: &Call, options: &WriteOptions) -> Outcome<Written> {
    if !options.explicit_manager {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(Failure::invalid_options("PatchOptions", error));
    }
    let mut config = read_config(call)?;
    let live = state.read(&call.resource, call.namespace(), &call.target.name).ok();
    let base = match &live {
        Some(live) => in_version(live, &call.resource),
        None if call.target.subresource.is_empty() => zero(call),
        None => return Err(Failure::not_found(&call.resource.group, &call.resource.plural, &call.target.name)),
    };
    if let Some(error) = typed::validate(&config, &call.resource.schema).err() {
        // The real server prints the object's key, which it cannot read if the name is the trouble.
        let text = |name: &str| config["metadata"][name].as_str().unwrap_or_default();
        return Err(Failure::plain(format!(
            "failed to create typed patch object ({}/{}; {}, Kind={}): {error}",
            text("namespace"),
            text("name"),
            config["apiVersion"].as_str().map(slashed).unwrap_or_default(),
            call.resource.kind,
        )));
    }
    check_names(&mut config, call)?;
    let revision = config["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
    let write = call.write(options, true, state.now());
    if let (Some(revision), Some(live)) = (revision.as_ref().and_then(Value::as_str), &live)
        && live["metadata"]["resourceVersion"] != revision
    {
        return Err(call.modified());
    }
    let mut merged = managed::apply(&base, &config, &write, options.force)?;
    merged["apiVersion"] = json!(call.resource.api_version());
    merged["kind"] = json!(call.resource.kind);
    let ignored = if call.resource.custom.is_some() { Validation::Ignore } else { options.validation };
    let mut warnings = check_fields(&mut merged, Vec::new(), &call.resource, &call.resource.kind, ignored)?;
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

/// `v1` is group `` version `v1`: `/v1`.
fn slashed(api_version: &str) -> String {
    if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") }
}

fn commit(state: &mut State, call: &Call, live: &Arc<Value>, merged: Value, options: &WriteOptions) -> Outcome<Value> {
    replace(state, call, live, merged, None, options.dry_run)
}

fn read_config(call: &Call) -> Outcome<Value> {
    // JSON is tried first: it is what clients send, and its strings need no guessing.
    let config = match parse_json(&call.body) {
        Ok(parsed) => parsed.value,
        Err(_) => {
            parse_yaml(&call.body).map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))?
        }
    };
    if !config.is_object() {
        return Err(Failure::bad_request("error decoding YAML: the configuration is not an object"));
    }
    let text = |name: &str| config[name].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version.is_empty() || kind.is_empty() {
        let version = if version.is_empty() { "/".into() } else { slashed(version) };
        return Err(Failure::bad_request(format!("invalid object type: {version}, Kind={kind}")));
    }
    if version != call.resource.api_version() || kind != call.resource.kind {
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
