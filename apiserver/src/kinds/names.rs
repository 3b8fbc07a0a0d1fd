//! Names, labels and other words with a form, and what is said about those that have not.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Value, json};

use crate::failure::FieldError;
use crate::registry::Resource;
use crate::verbs::meta;

const LABEL_FORM: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FORM: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035_FORM: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE_FORM: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const CONFIG_KEY_FORM: &str = "[-._a-zA-Z0-9]+";
const QUALIFIED: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LONGEST_SUBDOMAIN: usize = 253;
const LONGEST_LABEL: usize = 63;
const LONGEST_PORT_NAME: usize = 15;
/// All annotations together.
const ANNOTATIONS_MAX: usize = 256 * 1024;

fn fits(cell: &'static OnceLock<Option<Regex>>, form: &str, text: &str) -> bool {
    cell.get_or_init(|| Regex::new(&format!("^(?:{form})$")).ok()).as_ref().is_some_and(|regex| regex.is_match(text))
}

macro_rules! matches_form {
    ($form:expr, $text:expr) => {{
        static CELL: OnceLock<Option<Regex>> = OnceLock::new();
        fits(&CELL, $form, $text)
    }};
}

/// What the rule is, with examples and the expression, as the real server puts it.
fn by_example(rule: &str, form: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{rule} (e.g. {}regex used for validation is '{form}')", examples.join(" or "))
}

fn too_long(text: &str, most: usize) -> Option<String> {
    (text.len() > most).then(|| format!("must be no more than {most} characters"))
}

/// What is wrong with an RFC 1123 label.
pub fn label(text: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(text, LONGEST_LABEL).into_iter().collect();
    if !matches_form!(LABEL_FORM, text) {
        let rule = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
        complaints.push(match matches_form!(SUBDOMAIN_FORM, text) {
            true => "must not contain dots".into(),
            false => by_example(rule, LABEL_FORM, &["my-name", "123-abc"]),
        });
    }
    complaints
}

/// What is wrong with an RFC 1123 subdomain.
pub fn subdomain(text: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(text, LONGEST_SUBDOMAIN).into_iter().collect();
    if !matches_form!(SUBDOMAIN_FORM, text) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        complaints.push(by_example(rule, SUBDOMAIN_FORM, &["example.com"]));
    }
    complaints
}

/// What is wrong with a subdomain that may have underscores.
pub fn subdomain_with_underscores(text: &str) -> Vec<String> {
    const FORM: &str = r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
    let mut complaints: Vec<String> = too_long(text, LONGEST_SUBDOMAIN).into_iter().collect();
    if !matches_form!(FORM, text) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        complaints.push(by_example(rule, FORM, &["example.com"]));
    }
    complaints
}

/// What is wrong with the name of an HTTP header.
pub fn header_name(text: &str) -> Vec<String> {
    const FORM: &str = "[-A-Za-z0-9]+";
    let rule = "a valid HTTP header must consist of alphanumeric characters or '-'";
    let complaint = || by_example(rule, FORM, &["X-Header-Name"]);
    (!matches_form!(FORM, text)).then(complaint).into_iter().collect()
}

/// What is wrong with a subdomain whose first part is a star.
pub fn wildcard(text: &str) -> Vec<String> {
    let form = format!(r"\*\.{SUBDOMAIN_FORM}");
    let mut complaints: Vec<String> = too_long(text, LONGEST_SUBDOMAIN).into_iter().collect();
    if !matches_form!(&form, text) {
        let rule = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        complaints.push(by_example(rule, &form, &["*.example.com"]));
    }
    complaints
}

/// What is wrong with `domain/path`.
pub fn domain_path_error(field: &str, text: &str) -> Option<FieldError> {
    let sound = text.split_once('/').is_some_and(|(domain, path)| {
        let segment = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
        subdomain(domain).is_empty() && !path.is_empty() && path.bytes().all(segment)
    });
    let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
    (!sound).then(|| FieldError::invalid(field, &json!(text), detail))
}

/// What is wrong with an RFC 1035 label.
pub fn label_1035(text: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(text, LONGEST_LABEL).into_iter().collect();
    if !matches_form!(LABEL_1035_FORM, text) {
        let rule = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        complaints.push(by_example(rule, LABEL_1035_FORM, &["my-name", "abc-123"]));
    }
    complaints
}

/// What is wrong with the value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(text, LONGEST_LABEL).into_iter().collect();
    if !matches_form!(LABEL_VALUE_FORM, text) {
        let rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        complaints.push(by_example(rule, LABEL_VALUE_FORM, &["MyValue", "my_value", "12345"]));
    }
    complaints
}

