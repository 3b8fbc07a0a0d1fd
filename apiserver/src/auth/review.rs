//! The reviews: questions about tokens, users and permissions, answered and not stored.

use serde_json::{Map, Value, json};

use super::attributes::Attributes;
use super::rbac::Rule;
use super::user::User;
use crate::body::read_object;
use crate::failure::{Failure, FieldError, Outcome};
use crate::fields::managed;
use crate::request::WriteOptions;
use crate::schema::shape;
use crate::selector::FieldSelector;
use crate::state::State;
use crate::verbs::create::finish;
use crate::verbs::{Call, Written};

/// Answers a review.
pub fn create(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = WriteOptions::parse(&call.query, "CreateOptions", &call.user_agent)?;
    let resource = &call.resource;
    let decoded = read_object(&call.body, &call.media_type, resource, &resource.kind, options.validation)?;
    let mut review = decoded.object;
    finish(&mut review, call);
    let base = json!({"metadata": {}});
    managed::update(&base, &mut review, &call.write(&options, false, state.now()), true);
    match resource.kind.as_str() {
        "TokenReview" => review_token(state, &mut review)?,
        "SelfSubjectReview" => {
            let time = json!({"creationTimestamp": state.now()});
            review = json!({"kind": "SelfSubjectReview", "apiVersion": resource.api_version(), "metadata": time,
                "status": {"userInfo": shown(&call.user)}});
        }
        "SelfSubjectRulesReview" => review = review_rules(state, call, &review)?,
        _ => review_access(state, call, &mut review)?,
    }
    // What is not decided is false, and stays unsaid where the real server leaves it out.
    shape::drop_nulls(&mut review, &resource.schema);
    Ok(Written { code: 201, object: review, warnings: decoded.warnings })
}

/// A user as reviews show it.
pub fn shown(user: &User) -> Value {
    let mut shown = Map::new();
    if !user.name.is_empty() {
        shown.insert("username".into(), json!(user.name));
    }
    if !user.uid.is_empty() {
        shown.insert("uid".into(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        shown.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        shown.insert("extra".into(), json!(user.extra));
    }
    Value::Object(shown)
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn review_token(state: &State, review: &mut Value) -> Outcome<()> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Failure::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted = strings(&review["spec"]["audiences"]);
    let status = match state.access.tokens.authenticate(state, token, &wanted) {
        Some((user, audiences)) => json!({"authenticated": true, "user": shown(&user), "audiences": audiences}),
        None => json!({"user": {}, "error": "invalid bearer token"}),
    };
    review["status"] = status;
    Ok(())
}

fn review_access(state: &mut State, call: &Call, review: &mut Value) -> Outcome<()> {
    let kind = &call.resource.kind;
    let spec = review["spec"].clone();
    let user = match kind.as_str() {
        "SelfSubjectAccessReview" => User::clone(&call.user),
        _ => user_of(&spec),
    };
    let mut errors = Vec::new();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() == path.is_object() {
        let (field, value) = match resource.is_object() {
            true => ("spec.nonResourceAttributes", "cannot be specified in combination with resourceAttributes"),
            false => (
                "spec.resourceAttributes",
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ),
        };
        let got = if resource.is_object() { path } else { &Value::Null };
        errors.push(FieldError::invalid(field, got, value));
    }
    if kind != "SelfSubjectAccessReview" && user.name.is_empty() && user.groups.is_empty() {
        errors.push(FieldError::invalid("spec.user", &json!(""), "at least one of user or group must be specified"));
    }
    if !errors.is_empty() {
        return Err(Failure::invalid(&call.resource.group, "", "", &errors));
    }
    if kind == "LocalSubjectAccessReview" {
        let namespace = resource["namespace"].as_str().unwrap_or_default();
        if namespace != call.target.namespace {
            let message = format!("spec.resourceAttributes.namespace must match namespace: {}", call.target.namespace);
            return Err(Failure::bad_request(message));
        }
    }
    let decision = state.decide(&user, &attributes(resource, path));
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = json!(decision.reason);
    }
    review["status"] = status;
    Ok(())
}

fn user_of(spec: &Value) -> User {
    let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: text("user"),
        uid: text("uid"),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.to_lowercase(), strings(values))).collect(),
    }
}

fn attributes(resource: &Value, path: &Value) -> Attributes {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    if path.is_object() {
        return Attributes { verb: text(path, "verb"), path: text(path, "path"), ..Attributes::default() };
    }
    let selector = resource["fieldSelector"]["rawSelector"].as_str().unwrap_or_default();
    let requirements = resource["fieldSelector"]["requirements"].as_array().into_iter().flatten();
    let requirements = requirements.filter(|term| term["operator"] == "In").filter_map(|term| {
        Some(format!("{}={}", term["key"].as_str()?, term["values"].as_array()?.first()?.as_str()?))
    });
    let terms: Vec<String> = requirements.chain(Some(selector.to_owned()).filter(|text| !text.is_empty())).collect();
    Attributes {
        verb: text(resource, "verb"),
        path: String::new(),
        group: text(resource, "group"),
        version: text(resource, "version"),
        resource: text(resource, "resource"),
        subresource: text(resource, "subresource"),
        namespace: text(resource, "namespace"),
        name: text(resource, "name"),
        fields: FieldSelector::parse(&terms.join(",")).unwrap_or_default(),
    }
}

fn review_rules(state: &mut State, call: &Call, review: &Value) -> Outcome<Value> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let mut resources = Vec::new();
    let mut paths = Vec::new();
    if call.user.is_in(super::user::MASTERS) {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    let policy = state.policy();
    let node = call.user.node().and_then(|_| policy.rules("ClusterRole", "", "system:node"));
    for rule in node.into_iter().flatten().chain(policy.rules_for(&call.user, namespace)) {
        if !rule.resources.is_empty() {
            resources.push(resource_rule(rule));
        }
        if !rule.urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.urls}));
        }
    }
    Ok(json!({"kind": "SelfSubjectRulesReview", "apiVersion": call.resource.api_version(), "metadata": {}, "spec": {},
        "status": {"resourceRules": resources, "nonResourceRules": paths, "incomplete": node.is_some()}}))
}

fn resource_rule(rule: &Rule) -> Value {
    let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
    if !rule.names.is_empty() {
        shown["resourceNames"] = json!(rule.names);
    }
    shown
}
