//! DELETE of one object and of a collection.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::read::{list_body, page};
use super::update::ready_to_go;
use super::{Call, Written, in_version, meta};
use crate::admission;
use crate::body::{json_error, parse_json, parse_yaml, protobuf, type_meta_error, unsupported_body};
use crate::failure::{Failure, FieldError, Outcome};
use crate::kinds::{self, definition};
use crate::request::Query;
use crate::schema::builtin::types;
use crate::schema::decode::decode;
use crate::state::State;
use crate::store::Key;

const OPTIONS: &str = "DeleteOptions";

struct Options {
    policy: Option<String>,
    orphan: Option<bool>,
    grace: Option<i64>,
    uid: String,
    revision: String,
    dry_run: bool,
}

/// Deletes the object, or marks it if something holds it.
pub fn delete(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = read_options(call)?;
    let unsaid = options.policy.is_none() && options.orphan.is_none();
    let warning = kinds::delete_warning(&call.resource).filter(|_| unsaid);
    let object = delete_by(state, call, &options)?;
    Ok(Written { code: 200, object, warnings: warning.map(str::to_owned).into_iter().collect() })
}

/// Deletes with the DeleteOptions of an eviction.
pub fn delete_with(state: &mut State, call: &Call, options: &Value) -> Outcome<Value> {
    delete_by(state, call, &options_of(call, options)?)
}

/// Whether the DeleteOptions of an eviction are well-formed and hold for the object.
pub fn check_options(call: &Call, options: &Value, live: &Value) -> Outcome<()> {
    check_preconditions(call, &options_of(call, options)?, live)
}

fn delete_by(state: &mut State, call: &Call, options: &Options) -> Outcome<Value> {
    let live = state.read(&call.resource, call.namespace(), &call.target.name)?;
    kinds::admit_delete(&call.resource, &call.target.name)?;
    admission::delete(state, call, &live)?;
    check_preconditions(call, options, &live)?;
    let (object, gone) = mark_or_remove(state, call, &live, options)?;
    if !gone || kinds::delete_answers_object(&call.resource) {
        return Ok(in_version(&object, &call.resource));
    }
    let mut details = Map::new();
    details.insert("name".into(), json!(call.target.name));
    if !call.resource.group.is_empty() {
        details.insert("group".into(), json!(call.resource.group));
    }
    details.insert("kind".into(), json!(call.resource.plural));
    details.insert("uid".into(), object["metadata"]["uid"].clone());
    Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}))
}

/// Deletes everything selected; answers the list of what it was.
pub fn delete_collection(state: &mut State, call: &Call) -> Outcome<Value> {
    let page = page(state, call)?;
    let options = read_options(call)?;
    let mut answers = Vec::new();
    for live in page.items.iter().map(|stored| state.store.tree(stored)).collect::<Vec<_>>() {
        check_preconditions(call, &options, &live)?;
        mark_or_remove(state, call, &live, &options)?;
        // All is listed as it was, also what something holds.
        answers.push(in_version(&live, &call.resource));
    }
    Ok(list_body(&call.resource, answers, page.revision, page.more, page.remaining))
}

fn read_options(call: &Call) -> Outcome<Options> {
    let mut body = match (&call.body[..], call.media_type.as_str()) {
        ([], _) => json!({}),
        (bytes, "application/yaml") => parse_yaml(bytes).map_err(Failure::plain)?,
        (bytes, protobuf::MEDIA_TYPE) => protobuf::decode(bytes).map_err(Failure::plain)?,
        (bytes, "" | "application/json") => {
            parse_json(bytes).map_err(|error| Failure::plain(json_error(&error)))?.value
        }
        _ => return Err(unsupported_body()),
    };
    if let Some(error) = type_meta_error(&body) {
        return Err(Failure::plain(json_error(&error)));
    }
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    if !matches!(text("kind"), "" | OPTIONS) {
        let (kind, version) = (text("kind"), text("apiVersion"));
        return Err(Failure::plain(format!(
            "no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:110\""
        )));
    }
    if let Some(node) = types().get("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions") {
        decode(&mut body, node).map_err(Failure::plain)?;
    }
    options_of(call, &body)
}

fn options_of(call: &Call, body: &Value) -> Outcome<Options> {
    // Options in the body are all there are.
    let query = if call.body.is_empty() { call.query.clone() } else { Query::default() };
    let dry = query.all("dryRun");
    if dry.iter().any(|value| *value != "All") {
        return Err(Failure::invalid_options(OPTIONS, FieldError::not_supported("dryRun", &json!(dry), &["All"])));
    }
    let dry = !dry.is_empty();
    let query_or = |name: &str| match query.get(name) {
        "" => body[name].as_str().map(str::to_owned),
        text => Some(text.to_owned()),
    };
    let policy = query_or("propagationPolicy");
    let orphan = match query.has("orphanDependents") {
        true => Some(query.flag("orphanDependents")),
        false => body["orphanDependents"].as_bool(),
    };
    let refuse = |error| Err(Failure::invalid_options("DeleteOptions", error));
    if let Some(policy) = &policy {
        if orphan.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            return refuse(FieldError::invalid("propagationPolicy", &json!(policy), detail));
        }
        if !["Foreground", "Background", "Orphan"].contains(&policy.as_str()) {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            return refuse(FieldError::not_supported("propagationPolicy", &json!(policy), &supported));
        }
    }
    let grace = query.number("gracePeriodSeconds")?.or(body["gracePeriodSeconds"].as_i64());
    let precondition = |name: &str| body["preconditions"][name].as_str().unwrap_or_default().to_owned();
    let body_dry = body["dryRun"].as_array().map(Vec::as_slice).unwrap_or_default();
    if body_dry.iter().any(|value| value != "All") {
        return refuse(FieldError::not_supported("dryRun", &json!(body_dry), &["All"]));
    }
    Ok(Options {
        policy,
        orphan,
        grace,
        uid: precondition("uid"),
        revision: precondition("resourceVersion"),
        dry_run: dry || !body_dry.is_empty(),
    })
}