/// What is wrong with `name` or `domain/name`, as keys of labels and names of finalizers are.
pub fn qualified(text: &str) -> Vec<String> {
    let rule = || by_example(QUALIFIED, QUALIFIED_FORM, &["MyName", "my.name", "123-abc"]);
    let parts: Vec<&str> = text.split('/').collect();
    let mut complaints = Vec::new();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".into());
            } else {
                complaints.extend(subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
        _ => {
            let tail = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {} {tail}", rule())];
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".into());
    } else if let Some(long) = too_long(name, LONGEST_LABEL) {
        complaints.push(format!("name part {long}"));
    }
    if !matches_form!(QUALIFIED_FORM, name) {
        complaints.push(format!("name part {}", rule()));
    }
    complaints
}

/// What is wrong with a key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(text, LONGEST_SUBDOMAIN).into_iter().collect();
    if !matches_form!(CONFIG_KEY_FORM, text) {
        let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        complaints.push(by_example(rule, CONFIG_KEY_FORM, &["key.name", "KEY_NAME", "key-name"]));
    }
    match text {
        "." => complaints.push("must not be '.'".into()),
        ".." => complaints.push("must not be '..'".into()),
        text if text.starts_with("..") => complaints.push("must not start with '..'".into()),
        _ => {}
    }
    complaints
}

/// What is wrong with the name of a port (RFC 6335).
pub fn port_name(text: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(text, LONGEST_PORT_NAME).into_iter().collect();
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') || text.is_empty() {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        complaints.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".into());
    }
    complaints
}

/// What is wrong with the name of an environment variable.
pub fn variable_name(text: &str) -> Vec<String> {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()]
}

/// Whether a text is the name of an image.
pub fn is_image(text: &str) -> bool {
    const HOST: &str = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?";
    const PART: &str = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*";
    const LONGEST: usize = 255;
    const LIBRARY: usize = "docker.io/library/".len();
    let form =
        format!(r"(?:{HOST}/)?{PART}(?:/{PART})*(?::[\w][\w.-]{{0,127}})?(?:@[A-Za-z0-9+._-]+:[0-9a-fA-F]{{32,}})?");
    let name = text.split('@').next().unwrap_or_default();
    let library = if name.contains('/') { 0 } else { LIBRARY };
    name.len() + library <= LONGEST && matches_form!(&form, text)
}

/// What is wrong with the number of a port.
pub fn port_number(number: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&number)).then_some("must be between 1 and 65535, inclusive")
}

/// Names that are only a part of a path.
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|sign| text.contains(**sign)).map(|sign| format!("may not contain '{sign}'")).collect()
}

fn name_complaints(resource: &Resource, name: &str) -> Vec<String> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "services") => label_1035(name),
        ("", "namespaces") | ("apps", "statefulsets") => label(name),
        ("rbac.authorization.k8s.io", _) | ("", "events") => path_segment(name),
        _ => subdomain(name),
    }
}

/// The prefix of a generated name may end with what only the generated part makes valid.
fn masked(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{}a", &rest[..rest.len() - 1]),
        _ => prefix.to_owned(),
    }
}

/// What is wrong with the metadata of a new object.
pub fn metadata_errors(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = prefix_errors(resource, object);
    let name = meta(object, "name");
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        errors.extend(FieldError::each("metadata.name", &json!(name), name_complaints(resource, name)));
    }
    errors.extend(common_errors(&object["metadata"]));
    errors.extend(finalizer_form_errors(&object["metadata"]));
    errors.extend(managed_errors(&object["metadata"]));
    errors
}

/// What is wrong with the prefix of a name that is made.
pub fn prefix_errors(resource: &Resource, object: &Value) -> Vec<FieldError> {
    match meta(object, "generateName") {
        "" => Vec::new(),
        prefix => {
            let complaints = name_complaints(resource, &masked(prefix));
            FieldError::each("metadata.generateName", &json!(prefix), complaints)
        }
    }
}

/// What finalizers of any kind are like.
pub fn finalizer_form_errors(metadata: &Value) -> Vec<FieldError> {
    let list = metadata["finalizers"].as_array();
    let mut errors = Vec::new();
    for finalizer in list.into_iter().flatten() {
        let word = finalizer.as_str().unwrap_or_default();
        errors.extend(FieldError::each("metadata.finalizers", finalizer, qualified(word)));
    }
    let has = |word: &&str| list.is_some_and(|list| list.iter().any(|finalizer| finalizer == word));
    if ["orphan", "foregroundDeletion"].iter().all(has) {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid("metadata.finalizers", &metadata["finalizers"], detail));
    }
    errors
}

/// What is wrong with the change of metadata.
pub fn metadata_update_errors(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let list = |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if old["metadata"]["deletionTimestamp"].is_string() {
        let before = list(old);
        let mut fresh: Vec<String> =
            list(object).iter().filter(|f| !before.contains(f)).map(Value::to_string).collect();
        fresh.sort();
        if !fresh.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                fresh.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", &detail));
        }
    }
    errors.extend(common_errors(&object["metadata"]));
    errors.extend(managed_errors(&object["metadata"]));
    errors
}

