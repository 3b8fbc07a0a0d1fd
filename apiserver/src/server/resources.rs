//! Requests about resources: which one is meant, and what is done with it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use serde_json::Value;

use super::answers::{answer, encode, stream, warn, warn_first};
use super::{ApiServer, Body};
use crate::auth::{User, review, token_request};
use crate::failure::{Failure, Outcome};
use crate::registry::{Registry, elsewhere};
use crate::request::{Accepted, Form, Query, Target, negotiate, unacceptable};
use crate::state::State;
use crate::verbs::{Call, Written, create, delete, evict, locked, patch, read, scale, update};
use crate::view::{Include, render};
use crate::watch::Watch;

impl ApiServer {
    pub(super) fn resource(
        &self,
        method: &Method,
        path: &str,
        query: Query,
        headers: &HeaderMap,
        body: Bytes,
        user: Arc<User>,
    ) -> Result<Response<Body>, Refusal> {
        let target = Target::parse(path).ok_or(Refusal::NoPath)?;
        let resource = {
            let state = locked(&self.state);
            let found = state.registry.find(&target.group, &target.version, &target.resource);
            match found {
                Some(resource) => Arc::clone(resource),
                None if let Some(failure) = elsewhere::resource(&target.group, &target.version, &target.resource) => {
                    return Err(failure.into());
                }
                None if !served_group(&state.registry, &target.group) => return Err(Refusal::NoPath),
                None if custom_group(&state.registry, &target.group) => return Err(Refusal::NoPath),
                None => return Err(Failure::no_such_resource().into()),
            }
        };
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let media_type = header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let user_agent = header(USER_AGENT).to_owned();
        let call = Call { target, query, resource, media_type, body, user_agent, user };
        check_scope(method, &call)?;
        let sub = &call.target.subresource;
        let known = call.resource.custom.is_some() || sub.is_empty() || call.resource.subresource(sub).is_some();
        let warning = crate::kinds::standing_warning(&call.resource).filter(|_| known).map(str::to_owned);
        let mut answer = self.serve(method, call, headers).unwrap_or_else(|failure| self.failed(&failure));
        if let Some(warning) = warning {
            warn_first(&mut answer, &warning);
        }
        Ok(answer)
    }

    fn serve(&self, method: &Method, call: Call, headers: &HeaderMap) -> Outcome<Response<Body>> {
        let collection = call.target.name.is_empty();
        let watching = *method == Method::GET
            && (call.target.watch || (collection && call.query.has("watch") && call.query.flag("watch")));
        if call.target.watch && *method != Method::GET || watching && !call.resource.allows("watch") {
            return Err(Failure::method_not_allowed());
        }
        let listing = *method == Method::GET && collection && !watching;
        let wanted = negotiate(headers, |form| match form {
            Form::Object | Form::Partial(_) | Form::PartialList(_) => true,
            // What can only be created is an act, and has no table; nor has the status of a definition.
            Form::Table(_) => {
                let definition_status =
                    call.resource.group == "apiextensions.k8s.io" && call.target.subresource == "status";
                call.resource.verbs[..] != ["create"]
                    && !definition_status
                    && !ACTS.contains(&call.target.subresource.as_str())
            }
            Form::Discovery => false,
        });
        let wanted = wanted.map_err(|failure| {
            let known = !failure.message.starts_with("406");
            match (watching, listing) {
                (true, _) => unacceptable(known, true),
                (_, true) if !known => unacceptable(false, true),
                // What is to be listed is read before the form in which it is wanted.
                (_, true) if call.resource.allows("list") => read::list_options(&call, false).err().unwrap_or(failure),
                _ => failure,
            }
        })?;
        if watching && wanted.yaml {
            return Err(unacceptable(true, true));
        }
        if let Form::Table(_) = wanted.form {
            Include::check(call.query.get("includeObject"))?;
        }
        let include = Include::parse(call.query.get("includeObject"));
        if watching {
            let watch = Watch::open(&self.state, Arc::new(call), wanted.form)?;
            return Ok(stream(watch));
        }
        if *method == Method::GET && !collection && call.query.flag("export") {
            let message = "the export parameter, deprecated since v1.14, is no longer supported";
            return Err(Failure::bad_request(message));
        }
        let mut state = locked(&self.state);
        if *method == Method::GET
            && wanted == (Accepted { form: Form::Object, yaml: false })
            && let Some(answer) = as_kept(&state, &call)?
        {
            return Ok(answer);
        }
        let now = state.clock.now();
        let written = verb(&mut state, method, &call)?;
        drop(state);
        let shown = if call.target.subresource == "scale" { scale::kind() } else { &call.resource };
        check_form(wanted.form, &written.object, &call)?;
        let body = render(written.object, wanted.form, include, shown, now);
        let mut answer = encode(written.code, &body, wanted);
        for warning in &written.warnings {
            warn(&mut answer, warning);
        }
        Ok(answer)
    }
}

/// A list is no single object, nor the other way round, however much of it a client wants to see.
fn check_form(form: Form, object: &Value, call: &Call) -> Outcome<()> {
    let list = object["items"].is_array() && object["kind"] == call.resource.list_kind.as_str();
    let kind = if list { &call.resource.list_kind } else { &call.resource.kind };
    let go_type = match (&call.resource.custom, list) {
        (Some(_), true) => "unstructured.UnstructuredList".to_owned(),
        (Some(_), false) => "unstructured.Unstructured".to_owned(),
        (None, _) => {
            let package = call.resource.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
            format!("{package}.{kind}")
        }
    };
    let message = match form {
        Form::PartialList(_) if !list => {
            format!("you requested PartialObjectMetadataList, but the requested object is not a list (*{go_type})")
        }
        Form::Partial(_) if list => {
            format!("you requested PartialObjectMetadata, but the requested object is a list (*{go_type})")
        }
        _ => return Ok(()),
    };
    Err(Failure::not_acceptable(message, false))
}

