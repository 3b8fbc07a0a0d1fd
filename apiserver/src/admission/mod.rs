//! Admission: what is filled in and refused by who asks and what else is there, before an object is validated; and what is
//! judged afterwards.

mod classes;
mod limits;
mod node_restriction;
mod priority;
mod runtime_class;
mod service_account;

use serde_json::Value;

use crate::auth::escalation;
use crate::failure::{Failure, Outcome};
use crate::state::State;
use crate::verbs::{Call, meta};

/// The name of an object that may not have one yet.
fn shown_name(object: &Value) -> &str {
    match meta(object, "name") {
        "" => meta(object, "generateName"),
        name => name,
    }
}

/// Admits a new object, before it is named.
///
/// # Errors
/// 403 in the words of the plug-in that refuses it.
pub fn create(state: &mut State, call: &Call, object: &mut Value) -> Outcome<()> {
    if (call.resource.group.as_str(), call.resource.plural.as_str()) == ("", "pods") {
        // What fills in goes before what judges, in the order of the real server's plug-ins.
        limits::fill(state, object);
        service_account::admit(state, object)?;
        if state.access.node_restriction {
            node_restriction::create(state, call, object)?;
        }
        priority::admit(state, object)?;
        return runtime_class::admit(state, object);
    }
    unkept(call)?;
    classes::fill(state, call, object);
    priority::admit_class(state, call, object)?;
    if state.access.node_restriction {
        node_restriction::create(state, call, object)?;
    }
    escalation::check(state, &call.resource, &call.user, object, None)
}

/// Admits a change of `current`.
///
/// # Errors
/// 403 in the words of the plug-in that refuses it.
pub fn update(state: &mut State, call: &Call, object: &Value, current: &Value) -> Outcome<()> {
    if state.access.node_restriction {
        node_restriction::update(call, object, current)?;
    }
    priority::admit_class(state, call, object)?;
    classes::admit_resize(state, call, object, current)?;
    escalation::check(state, &call.resource, &call.user, object, Some(current))
}

/// Looks at an object that is valid, once nothing of it changes any more.
///
/// # Errors
/// 403 in the words of the plug-in that refuses it.
pub fn judge(state: &State, call: &Call, object: &Value) -> Outcome<()> {
    if limits::concerns(call) {
        limits::check(state, call, object)?;
    }
    match (call.resource.group.as_str(), call.resource.plural.as_str()) {
        ("", "pods") => runtime_class::judge(state, object),
        _ => Ok(()),
    }
}

/// A promise that nothing here would keep is not taken: of such kinds there are no objects, which can be listed and watched.
fn unkept(call: &Call) -> Outcome<()> {
    let keeping = match (call.resource.group.as_str(), call.resource.plural.as_str()) {
        ("", "resourcequotas") => "enforce",
        ("admissionregistration.k8s.io", "validatingadmissionpolicies" | "validatingadmissionpolicybindings") => {
            "enforce"
        }
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => "call",
        ("autoscaling", "horizontalpodautoscalers") => "follow",
        ("batch", "cronjobs") => "run",
        ("certificates.k8s.io", "certificatesigningrequests") => "sign",
        ("storage.k8s.io", "csistoragecapacities") => "heed",
        ("storage.k8s.io", "volumeattachments") => "carry out",
        _ => return Ok(()),
    };
    Err(Failure::unsupported(&format!("a {}, which nothing here would {keeping},", call.resource.kind)))
}

/// Admits the end of an object.
///
/// # Errors
/// 403 in the words of the plug-in that refuses it.
pub fn delete(state: &State, call: &Call, live: &Value) -> Outcome<()> {
    match state.access.node_restriction {
        true => node_restriction::delete(call, live),
        false => Ok(()),
    }
}

/// Admits a request for a token.
///
/// # Errors
/// 403 in the words of the plug-in that refuses it.
pub fn token(state: &State, call: &Call, request: &Value) -> Outcome<()> {
    match state.access.node_restriction {
        true => node_restriction::token(state, call, request),
        false => Ok(()),
    }
}

#[cfg(test)]
#[path = "unkept_tests.rs"]
mod tests;