/// What is wrong with labels, annotations and owners.
pub fn common_errors(metadata: &Value) -> Vec<FieldError> {
    let mut errors = label_errors(&metadata["labels"], "metadata.labels");
    errors.extend(annotation_errors(metadata, "metadata.annotations"));
    errors.extend(owner_errors(metadata));
    errors
}

/// Labels and annotations of what is made from a template.
pub fn template_metadata_errors(metadata: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = annotation_errors(metadata, &format!("{path}.annotations"));
    errors.extend(label_errors(&metadata["labels"], &format!("{path}.labels")));
    errors
}

fn annotation_errors(metadata: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        // The case of letters does not matter here.
        errors.extend(FieldError::each(field, &json!(key), qualified(&key.to_lowercase())));
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(field, ANNOTATIONS_MAX));
    }
    errors
}

/// Labels, and everything that is written like them.
pub fn label_errors(labels: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        errors.extend(FieldError::each(field, &json!(key), qualified(key)));
        errors.extend(FieldError::each(field, value, label_value(value.as_str().unwrap_or_default())));
    }
    errors
}

/// `matchLabels` and `matchExpressions`.
pub fn selector_errors(selector: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = label_errors(&selector["matchLabels"], &format!("{field}.matchLabels"));
    for (index, requirement) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let at = |name: &str| format!("{field}.matchExpressions[{index}].{name}");
        let values: Vec<&Value> = requirement["values"].as_array().into_iter().flatten().collect();
        match requirement["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(at("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(at("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(at("operator"), &json!(other), "not a valid selector operator")),
        }
        let key = requirement["key"].as_str().unwrap_or_default();
        errors.extend(FieldError::each(&at("key"), &json!(key), qualified(key)));
        for (number, value) in values.into_iter().enumerate() {
            let complaints = label_value(value.as_str().unwrap_or_default());
            errors.extend(FieldError::each(&format!("{}[{number}]", at("values")), value, complaints));
        }
    }
    errors
}

/// A selector that is refused, as Go's type is printed.
pub fn bad_selector(field: &str, selector: &Value, detail: &str) -> FieldError {
    let mut parts = Vec::new();
    for name in ["matchLabels", "matchExpressions"] {
        if let Some(part) = selector.get(name).filter(|part| !part.is_null()) {
            parts.push(format!("\"{name}\":{part}"));
        }
    }
    let shown = if selector.is_object() { format!("{{{}}}", parts.join(",")) } else { "null".into() };
    let message = format!("Invalid value: {shown}: {detail}");
    FieldError { reason: "FieldValueInvalid", message, field: field.into() }
}

/// Finalizers of built-in kinds are well known or belong to a domain.
pub fn finalizer_errors(metadata: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, finalizer) in metadata["finalizers"].as_array().into_iter().flatten().enumerate() {
        let word = finalizer.as_str().unwrap_or_default();
        if !word.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&word) {
            let field = format!("metadata.finalizers[{index}]");
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(field, finalizer, detail));
        }
    }
    errors
}

/// What is advised about the new finalizers of a custom resource.
pub fn finalizer_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let list = |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let before = old.map(list).unwrap_or_default();
    let mut fresh: Vec<String> = list(object)
        .iter()
        .filter(|finalizer| !before.contains(finalizer))
        .filter_map(|finalizer| finalizer.as_str().map(str::to_owned))
        .collect();
    fresh.sort();
    let mut warnings = Vec::new();
    for word in fresh {
        warnings.extend(qualified(&word).into_iter().map(|text| format!("metadata.finalizers: {word:?}: {text}")));
        if !word.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&word.as_str()) {
            let path = if word.contains('.') { " including a path (/)" } else { "" };
            warnings.push(format!(
                "metadata.finalizers: {word:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
            ));
        }
    }
    warnings
}

fn owner_errors(metadata: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (mut controller, owners) = (None, &metadata["ownerReferences"]);
    for owner in owners.as_array().into_iter().flatten() {
        let text = |name: &str| owner[name].as_str().unwrap_or_default().to_owned();
        for (name, detail) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(name).is_empty() {
                errors.push(FieldError::invalid(format!("metadata.ownerReferences.{name}"), &json!(""), detail));
            }
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid("metadata.ownerReferences", owner, detail));
        }
        if owner["controller"] == true {
            let name = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                None => controller = Some(name),
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    errors.push(FieldError::invalid("metadata.ownerReferences", owners, &detail));
                }
            }
        }
    }
    errors
}

fn managed_errors(metadata: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, entry) in metadata["managedFields"].as_array().into_iter().flatten().enumerate() {
        let operation = entry["operation"].as_str().unwrap_or_default();
        if operation != "Apply" && operation != "Update" {
            let field = format!("metadata.managedFields[{index}].operation");
            errors.push(FieldError::invalid(field, &json!(operation), "must be `Apply` or `Update`"));
        }
    }
    errors
}