/// The answer to a plain read of what is shown as it is kept.
fn as_kept(state: &State, call: &Call) -> Outcome<Option<Response<Body>>> {
    let (target, resource) = (&call.target, &call.resource);
    let Some(form) = crate::verbs::text::Form::of(resource).filter(|_| target.subresource.is_empty()) else {
        return Ok(None);
    };
    if target.name.is_empty() {
        if !resource.allows("list") {
            return Ok(None);
        }
        let list = form.list(resource, &read::page(state, call)?);
        return Ok(list.map(|list| {
            let mut answer = Response::new(list.boxed_unsync());
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }));
    }
    if !resource.allows("get") || !call.query.get("resourceVersion").is_empty() {
        return Ok(None);
    }
    let stored = state.store.stored(&State::key(resource, call.namespace(), &target.name));
    let text = stored.and_then(|stored| form.object(stored));
    Ok(text.map(|text| answer(200, "application/json", Bytes::from(format!("{text}\n")))))
}

/// Subresources that are acts.
const ACTS: [&str; 3] = ["token", "eviction", "binding"];

fn verb(state: &mut State, method: &Method, call: &Call) -> Outcome<Written> {
    let collection = call.target.name.is_empty();
    let found = |object| Ok(Written { code: 200, object, warnings: Vec::new() });
    let name = match (method.as_str(), collection) {
        ("GET", true) => "list",
        ("GET", false) => "get",
        ("POST", true) => "create",
        ("POST", false) if !call.target.subresource.is_empty() => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => return Err(Failure::method_not_allowed()),
    };
    match call.target.subresource.as_str() {
        // What can only be made has no name to ask for.
        "" if !collection && call.resource.verbs[..] == ["create"] => return Err(Failure::no_such_resource()),
        "" if !call.resource.allows(name) => return Err(Failure::method_not_allowed()),
        "" => {}
        sub => match call.resource.subresource(sub) {
            None if call.resource.custom.is_some() => {
                return Err(Failure::not_found(&call.resource.group, &call.resource.plural, &call.target.name));
            }
            None => return Err(Failure::no_such_resource()),
            Some(found) if !found.verbs.contains(&name) && call.resource.custom.is_some() => {
                return Err(Failure::verb_not_allowed(name, &call.resource.group, &call.resource.plural));
            }
            Some(found) if !found.verbs.contains(&name) => return Err(Failure::method_not_allowed()),
            Some(_) if matches!(sub, "status" | "ephemeralcontainers" | "resize") => {}
            Some(_) if sub == "finalize" => return update::finalize(state, call),
            Some(_) if ACTS.contains(&sub) => {
                create::namespace_of(state, call)?;
                return match sub {
                    "binding" => create::bind(state, call),
                    "token" => token_request::create(state, call),
                    _ => evict::evict(state, call),
                };
            }
            Some(_) if sub == "scale" => match name {
                "get" => return found(scale::get(state, call)?),
                "update" => return scale::update(state, call),
                _ => return scale::patch(state, call),
            },
            Some(_) => {
                state.read(&call.resource, call.namespace(), &call.target.name)?;
                return Err(Failure::unsupported(&format!("{name} of {}/{sub}", call.resource.plural)));
            }
        },
    }
    if matches!(call.resource.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io") {
        return review::create(state, call);
    }
    if (call.resource.group.as_str(), call.resource.plural.as_str()) == ("", "bindings") {
        create::namespace_of(state, call)?;
        return create::bind(state, call);
    }
    match name {
        "list" => found(read::list(state, call)?),
        "get" => found(read::get(state, call)?),
        "create" => create::create(state, call),
        "update" => update::update(state, call),
        "patch" => patch::patch(state, call),
        "delete" => delete::delete(state, call),
        _ => found(delete::delete_collection(state, call)?),
    }
}

pub(super) enum Refusal {
    NoPath,
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

pub(super) fn served_group(registry: &Registry, group: &str) -> bool {
    registry.all().iter().any(|resource| resource.group == group)
}

pub(super) fn custom_group(registry: &Registry, group: &str) -> bool {
    registry.all().iter().any(|resource| resource.group == group && resource.custom.is_some())
}

/// A namespaced object has its namespace in the path, another has none.
fn check_scope(method: &Method, call: &Call) -> Result<(), Refusal> {
    let (resource, target) = (&call.resource, &call.target);
    if resource.custom.is_some() {
        // Nothing is behind other paths of custom resources.
        let whole = target.name.is_empty() && *method == Method::GET;
        let fits = target.namespace.is_empty() != resource.namespaced || (resource.namespaced && whole);
        return if fits { Ok(()) } else { Err(Refusal::NoPath) };
    }
    if !resource.namespaced && !target.namespace.is_empty() {
        return Err(Failure::no_such_resource().into());
    }
    if resource.namespaced && target.namespace.is_empty() {
        if !target.name.is_empty() {
            return Err(Failure::no_such_resource().into());
        }
        if *method != Method::GET {
            return Err(Failure::method_not_allowed().into());
        }
    }
    Ok(())
}
