//! `/scale`: how many replicas an object wants and has, in one form for all kinds that have them.

use serde_json::{Value, json};

use super::patch::{change, key_of, misfit, read_config, read_options};
use super::update::{check_named, check_names, replace};
use super::{Call, Written, in_version, meta};
use crate::body::{check_fields, read_object};
use crate::failure::{Failure, FieldError, Outcome};
use crate::fields::managed;
use crate::fields::typed;
use crate::registry::Resource;
use crate::request::WriteOptions;
use crate::schema::builtin;
use crate::selector;
use crate::state::State;
use crate::table::first;

/// `autoscaling/v1` Scale, as which the subresource is read and shown.
pub fn kind() -> &'static Resource {
    static KIND: std::sync::OnceLock<Resource> = std::sync::OnceLock::new();
    KIND.get_or_init(|| {
        let schema = builtin::types().get("io.k8s.api.autoscaling.v1.Scale").cloned().unwrap_or_default();
        Resource::of_request("autoscaling", "v1", "Scale", schema)
    })
}

/// Where a kind keeps what its scale shows, as JSON paths.
struct Paths {
    wanted: String,
    observed: String,
}

fn paths(call: &Call) -> Paths {
    let custom = call.resource.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    match custom {
        Some(scale) => Paths { wanted: scale.spec.clone(), observed: scale.status.clone() },
        None => Paths { wanted: ".spec.replicas".into(), observed: ".status.replicas".into() },
    }
}

/// A JSON path as owners have it.
fn path_of(path: &str) -> Vec<String> {
    path.split('.').filter(|part| !part.is_empty()).map(|part| format!("f:{part}")).collect()
}

/// The label selector of the object's pods, as text.
fn selector_text(object: &Value, call: &Call) -> String {
    match &call.resource.custom {
        Some(custom) => {
            let path = custom.scale.as_ref().and_then(|scale| scale.selector.as_deref());
            path.and_then(|path| first(object, path)).and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        None if call.resource.plural == "replicationcontrollers" => {
            selector::text(&json!({"matchLabels": object["spec"]["selector"]}))
        }
        None => selector::text(&object["spec"]["selector"]),
    }
}

fn show(object: &Value, call: &Call) -> Value {
    let paths = paths(call);
    let number = |path: &str| first(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {},
        "status": {"replicas": number(&paths.observed)}});
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(name) {
            scale["metadata"][name] = value.clone();
        }
    }
    if number(&paths.wanted) != 0 {
        scale["spec"]["replicas"] = json!(number(&paths.wanted));
    }
    let selector = selector_text(object, call);
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

/// `GET …/scale`.
pub fn get(state: &State, call: &Call) -> Outcome<Value> {
    let live = state.read(&call.resource, call.namespace(), &call.target.name)?;
    Ok(show(&in_version(&live, &call.resource), call))
}

/// `PUT …/scale`.
pub fn update(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions", &call.user_agent)?;
    let decoded = read_object(&call.body, &call.media_type, kind(), "Scale", options.validation);
    let decoded = decoded.map_err(|mut failure| {
        // A custom resource's scale is read by a scheme that knows no other kind.
        if call.resource.custom.is_some() && failure.message.contains("no kind ") {
            failure.message =
                "no kind is registered for the type v1.Scale in scheme \"pkg/runtime/scheme.go:110\"".into();
        }
        failure
    })?;
    check_named(&decoded.object, call)?;
    write(state, call, decoded.object, &options, decoded.warnings)
}

