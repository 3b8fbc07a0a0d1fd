//! `POST serviceaccounts/NAME/token`: makes a token for an account.

use std::sync::Arc;

use serde_json::{Value, json};

use super::token::{Bound, Claims, Private};
use crate::admission;
use crate::body::read_object;
use crate::clock::seconds;
use crate::failure::{Failure, FieldError, Outcome};
use crate::fields::managed::{self, Manager, Write};
use crate::registry::Resource;
use crate::request::WriteOptions;
use crate::schema::{builtin, shape};
use crate::state::State;
use crate::store::Key;
use crate::verbs::{Call, Written, meta};

const DEFAULT_SECONDS: i64 = 3600;
const SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;
/// Lifetime that pods' volumes ask for; a token of this lifetime lives longer, so that clients which never read the file
/// again go on working, and are warned of.
const SAFE_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// The kind of the body, which is not that of the path.
fn form() -> Outcome<Resource> {
    let schema = builtin::types().get("io.k8s.api.authentication.v1.TokenRequest").cloned();
    let schema = schema.ok_or_else(|| Failure::plain("TokenRequest has no schema"))?;
    Ok(Resource {
        group: "authentication.k8s.io".into(),
        version: "v1".into(),
        plural: "tokenrequests".into(),
        singular: "tokenrequest".into(),
        kind: "TokenRequest".into(),
        list_kind: "TokenRequestList".into(),
        namespaced: true,
        verbs: vec!["create"],
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        schema,
        storage: "authentication.k8s.io/tokenrequests".into(),
        storage_version: "v1".into(),
        custom: None,
    })
}

/// Makes a token.
pub fn create(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = WriteOptions::parse(&call.query, "CreateOptions", &call.user_agent)?;
    let form = form()?;
    let decoded = read_object(&call.body, &call.media_type, &form, "TokenRequest", options.validation)?;
    let mut request = decoded.object;
    let account = state.read(&call.resource, call.namespace(), &call.target.name)?;
    if request["spec"]["expirationSeconds"].is_null() {
        request["spec"]["expirationSeconds"] = json!(DEFAULT_SECONDS);
    }
    if !request["metadata"].is_object() {
        request["metadata"] = json!({});
    }
    let (name, api_version) = (options.manager, form.api_version());
    let manager = Manager { name, apply: false, api_version, subresource: call.target.subresource.clone() };
    let write = Write { manager, node: &form.schema, reset: &[], versions: None, now: state.now() };
    let mut base = json!({"metadata": {}});
    shape::fill_zero(&mut base, &form.schema);
    shape::fill_zero(&mut request, &form.schema);
    managed::update(&base, &mut request, &write, true);
    check_names(call, &request)?;
    let tokens = Arc::clone(&state.access.tokens);
    if request["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
        request["spec"]["audiences"] = json!(tokens.audiences);
    }
    let asked = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    check_seconds(asked)?;
    admission::token(state, call, &request)?;
    let mut private = bindings(state, call, &account, &request["spec"]["boundObjectRef"])?;
    let now = state.clock.now();
    let from = now.as_second();
    let audiences: Vec<String> = serde_json::from_value(request["spec"]["audiences"].clone())
        .map_err(|error| Failure::bad_request(error.to_string()))?;
    let own = audiences.iter().all(|audience| tokens.audiences.contains(audience));
    let mut lifetime = asked;
    if tokens.extend && private.pod.is_some() && asked == SAFE_SECONDS && own {
        private.warnafter = Some(from + asked);
        lifetime = EXTENDED_SECONDS;
    }
    let claims = Claims {
        aud: audiences,
        exp: from + lifetime,
        iat: from,
        iss: tokens.issuer.clone(),
        jti: state.chance.uid(),
        sub: format!("system:serviceaccount:{}:{}", private.namespace, call.target.name),
        nbf: from,
        private,
    };
    let token = tokens.sign(&claims).map_err(|error| Failure::plain(error.to_string()))?;
    describe(&mut request, &account, state);
    let until = now.checked_add(jiff::SignedDuration::from_secs(asked)).unwrap_or(jiff::Timestamp::MAX);
    request["status"] = json!({"token": token, "expirationTimestamp": seconds(until)});
    Ok(Written { code: 201, object: request, warnings: decoded.warnings })
}

fn check_seconds(asked: i64) -> Outcome<()> {
    let detail = match asked {
        _ if SECONDS.contains(&asked) => return Ok(()),
        _ if asked < *SECONDS.start() => "may not specify a duration less than 10 minutes",
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = FieldError::invalid("spec.expirationSeconds", &json!(asked), detail);
    Err(Failure::invalid("authentication.k8s.io", "TokenRequest", "", &[error]))
}

/// If the body says for which account it is, it is that of the path.
fn check_names(call: &Call, request: &Value) -> Outcome<()> {
    for (field, own) in [("name", &call.target.name), ("namespace", &call.target.namespace)] {
        let given = meta(request, field);
        if !given.is_empty() && given != own {
            let detail = format!("must match the service account {field} if specified");
            let error = FieldError::invalid(format!("metadata.{field}"), &json!(given), &detail);
            return Err(Failure::invalid("authentication.k8s.io", "TokenRequest", &call.target.name, &[error]));
        }
    }
    Ok(())
}

/// The answer is named as the account is.
fn describe(request: &mut Value, account: &Value, state: &State) {
    let managed = request["metadata"]["managedFields"].take();
    request["metadata"] = json!({"name": meta(account, "name"), "namespace": meta(account, "namespace"),
        "uid": meta(account, "uid"), "creationTimestamp": state.now(), "managedFields": managed});
}

fn bound(object: &Value) -> Option<Bound> {
    Some(Bound { name: meta(object, "name").to_owned(), uid: meta(object, "uid").to_owned() })
}

fn bindings(state: &State, call: &Call, account: &Value, reference: &Value) -> Outcome<Private> {
    let namespace = meta(account, "namespace").to_owned();
    let mut private = Private { namespace, serviceaccount: bound(account), ..Private::default() };
    if !reference.is_object() {
        return Ok(private);
    }
    let text = |name: &str| reference[name].as_str().unwrap_or_default();
    let (version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
    let find = |plural: &str, namespace: &str| {
        let key = Key { resource: format!("/{plural}").into(), namespace: namespace.into(), name: name.into() };
        state.store.get(&key).ok_or_else(|| Failure::not_found("", plural, name))
    };
    let target = match (version, kind) {
        ("v1", "Pod") => {
            let pod = find("pods", &private.namespace)?;
            if pod["spec"]["serviceAccountName"] != call.target.name.as_str() {
                return Err(Failure::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    call.target.name
                )));
            }
            private.pod = bound(&pod);
            if let Some(name) = pod["spec"]["nodeName"].as_str().filter(|name| !name.is_empty()) {
                let key = Key { resource: "/nodes".into(), namespace: String::new(), name: name.into() };
                let uid = state.store.get(&key).map(|node| meta(&node, "uid").to_owned()).unwrap_or_default();
                private.node = Some(Bound { name: name.to_owned(), uid });
            }
            pod
        }
        ("v1", "Node") => {
            let node = find("nodes", "")?;
            private.node = bound(&node);
            node
        }
        ("v1", "Secret") => {
            let secret = find("secrets", &private.namespace)?;
            private.secret = bound(&secret);
            secret
        }
        _ => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let message = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Failure::bad_request(message));
        }
    };
    let uid = text("uid");
    if !uid.is_empty() && meta(&target, "uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        return Err(Failure::conflict("", kind, name, &why));
    }
    Ok(private)
}
