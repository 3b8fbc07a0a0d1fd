//! The reviews: questions about tokens, users and permissions, answered and not stored.

use serde_json::{Map, Value, json};

use super::attributes::Attributes;
use super::rbac::{Rule, in_one};
use super::user::User;
use crate::body::read_object;
use crate::failure::{Failure, FieldError, Outcome};
use crate::fields::managed;
use crate::kinds::names;
use crate::request::WriteOptions;
use crate::schema::shape;
use crate::selector::{FieldSelector, LabelSelector};
use crate::state::State;
use crate::verbs::create::{finish, zero};
use crate::verbs::{Call, Written};

/// Answers a review.
pub fn create(state: &mut State, call: &Call) -> Outcome<Written> {
    let options = WriteOptions::parse(&call.query, "CreateOptions", &call.user_agent)?;
    let resource = &call.resource;
    let decoded = read_object(&call.body, &call.media_type, resource, &resource.kind, options.validation)?;
    let mut review = decoded.object;
    finish(&mut review, call);
    managed::update(&zero(call), &mut review, &call.write(&options, false, state.now()), true);
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
        Ok((user, audiences)) => json!({"authenticated": true, "user": shown(&user), "audiences": audiences}),
        Err(why) => json!({"user": {}, "error": why}),
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
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let errors = access_errors(call, resource, path, &user);
    if !errors.is_empty() {
        return Err(Failure::invalid(&call.resource.group, "", "", &errors));
    }
    if call.resource.namespaced {
        review["metadata"]["namespace"] = json!(call.target.namespace);
    }
    let decision = state.decide(&user, &attributes(resource, path));
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = json!(decision.reason);
    }
    let ignored: Vec<String> = ["fieldSelector", "labelSelector"]
        .into_iter()
        .filter(|name| !is_readable(&resource[*name], name))
        .map(|name| format!("spec.resourceAttributes.{name} ignored due to parse error"))
        .collect();
    if !ignored.is_empty() {
        status["evaluationError"] = json!(in_one(&ignored));
    }
    review["status"] = status;
    Ok(())
}

/// Whether the server understands a selector that a question is about.
fn is_readable(selector: &Value, name: &str) -> bool {
    let raw = selector["rawSelector"].as_str().unwrap_or_default();
    let known = |term: &Value| {
        let operator = term["operator"].as_str().unwrap_or_default();
        ["In", "NotIn"].contains(&operator)
            || (name == "labelSelector" && ["Exists", "DoesNotExist"].contains(&operator))
    };
    let read = match name {
        "labelSelector" => LabelSelector::parse(raw).is_ok(),
        _ => FieldSelector::parse(raw).is_ok(),
    };
    read && selector["requirements"].as_array().into_iter().flatten().all(known)
}

/// What is wrong with a question about access.
fn access_errors(call: &Call, resource: &Value, path: &Value, user: &User) -> Vec<FieldError> {
    let kind = call.resource.kind.as_str();
    let mut errors = Vec::new();
    // Shown as Go holds it.
    let word = |name: &str| path[name].as_str().unwrap_or_default();
    let shown = json!({"Path": word("path"), "Verb": word("verb")});
    let local = kind == "LocalSubjectAccessReview";
    match (resource.is_object(), path.is_object()) {
        (_, true) if local => {
            errors.push(FieldError::invalid(
                "spec.nonResourceAttributes",
                &shown,
                "disallowed on this kind of request",
            ));
        }
        (true, true) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", &shown, detail));
        }
        (false, false) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid("spec.resourceAttributes", &Value::Null, detail));
        }
        _ => {}
    }
    if kind != "SelfSubjectAccessReview" && user.name.is_empty() && user.groups.is_empty() {
        errors.push(FieldError::invalid("spec.user", &json!(""), "at least one of user or group must be specified"));
    }
    for (name, checks) in [("fieldSelector", field_term_errors as TermErrors), ("labelSelector", label_term_errors)] {
        errors.extend(selector_errors(&resource[name], &format!("spec.resourceAttributes.{name}"), checks));
    }
    let namespace = resource["namespace"].as_str().unwrap_or_default();
    if local && resource.is_object() && namespace != call.target.namespace {
        let detail = "must match metadata.namespace";
        errors.push(FieldError::invalid("spec.resourceAttributes.namespace", &json!(namespace), detail));
    }
    errors
}

type TermErrors = fn(&Value, &str) -> Vec<FieldError>;

/// What is wrong with a question about some of the objects only.
fn selector_errors(selector: &Value, path: &str, checks: TermErrors) -> Vec<FieldError> {
    if !selector.is_object() {
        return Vec::new();
    }
    let raw = &selector["rawSelector"];
    let is_raw = raw.as_str().is_some_and(|text| !text.is_empty());
    let terms: Vec<&Value> = selector["requirements"].as_array().into_iter().flatten().collect();
    let field = format!("{path}.requirements");
    let mut errors = Vec::new();
    if is_raw && !terms.is_empty() {
        let detail = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(format!("{path}.rawSelector"), raw, detail));
    }
    if !is_raw && terms.is_empty() {
        let detail = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(&*field, &detail));
    }
    errors.extend(terms.iter().enumerate().flat_map(|(index, term)| checks(term, &format!("{field}[{index}]"))));
    errors
}

/// Whether an operator takes values; what the server does not know may do as it likes.
fn values_error(term: &Value, path: &str) -> Option<FieldError> {
    let count = term["values"].as_array().map_or(0, Vec::len);
    let field = format!("{path}.values");
    match term["operator"].as_str().unwrap_or_default() {
        "In" | "NotIn" if count == 0 => {
            Some(FieldError::required(field, "must be specified when `operator` is 'In' or 'NotIn'"))
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            Some(FieldError::forbidden(field, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
        }
        _ => None,
    }
}

fn field_term_errors(term: &Value, path: &str) -> Vec<FieldError> {
    let none = term["key"].as_str().unwrap_or_default().is_empty();
    let missing = none.then(|| FieldError::required(format!("{path}.key"), "must be specified"));
    missing.into_iter().chain(values_error(term, path)).collect()
}

fn label_term_errors(term: &Value, path: &str) -> Vec<FieldError> {
    let key = term["key"].as_str().unwrap_or_default();
    let mut errors: Vec<FieldError> = values_error(term, path).into_iter().collect();
    errors.extend(FieldError::each(&format!("{path}.key"), &json!(key), names::qualified(key)));
    for (index, value) in term["values"].as_array().into_iter().flatten().enumerate() {
        let complaints = names::label_value(value.as_str().unwrap_or_default());
        errors.extend(FieldError::each(&format!("{path}.values[{index}]"), value, complaints));
    }
    errors
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
    let policy = state.policy();
    for rule in policy.rules_for(&call.user, namespace) {
        if !rule.resources.is_empty() {
            resources.push(resource_rule(rule));
        }
        if !rule.urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.urls}));
        }
    }
    let is_node = call.user.node().is_some();
    let mut problems = policy.missing_for(&call.user, namespace);
    if is_node {
        problems.insert(0, "node authorizer does not support user rule resolution".into());
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": is_node});
    if !problems.is_empty() {
        status["evaluationError"] = json!(in_one(&problems));
    }
    let version = call.resource.api_version();
    Ok(json!({"kind": "SelfSubjectRulesReview", "apiVersion": version, "metadata": {}, "spec": {}, "status": status}))
}

fn resource_rule(rule: &Rule) -> Value {
    let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
    if !rule.names.is_empty() {
        shown["resourceNames"] = json!(rule.names);
    }
    shown
}