/// `PATCH …/scale`.
pub fn patch(state: &mut State, call: &Call) -> Outcome<Written> {
    match call.media_type.as_str() {
        "application/json-patch+json" | "application/merge-patch+json" => {}
        "application/strategic-merge-patch+json" if call.resource.custom.is_none() => {}
        "application/apply-patch+yaml" if call.resource.custom.is_some() => {
            return Err(Failure::plain(
                "failed to create manager for existing fields: failed to convert live object (/; autoscaling/v1, Kind=Scale) to proper version: request to convert CR to an invalid group/version: autoscaling/v1",
            ));
        }
        "application/apply-patch+yaml" => return apply(state, call),
        "application/strategic-merge-patch+json" => return Err(super::patch::no_strategic_merge()),
        _ => return Err(Failure::unsupported_media("415: Unsupported Media Type", true)),
    }
    let options = read_options(call, false)?;
    let live = state.read(&call.resource, call.namespace(), &call.target.name)?;
    let mut scale = show(&in_version(&live, &call.resource), call);
    let owners = managed::owners_of(&live, &path_of(&paths(call).wanted), "autoscaling/v1");
    if !owners.is_empty() {
        scale["metadata"]["managedFields"] = json!(owners);
    }
    change(&mut scale, call, &kind().schema)?;
    check_named(&scale, call)?;
    let before_decoding = scale.clone();
    let warnings = check_fields(&mut scale, Vec::new(), kind(), "Scale", options.validation)
        .map_err(|failure| misfit(&before_decoding, call, Some("autoscaling.v1.Scale"), &failure))?;
    write(state, call, scale, &options, warnings)
}

/// Server-side apply: who owns the replicas of the object owns those of its scale, and the other way about.
fn apply(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = read_options(call, true)?;
    let mut config = read_config(call, kind())?;
    let live = state.read(&call.resource, call.namespace(), &call.target.name)?;
    let mut object = in_version(&live, &call.resource);
    let field: Vec<String> = ["f:spec", "f:replicas"].map(str::to_owned).into();
    let mut scale = show(&object, call);
    managed::seen_as(&object, &field, &field, &kind().api_version()).store(&mut scale);
    if let Err(error) = typed::validate(&config, &kind().schema) {
        let key = key_of(&config, kind());
        return Err(Failure::plain(format!("failed to create typed patch object ({key}): {error}")));
    }
    check_names(&mut config, call)?;
    let mut booked = call.write(&options, true, state.now());
    booked.manager.api_version = kind().api_version();
    booked.node = &kind().schema;
    booked.reset = &[];
    let mut merged = managed::apply(&scale, &config, &booked, options.force)?;
    let warnings = check_fields(&mut merged, Vec::new(), kind(), "Scale", options.validation)?;
    let replicas = merged["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        return Err(negative(call, replicas));
    }
    object["spec"]["replicas"] = json!(replicas);
    managed::carry_back(&mut object, &merged, &field, &call.resource.api_version());
    let stored = replace(state, call, &live, object, None, options.dry_run)?;
    Ok(Written { code: 200, object: show(&stored, call), warnings })
}

fn write(
    state: &mut State,
    call: &Call,
    mut scale: Value,
    options: &WriteOptions,
    warnings: Vec<String>,
) -> Outcome<Written> {
    check_names(&mut scale, call)?;
    let live = state.read(&call.resource, call.namespace(), &call.target.name)?;
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        return Err(negative(call, replicas));
    }
    let mut object = in_version(&live, &call.resource);
    for name in ["resourceVersion", "uid"] {
        let given = meta(&scale, name);
        if !given.is_empty() {
            object["metadata"][name] = json!(given);
        }
    }
    let wanted = paths(call).wanted;
    let place = wanted.split('.').filter(|part| !part.is_empty()).fold(&mut object, |value, part| {
        if !value.is_object() {
            *value = json!({});
        }
        &mut value[part]
    });
    let before = place.as_i64().unwrap_or(0);
    *place = json!(replicas);
    // A scale shows only owners of the replicas; where there are none, nothing is booked at all.
    let path = path_of(&wanted);
    let mut booked = managed::is_owned(&live, &path).then_some(options);
    if replicas == 0 && before != 0 {
        // A scale does not say that there are none, and what is not said nobody owns.
        booked = None;
        managed::disown(&mut object, &path.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let stored = replace(state, call, &live, object, booked, options.dry_run)?;
    Ok(Written { code: 200, object: show(&stored, call), warnings })
}

fn negative(call: &Call, replicas: i64) -> Failure {
    let (resource, name) = (&call.resource, &call.target.name);
    match &resource.custom {
        None => {
            let detail = "must be greater than or equal to 0";
            let error = FieldError::invalid("spec.replicas", &json!(replicas), detail);
            Failure::invalid("autoscaling", "Scale", name, &[error])
        }
        Some(_) => {
            let detail = "should be a non-negative integer";
            let error = FieldError::invalid(paths(call).wanted, &json!(replicas), detail);
            Failure::invalid(&resource.group, &resource.kind, name, &[error])
        }
    }
}
