//! POST, and the creating half of apply and of updates that may create.

use std::sync::Arc;

use serde_json::{Value, json};

use super::update::same_identity;
use super::{Call, Written, in_version, meta};
use crate::admission;
use crate::body::read_object;
use crate::failure::{Failure, FieldError, Outcome};
use crate::fields::managed;
use crate::kinds;
use crate::request::WriteOptions;
use crate::schema::shape;
use crate::state::State;

/// Names that may be tried for `generateName`.
const NAME_ATTEMPTS: usize = 8;

/// What an insertion must know beside the object.
#[derive(Clone, Copy)]
pub struct Terms {
    /// Whether nothing is stored.
    pub dry_run: bool,
    /// See [`kinds::is_bare`].
    pub bare: bool,
}

/// Creates the object in the body.
pub fn create(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = WriteOptions::parse(&call.query, "CreateOptions", &call.user_agent)?;
    let decoded = read_object(&call.body, &call.media_type, &call.resource, &call.resource.kind, options.validation)?;
    let mut object = decoded.object;
    let mut warnings = decoded.warnings;
    warnings.extend(dedup_owners(&mut object));
    let made = (|| {
        adopt_namespace(&mut object, call)?;
        let terms = Terms { dry_run: options.dry_run, bare: kinds::is_bare(&call.resource, &object) };
        wipe(&mut object);
        finish(&mut object, call);
        let base = zero(call);
        managed::update(&base, &mut object, &call.write(&options, false, state.now()), true);
        insert(state, call, object, terms)
    })();
    let stored = made.map_err(|failure| failure.after(&warnings))?;
    warnings.extend(kinds::warnings(&call.resource, &stored, None));
    Ok(Written { code: 201, object: stored, warnings })
}

/// An owner that is named several times is kept once, with a warning.
pub fn dedup_owners(object: &mut Value) -> Option<String> {
    let owners = object["metadata"].get_mut("ownerReferences")?.as_array_mut()?;
    let (mut kept, mut twice): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for owner in owners.drain(..) {
        match kept.contains(&owner) {
            false => kept.push(owner),
            true => twice.push(owner["uid"].as_str().unwrap_or_default().to_owned()),
        }
    }
    *owners = kept;
    twice.sort();
    twice.dedup();
    (!twice.is_empty()).then(|| {
        let what = ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed";
        format!("{what}: {}", twice.join(", "))
    })
}

/// What only the server says of a new object.
fn wipe(object: &mut Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for name in ["creationTimestamp", "uid", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(name);
    }
}

/// What the real server's types hold before anybody sets anything.
pub fn zero(call: &Call) -> Value {
    let mut base = json!({"metadata": {}});
    if call.resource.custom.is_none() {
        shape::fill_zero(&mut base, &call.resource.schema);
    }
    base
}

/// Defaults, and the form in which the kind is held.
pub fn finish(object: &mut Value, call: &Call) {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match call.resource.custom {
        None => {
            shape::normalise(object, &call.resource.schema);
            shape::default(object, &call.resource.schema);
        }
        Some(_) => {
            go_numbers(object);
            // What is empty is not there; an empty list of owners is no wish to forget them.
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.retain(|_, value| match value {
                    Value::Array(list) => !list.is_empty(),
                    Value::Object(map) => !map.is_empty(),
                    _ => true,
                });
            }
            shape::drop_nulls(object, &call.resource.schema);
            shape::default(object, &call.resource.schema);
        }
    }
    kinds::default(&call.resource, object);
}

/// Whole numbers are printed without a point, however they were written.
fn go_numbers(value: &mut Value) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Object(map) => map.values_mut().for_each(go_numbers),
        Value::Array(list) => list.iter_mut().for_each(go_numbers),
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < EXACT) {
                *value = json!(whole as i64);
            }
        }
        _ => {}
    }
}

fn adopt_namespace(object: &mut Value, call: &Call) -> Outcome<()> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let own = meta(object, "namespace");
    if call.resource.namespaced {
        if !own.is_empty() && own != call.target.namespace {
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Failure::bad_request(message));
        }
        object["metadata"]["namespace"] = json!(call.target.namespace);
    } else if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    Ok(())
}

/// Admits, identifies, validates and stores a new object; `call.target.name` is not looked at.
pub fn insert(state: &mut State, call: &Call, mut object: Value, terms: Terms) -> Outcome<Value> {
    let Terms { dry_run, bare } = terms;
    let resource = &call.resource;
    admit_namespace(state, call, &object)?;
    if resource.custom.as_ref().is_some_and(|custom| custom.terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Failure::forbidden(&resource.group, &resource.plural, meta(&object, "name"), why));
    }
    let revision = meta(&object, "resourceVersion").to_owned();
    let named = !meta(&object, "name").is_empty();
    admission::create(state, call, &mut object)?;
    identify(state, call, &mut object);
    kinds::prepare_create(resource, &mut object, bare);
    kinds::allocate(state, resource, &mut object, None, dry_run)?;
    let errors = kinds::validate(resource, "", &object, None);
    if !errors.is_empty() {
        let group = kinds::group_in_errors(resource);
        return Err(Failure::invalid(group, &resource.kind, meta(&object, "name"), &errors));
    }
    // Whatever comes of it now, it has been warned of.
    let warnings = kinds::warnings(resource, &object, None);
    keep(state, call, object, (named, &revision), dry_run).map_err(|failure| failure.after(&warnings))
}

