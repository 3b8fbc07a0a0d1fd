//! PUT, and what every change of an existing object goes through.

use std::sync::Arc;

use serde_json::{Value, json};

use super::create::{Terms, dedup_owners, finish, insert, zero};
use super::{Call, Written, in_version, meta, parse_revision, same};
use crate::admission;
use crate::body::read_object;
use crate::failure::{Failure, FieldError, Outcome};
use crate::fields::managed;
use crate::kinds;
use crate::request::WriteOptions;
use crate::state::State;

/// Replaces an object, or its status.
pub fn update(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions", &call.user_agent)?;
    let decoded = read_object(&call.body, &call.media_type, &call.resource, &call.resource.kind, options.validation)?;
    let (mut object, mut warnings) = (decoded.object, decoded.warnings);
    warnings.extend(dedup_owners(&mut object));
    let written = update_to(state, call, object, &options).map_err(|failure| failure.after(&warnings))?;
    warnings.extend(written.warnings);
    Ok(Written { warnings, ..written })
}

fn update_to(state: &mut State, call: &Call, mut object: Value, options: &WriteOptions) -> Outcome<Written> {
    check_named(&object, call)?;
    check_names(&mut object, call)?;
    let terms = Terms { dry_run: options.dry_run, bare: kinds::is_bare(&call.resource, &object) };
    finish(&mut object, call);
    let live = match state.read(&call.resource, call.namespace(), &call.target.name) {
        Ok(live) => live,
        Err(_) if call.target.subresource.is_empty() && kinds::may_create_on_update(&call.resource) => {
            managed::update(&zero(call), &mut object, &call.write(options, false, state.now()), true);
            let stored = insert(state, call, object, terms)?;
            let warnings = kinds::warnings(&call.resource, &stored, None);
            return Ok(Written { code: 201, object: stored, warnings });
        }
        Err(missing) => return Err(missing),
    };
    let stored = replace(state, call, &live, object, Some(options), options.dry_run)?;
    let warnings = kinds::warnings(&call.resource, &stored, Some(&live));
    Ok(Written { code: 200, object: stored, warnings })
}

/// What takes the place of an object says whose it is.
pub fn check_named(object: &Value, call: &Call) -> Outcome<()> {
    if !meta(object, "name").is_empty() {
        return Ok(());
    }
    let name = &call.target.name;
    let message = format!("the name of the object ({name} based on URL) was undeterminable: name must be provided");
    Err(Failure::bad_request(message))
}

/// Name and namespace of the body must be those of the path.
pub fn check_names(object: &mut Value, call: &Call) -> Outcome<()> {
    if !matches!(object["metadata"], Value::Object(_) | Value::Null) {
        return Err(Failure::bad_request("metadata must be an object"));
    }
    let name = meta(object, "name");
    if name.is_empty() {
        object["metadata"]["name"] = json!(call.target.name);
    } else if name != call.target.name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.target.name
        )));
    }
    let namespace = meta(object, "namespace").to_owned();
    if call.resource.namespaced {
        if !namespace.is_empty() && namespace != call.target.namespace {
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Failure::bad_request(message));
        }
        object["metadata"]["namespace"] = json!(call.target.namespace);
    } else if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    Ok(())
}

/// Commits a new form of `live`. With options the writer is booked as an updater; an apply has booked itself.
pub fn replace(
    state: &mut State,
    call: &Call,
    live: &Arc<Value>,
    mut object: Value,
    booked: Option<&WriteOptions>,
    dry_run: bool,
) -> Outcome<Value> {
    let resource = &call.resource;
    let current = in_version(live, resource);
    check_preconditions(call, &current, &object, call.media_type.contains("patch"))?;
    let fixed = kinds::rounds::deletion_errors(resource, &call.target.subresource, &object, &current);
    restore(&current, &mut object);
    if let Some(options) = booked {
        let patched = call.media_type.contains("patch");
        let seen = kinds::seen_by_updates(resource, &current).filter(|_| !patched);
        managed::update(
            seen.as_ref().unwrap_or(&current),
            &mut object,
            &call.write(options, false, state.now()),
            false,
        );
    }
    kinds::prepare_update(resource, &call.target.subresource, &mut object, &current, &state.now());
    admission::update(state, call, &object, &current)?;
    if call.target.subresource.is_empty() {
        kinds::allocate(state, resource, &mut object, Some(&current), dry_run)?;
    }
    let errors = [fixed, kinds::validate(resource, &call.target.subresource, &object, Some(&current))].concat();
    if !errors.is_empty() {
        return Err(Failure::invalid(kinds::group_in_errors(resource), &resource.kind, &call.target.name, &errors));
    }
    if call.resource.plural != "pods" {
        admission::judge(state, call, &object)?;
    }
    // A status is no wish, not even with the annotations that controllers write beside it.
    if call.target.subresource != "status" && kinds::raises_generation(resource, &current, &object) {
        let generation = current["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        object["metadata"]["generation"] = json!(generation);
    }
    if resource.custom.is_none() {
        crate::schema::shape::settle(&mut object, &resource.schema);
    }
    if same(&current, &object) {
        return Ok(current);
    }
    object["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    if dry_run {
        return Ok(object);
    }
    let key = State::key(resource, call.namespace(), &call.target.name);
    if ready_to_go(&object) {
        // Nothing holds it any longer: this write is the delete.
        state.remove(&key)?;
        return Ok(object);
    }
    let stored = state.put(key, kinds::to_storage(object, resource))?;
    Ok(in_version(&stored, resource))
}

/// Whether a terminating object is held by nothing.
pub fn ready_to_go(object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata["deletionTimestamp"].is_string()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
        && object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty)
}