fn check_preconditions(call: &Call, options: &Options, live: &Value) -> Outcome<()> {
    let refuse = |what: &str, asked: &str, found: &str, maybe: &str| {
        let why = format!(
            "the {what} in the precondition ({asked}) does not match the {what} in record ({found}). The object might have been {maybe}"
        );
        Err(Failure::conflict(&call.resource.group, &call.resource.kind, meta(live, "name"), &why))
    };
    let (uid, revision) = (meta(live, "uid"), meta(live, "resourceVersion"));
    if !options.uid.is_empty() && options.uid != uid {
        return refuse("UID", &options.uid, uid, "deleted and then recreated");
    }
    if !options.revision.is_empty() && options.revision != revision {
        return refuse("ResourceVersion", &options.revision, revision, "modified");
    }
    Ok(())
}

/// The object as it is afterwards, and whether it is gone.
fn mark_or_remove(state: &mut State, call: &Call, live: &Arc<Value>, options: &Options) -> Outcome<(Value, bool)> {
    let resource = &call.resource;
    if resource.storage.as_ref() == definition::STORAGE && !live["metadata"]["deletionTimestamp"].is_string() {
        return end_definition(state, live, options.dry_run).map(|object| (object, false));
    }
    let key = State::key(resource, meta(live, "namespace"), meta(live, "name"));
    let mut object = Value::clone(live);
    let finalizers = finalizers_after(&object, options, kinds::orphans(resource));
    let Some(metadata) = object["metadata"].as_object_mut() else { return Ok((object, false)) };
    if finalizers.is_empty() {
        metadata.remove("finalizers")
    } else {
        metadata.insert("finalizers".into(), json!(finalizers))
    };
    let already = live["metadata"]["deletionTimestamp"].is_string();
    let graceful = kinds::is_graceful(resource);
    if !already {
        let grace = kinds::grace(resource, live, options.grace);
        let end = later(state.clock.now(), grace);
        object["metadata"]["deletionTimestamp"] = json!(crate::clock::seconds(end));
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        if let Some(generation) = object["metadata"]["generation"].as_i64() {
            object["metadata"]["generation"] = json!(generation + 1);
        }
        kinds::on_terminating(resource, &mut object);
    } else if let (true, Some(asked), Some(old)) =
        (graceful, options.grace, live["metadata"]["deletionGracePeriodSeconds"].as_i64())
        && let asked = kinds::grace(resource, live, Some(asked))
        && asked < old
    {
        // Only a shorter time may be asked for, counted from when the end began.
        let end = meta(live, "deletionTimestamp").parse::<jiff::Timestamp>().unwrap_or_else(|_| state.clock.now());
        object["metadata"]["deletionTimestamp"] = json!(crate::clock::seconds(later(end, asked - old)));
        object["metadata"]["deletionGracePeriodSeconds"] = json!(asked);
    }
    if ready_to_go(&object) {
        if options.dry_run {
            return Ok((if graceful { object } else { Value::clone(live) }, true));
        }
        // A graceful end is told first, even if it is now.
        if graceful && object != **live {
            state.put(key.clone(), object)?;
        }
        return Ok((state.remove(&key)?.map_or(Value::Null, |gone| Value::clone(&gone)), true));
    }
    if object == **live || options.dry_run {
        return Ok((object, false));
    }
    Ok((Value::clone(&*state.put(key, object)?), false))
}

fn later(time: jiff::Timestamp, seconds: i64) -> jiff::Timestamp {
    time.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(time)
}

/// A definition is marked, and goes with its last instance.
fn end_definition(state: &mut State, live: &Value, dry_run: bool) -> Outcome<Value> {
    let mut object = definition::end(live, &state.now());
    if !dry_run {
        let name = meta(live, "name").to_owned();
        let key = Key { resource: Arc::from(definition::STORAGE), namespace: String::new(), name };
        let revision = state.store.revision() + 1;
        state.put(key, object.clone())?;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
    }
    Ok(object)
}

/// Deletes every object of a resource; what something holds is marked.
pub fn end_all(state: &mut State, storage: &Arc<str>) -> Outcome<()> {
    let all: Vec<(Key, Arc<Value>)> =
        state.store.list(storage, "").map(|(key, object)| (Key::clone(key), object)).collect();
    for (key, live) in all {
        if live["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            state.remove(&key)?;
        } else if !live["metadata"]["deletionTimestamp"].is_string() {
            let mut object = Value::clone(&live);
            object["metadata"]["deletionTimestamp"] = json!(state.now());
            object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = json!(generation);
            state.put(key, object)?;
        }
    }
    Ok(())
}

/// `orphans` is what the kind does if nothing is said.
fn finalizers_after(object: &Value, options: &Options, orphans: bool) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    let mut list: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
    let wanted = match (options.policy.as_deref(), options.orphan) {
        (Some("Foreground"), _) => Some("foregroundDeletion"),
        (Some("Orphan"), _) | (None, Some(true)) => Some("orphan"),
        (None, None) if orphans && !list.iter().any(|name| name == "foregroundDeletion") => Some("orphan"),
        (None, None) => return list,
        _ => None,
    };
    list.retain(|name| name != "orphan" && name != "foregroundDeletion");
    list.extend(wanted.map(str::to_owned));
    list
}
