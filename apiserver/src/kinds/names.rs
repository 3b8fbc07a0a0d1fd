//! Names, labels and other words with a form, and what is said about those that have not.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Value, json};

use crate::failure::FieldError;
use crate::registry::Resource;
use crate::verbs::meta;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(super) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn pattern(cell: &'static OnceLock<Option<Regex>>, text: &str) -> Option<&'static Regex> {
    cell.get_or_init(|| Regex::new(&format!("^(?:{text})$")).ok()).as_ref()
}

macro_rules! form {
    ($(#[$doc:meta])* $name:ident, $pattern:expr, $longest:expr) => {
        $(#[$doc])*
        pub fn $name(text: &str) -> bool {
            static CELL: OnceLock<Option<Regex>> = OnceLock::new();
            text.len() <= $longest && pattern(&CELL, $pattern).is_some_and(|regex| regex.is_match(text))
        }
    };
}

form!(/// An RFC 1123 subdomain.
    is_subdomain, r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", 253);
form!(/// An RFC 1123 label.
    is_label, "[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63);
form!(/// An RFC 1035 label.
    is_label_1035, "[a-z]([-a-z0-9]*[a-z0-9])?", 63);
form!(/// A value of a label.
    is_label_value, "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", 63);
form!(/// The name part of a label's key or a finalizer.
    is_name_part, "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", 63);
form!(/// A key of a ConfigMap or Secret.
    is_config_key, "[-._a-zA-Z0-9]+", 253);

/// Whether a word is `name` or `domain/name`.
pub fn is_qualified(word: &str) -> bool {
    match word.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name_part(name),
        None => is_name_part(word),
    }
}

fn name_problem(resource: &Resource, name: &str) -> Option<&'static str> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "services") => (!is_label_1035(name)).then_some(LABEL_1035),
        ("", "namespaces") if name.contains('.') => Some("must not contain dots"),
        ("", "namespaces") => (!is_label(name)).then_some(LABEL),
        // Roles may have any name that is a path segment.
        ("rbac.authorization.k8s.io", _) => None,
        _ => (!is_subdomain(name)).then_some(SUBDOMAIN),
    }
}

/// What is wrong with `metadata`.
pub fn metadata_errors(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if old.is_none() {
        errors.extend(crate::verbs::create::name_errors(object, |name| name_problem(resource, name)));
    }
    let metadata = &object["metadata"];
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            errors.push(FieldError::invalid("metadata.labels", &json!(key), QUALIFIED));
        }
        if !value.as_str().is_some_and(is_label_value) {
            errors.push(FieldError::invalid("metadata.labels", value, LABEL_VALUE));
        }
    }
    for key in metadata["annotations"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if !is_qualified(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", &json!(key), QUALIFIED));
        }
    }
    for (index, finalizer) in metadata["finalizers"].as_array().into_iter().flatten().enumerate() {
        let word = finalizer.as_str().unwrap_or_default();
        if !is_qualified(word) {
            errors.push(FieldError::invalid("metadata.finalizers", finalizer, QUALIFIED));
        } else if !word.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&word) {
            let field = format!("metadata.finalizers[{index}]");
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(field, finalizer, detail));
        }
    }
    errors.extend(owner_errors(metadata));
    let _ = meta(object, "name");
    errors
}

fn owner_errors(metadata: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let owners = metadata["ownerReferences"].as_array();
    for owner in owners.into_iter().flatten() {
        for (name, detail) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if owner[name].as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::invalid(format!("metadata.ownerReferences.{name}"), &json!(""), detail));
            }
        }
    }
    errors
}