fn check_preconditions(call: &Call, current: &Value, object: &Value, patch: bool) -> Outcome<()> {
    let (uid, own) = (meta(object, "uid"), meta(current, "uid"));
    let other = !uid.is_empty() && uid != own;
    let revision = meta(object, "resourceVersion");
    // Of a replacement the uid is looked at first.
    if !revision.is_empty() && (patch || !other) {
        parse_revision(revision).map_err(Failure::plain)?;
        if revision != meta(current, "resourceVersion") && revision != "0" {
            return Err(call.modified());
        }
    }
    if !other {
        let resource = &call.resource;
        if matches!(revision, "" | "0") && kinds::requires_revision(resource) {
            let error = FieldError::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            return Err(Failure::invalid(&resource.group, &resource.plural, &call.target.name, &[error]));
        }
        return Ok(());
    }
    let resource = &call.resource;
    if patch {
        // The real server validates metadata twice, and says so twice.
        let error = FieldError::invalid("metadata.uid", &json!(uid), "field is immutable");
        let errors = [error.clone(), error];
        return Err(Failure::invalid(&resource.group, &resource.kind, &call.target.name, &errors));
    }
    Err(unmet(call, "UID", uid, own))
}

/// The object must be the one that was meant, if the request says which: by uid, and by resourceVersion.
///
/// # Errors
/// 409 in the words of the real server's storage.
pub(super) fn same_identity(call: &Call, wanted: &Value, live: &Value) -> Outcome<()> {
    for (name, shown) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let (wanted, own) = (meta(wanted, name), meta(live, name));
        if !wanted.is_empty() && wanted != own {
            return Err(unmet(call, shown, wanted, own));
        }
    }
    Ok(())
}

fn unmet(call: &Call, what: &str, wanted: &str, own: &str) -> Failure {
    let resource = &call.resource;
    // Who only tries does not get to the registry.
    let root = if call.query.get("dryRun").is_empty() { "/registry" } else { "" };
    let place = kinds::place(resource);
    let key = match call.namespace() {
        "" => format!("{root}/{place}/{}", call.target.name),
        namespace => format!("{root}/{place}/{namespace}/{}", call.target.name),
    };
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {own}"
    );
    Failure::conflict(&resource.group, &resource.plural, &call.target.name, &why)
}

/// What only the server sets stays as it is.
fn restore(current: &Value, object: &mut Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for name in
        ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"]
    {
        match current["metadata"].get(name) {
            Some(value) => metadata.insert(name.into(), value.clone()),
            None => metadata.remove(name),
        };
    }
}

/// `PUT namespaces/NAME/finalize`: only the finalizers of the spec change; the last one gone ends the namespace.
pub fn finalize(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions", &call.user_agent)?;
    let decoded = read_object(&call.body, &call.media_type, &call.resource, &call.resource.kind, options.validation)?;
    let mut wanted = decoded.object;
    check_named(&wanted, call)?;
    check_names(&mut wanted, call)?;
    let live = state.read(&call.resource, call.namespace(), &call.target.name)?;
    check_preconditions(call, &live, &wanted, false)?;
    finish(&mut wanted, call);
    restore(&live, &mut wanted);
    let mut object = wanted;
    object["status"] = live["status"].clone();
    if object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
        object["spec"] = json!({});
    }
    managed::update(&live, &mut object, &call.write(&options, false, state.now()), false);
    let key = State::key(&call.resource, call.namespace(), &call.target.name);
    if options.dry_run {
        return Ok(Written { code: 200, object, warnings: decoded.warnings });
    }
    if ready_to_go(&object) {
        state.remove(&key)?;
        return Ok(Written { code: 200, object, warnings: decoded.warnings });
    }
    let stored = state.put(key, object)?;
    Ok(Written { code: 200, object: Value::clone(&stored), warnings: decoded.warnings })
}