/// Stores a valid object that has an identity, if it may be and its name is free; the request may have named it, and may
/// have brought a resourceVersion, which it may not.
fn keep(
    state: &mut State,
    call: &Call,
    mut object: Value,
    (named, revision): (bool, &str),
    dry_run: bool,
) -> Outcome<Value> {
    let resource = &call.resource;
    admission::judge(state, call, &object)?;
    let prefixed = !meta(&object, "generateName").is_empty() && call.target.name.is_empty();
    let generated = prefixed && !named;
    for attempt in 1.. {
        let key = State::key(resource, meta(&object, "namespace"), meta(&object, "name"));
        let Some(existing) = state.store.get(&key) else { break };
        if !generated || attempt == NAME_ATTEMPTS {
            let terminating = existing["metadata"]["deletionTimestamp"].is_string();
            let name = meta(&object, "name");
            if prefixed {
                return Err(Failure::no_name(&resource.group, &resource.plural, name));
            }
            return Err(Failure::already_exists(&resource.group, &resource.plural, name, terminating));
        }
        object["metadata"]["name"] = json!(state.chance.name(meta(&object, "generateName")));
    }
    if !matches!(revision, "" | "0") {
        return Err(Failure::plain("resourceVersion should not be set on objects to be created"));
    }
    let key = State::key(resource, meta(&object, "namespace"), meta(&object, "name"));
    let object = kinds::to_storage(object, resource);
    if dry_run {
        return Ok(in_version(&object, resource));
    }
    let stored = state.put(key, object)?;
    Ok(in_version(&stored, resource))
}

/// The namespace in which something is made.
pub fn namespace_of(state: &State, call: &Call) -> Outcome<Arc<Value>> {
    let name = &call.target.namespace;
    state.namespace(name).ok_or_else(|| Failure::not_found("", "namespaces", name))
}

fn admit_namespace(state: &State, call: &Call, object: &Value) -> Outcome<()> {
    if !call.resource.namespaced {
        return Ok(());
    }
    let name = &call.target.namespace;
    let namespace = namespace_of(state, call)?;
    if namespace["metadata"]["deletionTimestamp"].is_string() {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let failure = Failure::forbidden(&call.resource.group, &call.resource.plural, meta(object, "name"), &why);
        let text = format!("namespace {name} is being terminated");
        return Err(failure.with_cause("NamespaceTerminating", &text, "metadata.namespace"));
    }
    Ok(())
}

fn identify(state: &mut State, call: &Call, object: &mut Value) {
    let now = state.now();
    let uid = state.chance.uid();
    let prefix = meta(object, "generateName").to_owned();
    if meta(object, "name").is_empty() && !prefix.is_empty() {
        object["metadata"]["name"] = json!(state.chance.name(&prefix));
    }
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for name in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(name);
    }
    metadata.insert("uid".into(), json!(uid));
    metadata.insert("creationTimestamp".into(), json!(now));
    if kinds::has_generation(&call.resource) {
        metadata.insert("generation".into(), json!(1));
    }
}

/// `POST pods/NAME/binding` and `POST bindings`: the scheduler's word on where the pod runs; it is given once.
pub fn bind(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = WriteOptions::parse(&call.query, "CreateOptions", &call.user_agent)?;
    let decoded = read_object(&call.body, &call.media_type, &call.resource, "Binding", options.validation)?;
    let node = decoded.object["target"]["name"].as_str().unwrap_or_default();
    let pods = state.registry.find("", "v1", "pods").cloned().ok_or_else(Failure::no_such_resource)?;
    let name = match call.target.name.as_str() {
        "" => meta(&decoded.object, "name"),
        name => name,
    };
    let mut wrong = Vec::new();
    let kind = &decoded.object["target"]["kind"];
    if !matches!(kind.as_str(), None | Some("" | "Node")) {
        wrong.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        wrong.push(FieldError::required("target.name", ""));
    }
    let live = match &wrong[..] {
        [] => state.read(&pods, call.namespace(), name)?,
        [one] => return Err(Failure::plain(one.text())),
        all => {
            let texts: Vec<String> = all.iter().map(FieldError::text).collect();
            return Err(Failure::plain(format!("[{}]", texts.join(", "))));
        }
    };
    same_identity(call, &decoded.object, &live)?;
    if live["metadata"]["deletionTimestamp"].is_string() {
        let why = format!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(Failure::conflict("", "pods/binding", name, &why));
    }
    if let Some(bound) = live["spec"]["nodeName"].as_str().filter(|bound| !bound.is_empty()) {
        let why = format!("pod {name} is already assigned to node \"{bound}\"");
        return Err(Failure::conflict("", "pods/binding", name, &why));
    }
    if kinds::gates::is_gated(&live["spec"]) {
        let why = format!("pod {name} has non-empty .spec.schedulingGates");
        return Err(Failure::conflict("", "pods/binding", name, &why));
    }
    let mut object = Value::clone(&live);
    object["spec"]["nodeName"] = json!(node);
    if let Some(annotations) = decoded.object["metadata"]["annotations"].as_object().filter(|given| !given.is_empty()) {
        if !object["metadata"]["annotations"].is_object() {
            object["metadata"]["annotations"] = json!({});
        }
        for (name, value) in annotations {
            object["metadata"]["annotations"][name] = value.clone();
        }
    }
    let scheduled =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": state.now()});
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    match conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
    object["status"]["conditions"] = json!(conditions);
    if !options.dry_run {
        state.put(State::key(&pods, call.namespace(), name), object)?;
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Written { code: 201, object: status, warnings: decoded.warnings })
}
