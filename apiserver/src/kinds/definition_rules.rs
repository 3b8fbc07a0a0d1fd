//! What is wrong with a CustomResourceDefinition.

use serde_json::{Value, json};

use super::{names, structural};
use crate::failure::{FieldError, go_quoted};
use crate::schema::cel_types::cel_path;
use crate::verbs::meta;

const APPROVAL: &str = "api-approved.kubernetes.io";
const PROTECTED: &str = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const SELECTABLE_MAX: usize = 8;

/// Errors of a definition, and of the change of one.
pub(super) fn validate(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut errors = Vec::new();
    if old.is_none() {
        let wanted = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
        if meta(definition, "name") != wanted {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid("metadata.name", &definition["metadata"]["name"], detail));
        }
    }
    errors.extend(spec_errors(spec));
    if let Some(old) = old {
        errors.extend(change_errors(spec, old));
    }
    errors.extend(name_errors(&definition["status"]["acceptedNames"], "status.acceptedNames"));
    errors.extend(stored_errors(definition));
    errors.extend(approval_error(definition, old));
    errors
}

/// Formats that the real server knows.
const FORMATS: [&str; 25] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
];

/// What is odd about a definition: formats that nobody checks.
pub(super) fn warnings(definition: &Value) -> Vec<String> {
    let mut unknown = std::collections::BTreeSet::new();
    for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
        collect_formats(&version["schema"]["openAPIV3Schema"], &mut unknown);
    }
    unknown.into_iter().map(|format| format!("unrecognized format \"{format}\"")).collect()
}

fn collect_formats<'a>(schema: &'a Value, unknown: &mut std::collections::BTreeSet<&'a str>) {
    if !schema.is_object() {
        return;
    }
    let known = |format: &str| FORMATS.contains(&&*format.replace('-', "")) || format == "k8s-long-name";
    if let Some(format) = schema["format"].as_str().filter(|format| !known(format) && schema["type"] == "string") {
        unknown.insert(format);
    }
    for words in ["properties", "definitions"] {
        schema[words].as_object().into_iter().flatten().for_each(|(_, own)| collect_formats(own, unknown));
    }
    for word in ["items", "additionalProperties", "not"] {
        collect_formats(&schema[word], unknown);
    }
    for words in ["allOf", "anyOf", "oneOf"] {
        schema[words].as_array().into_iter().flatten().for_each(|own| collect_formats(own, unknown));
    }
}

fn change_errors(spec: &Value, old: &Value) -> Vec<FieldError> {
    let established = old["status"]["conditions"].as_array().into_iter().flatten();
    let established =
        established.filter(|condition| condition["type"] == "Established" && condition["status"] == "True");
    let lasting: &[(&str, &str)] =
        if established.count() > 0 { &[("scope", "/scope"), ("names.kind", "/names/kind")] } else { &[] };
    let always = [("group", "/group"), ("names.plural", "/names/plural")];
    let mut errors = Vec::new();
    for (field, pointer) in lasting.iter().chain(&always) {
        let (new, old) = (spec.pointer(pointer), old["spec"].pointer(pointer));
        if new != old {
            let value = new.cloned().unwrap_or_default();
            errors.push(FieldError::invalid(format!("spec.{field}"), &value, "field is immutable"));
        }
    }
    errors
}

/// What all versions have alike stood once beside them, and errors are still shown there.
fn alike(versions: &[&Value], field: &str) -> bool {
    versions.iter().all(|version| !version[field].is_null() && version[field] == versions[0][field])
        && !versions.is_empty()
}

fn spec_errors(spec: &Value) -> Vec<FieldError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut errors = Vec::new();
    let group = text(&spec["group"]);
    let complaints = names::subdomain(&group);
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !complaints.is_empty() {
        errors.push(FieldError::invalid("spec.group", &spec["group"], &complaints.join(",")));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", &spec["group"], "should be a domain with at least one dot"));
    }
    errors.extend(one_of("spec.scope", &text(&spec["scope"]), &["Cluster", "Namespaced"]));
    let versions: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    if spec["preserveUnknownFields"] == true && versions.iter().any(|version| has_defaults(&version["schema"])) {
        let detail = "must be false in order to use defaults in the schema";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", &json!(true), detail));
    }
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            errors.push(FieldError::required(format!("spec.versions[{index}].schema.openAPIV3Schema"), ""));
        }
    }
    if spec["preserveUnknownFields"] == true {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", &json!(true), detail));
    }
    for (index, version) in versions.iter().enumerate() {
        errors.extend(version_errors(version, &format!("spec.versions[{index}]"), &versions));
    }
    errors.extend(version_list_errors(spec));
    if let Some(first) = versions.first() {
        // It once stood there alone, and is still looked at.
        errors.extend(version_name_error(first, "spec.version"));
    }
    for name in ["plural", "singular", "kind", "listKind"] {
        if text(&spec["names"][name]).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{name}"), ""));
        }
    }
    errors.extend(name_errors(&spec["names"], "spec.names"));
    if let Some(first) = versions.first() {
        if alike(&versions, "schema") {
            errors.extend(structural::errors(&first["schema"]["openAPIV3Schema"], "spec.validation.openAPIV3Schema"));
        }
        if alike(&versions, "subresources") {
            errors.extend(subresource_errors(&first["subresources"], "spec.subresources"));
        }
        if alike(&versions, "additionalPrinterColumns") {
            errors.extend(column_errors(&first["additionalPrinterColumns"], "spec.additionalPrinterColumns"));
        }
        if alike(&versions, "selectableFields") {
            errors.extend(selectable_errors(first, "spec.selectableFields"));
        }
    }
    errors.extend(conversion_errors(&spec["conversion"]));
    errors
}

fn one_of(field: &str, value: &str, accepted: &[&str]) -> Option<FieldError> {
    match value {
        "" => Some(FieldError::required(field, "")),
        value if accepted.contains(&value) => None,
        value => Some(FieldError::not_supported(field, &json!(value), accepted)),
    }
}

fn version_name_error(version: &Value, field: &str) -> Option<FieldError> {
    let complaints = names::label_1035(version["name"].as_str().unwrap_or_default());
    (!complaints.is_empty()).then(|| FieldError::invalid(field, &version["name"], &complaints.join(",")))
}

/// Whether some field of a schema has a default; one that is called so is a field.
fn has_defaults(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.iter().any(|(name, value)| match name.as_str() {
            "default" => true,
            "enum" | "example" => false,
            "properties" => value.as_object().into_iter().flatten().any(|(_, field)| has_defaults(field)),
            _ => has_defaults(value),
        }),
        Value::Array(list) => list.iter().any(has_defaults),
        _ => false,
    }
}

fn version_errors(version: &Value, path: &str, all: &[&Value]) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = version_name_error(version, &format!("{path}.name")).into_iter().collect();
    if let Some(warning) = version["deprecationWarning"].as_str() {
        let field = format!("{path}.deprecationWarning");
        let mut complaint = |detail: &str| errors.push(FieldError::invalid(&*field, &json!(warning), detail));
        if version["deprecated"] != true {
            complaint("can only be set for deprecated versions");
        } else if warning.is_empty() {
            complaint("must not be an empty string");
        } else if warning.len() > 256 {
            complaint("must be <= 256 characters long");
        }
    }
    if !alike(all, "schema") && version["schema"]["openAPIV3Schema"].is_object() {
        let at = format!("{path}.schema.openAPIV3Schema");
        errors.extend(structural::errors(&version["schema"]["openAPIV3Schema"], &at));
    }
    if !alike(all, "subresources") {
        errors.extend(subresource_errors(&version["subresources"], &format!("{path}.subresources")));
    }
    if !alike(all, "additionalPrinterColumns") {
        let at = format!("{path}.additionalPrinterColumns");
        errors.extend(column_errors(&version["additionalPrinterColumns"], &at));
    }
    if !alike(all, "selectableFields") {
        errors.extend(selectable_errors(version, &format!("{path}.selectableFields")));
    }
    errors
}

fn version_list_errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let versions: &Vec<&Value> = &spec["versions"].as_array().into_iter().flatten().collect();
    let names: Vec<&Value> = versions.iter().map(|version| &version["name"]).collect();
    let shown = if versions.is_empty() { "[]".to_owned() } else { go_versions(versions) };
    let complaint = |detail: &str| FieldError {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {shown}: {detail}"),
        field: "spec.versions".into(),
    };
    if (1..names.len()).any(|at| names[..at].contains(&names[at])) {
        errors.push(complaint("must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        errors.push(complaint("must have exactly one version marked as storage version"));
    }
    errors
}

/// Versions as Go prints them; what all have alike is not in them.
fn go_versions(versions: &[&Value]) -> String {
    let one = |version: &&Value| {
        let own = |field: &str| if alike(versions, field) { Value::Null } else { version[field].clone() };
        format!(
            "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{},\"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
            version["name"],
            version["served"] == true,
            version["storage"] == true,
            version["deprecated"] == true,
            version["deprecationWarning"],
            own("schema"),
            own("subresources"),
            own("additionalPrinterColumns"),
            own("selectableFields"),
        )
    };
    format!("[{}]", versions.iter().map(one).collect::<Vec<_>>().join(","))
}

fn name_errors(names_of: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |name: &str| names_of[name].as_str().unwrap_or_default();
    for name in ["plural", "singular"] {
        let complaints = names::label_1035(text(name));
        if !text(name).is_empty() && !complaints.is_empty() {
            errors.push(FieldError::invalid(format!("{path}.{name}"), &names_of[name], &complaints.join(",")));
        }
    }
    for name in ["kind", "listKind"] {
        let complaints = names::label_1035(&text(name).to_lowercase());
        if !text(name).is_empty() && !complaints.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", complaints.join(","));
            errors.push(FieldError::invalid(format!("{path}.{name}"), &names_of[name], &detail));
        }
    }
    let list = |field: &str| {
        let mut errors = Vec::new();
        for (index, word) in names_of[field].as_array().into_iter().flatten().enumerate() {
            let complaints = names::label_1035(word.as_str().unwrap_or_default());
            if !complaints.is_empty() {
                errors.push(FieldError::invalid(format!("{path}.{field}[{index}]"), word, &complaints.join(",")));
            }
        }
        errors
    };
    errors.extend(list("shortNames"));
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(format!("{path}.listKind"), &names_of["listKind"], detail));
    }
    errors.extend(list("categories"));
    errors
}

fn simple_path_error(path: &str, field: &str) -> Option<FieldError> {
    let detail = "must be a simple json path starting with .";
    (!path.starts_with('.')).then(|| FieldError::invalid(field, &json!(path), detail))
}

fn subresource_errors(subresources: &Value, path: &str) -> Vec<FieldError> {
    let scale = &subresources["scale"];
    if !scale.is_object() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    for (name, below, required) in [
        ("specReplicasPath", &[".spec."][..], true),
        ("statusReplicasPath", &[".status."], true),
        ("labelSelectorPath", &[".spec.", ".status."], false),
    ] {
        let field = format!("{path}.scale.{name}");
        let text = scale[name].as_str().unwrap_or_default();
        if text.is_empty() {
            errors.extend(required.then(|| FieldError::required(field, "")));
        } else if let Some(error) = simple_path_error(text, &field) {
            errors.push(error);
        } else if !below.iter().any(|prefix| text.starts_with(prefix)) {
            let detail = match below {
                [only] => format!("should be a json path under {}", only.trim_end_matches('.')),
                _ => "should be a json path under either .spec or .status".into(),
            };
            errors.push(FieldError::invalid(field, &json!(text), &detail));
        }
    }
    errors
}

fn column_errors(columns: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, column) in columns.as_array().into_iter().flatten().enumerate() {
        let at = |name: &str| format!("{path}[{index}].{name}");
        let text = |name: &str| column[name].as_str().unwrap_or_default();
        if text("name").is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        }
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        match text("type") {
            "" => errors.push(FieldError::required(at("type"), &detail)),
            kind if COLUMN_TYPES.contains(&kind) => {}
            kind => errors.push(FieldError::invalid(at("type"), &json!(kind), &detail)),
        }
        if !text("format").is_empty() && !COLUMN_FORMATS.contains(&text("format")) {
            let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(FieldError::invalid(at("format"), &column["format"], &detail));
        }
        match text("jsonPath") {
            "" => errors.push(FieldError::required(at("JSONPath"), "")),
            path => errors.extend(simple_path_error(path, &at("JSONPath"))),
        }
    }
    errors
}

fn selectable_errors(version: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, entry) in version["selectableFields"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{path}[{index}].jsonPath");
        let text = entry["jsonPath"].as_str().unwrap_or_default();
        if text.is_empty() {
            errors.push(FieldError::required(field, ""));
            continue;
        }
        let own = match cel_path(text, &version["schema"]["openAPIV3Schema"], false) {
            Ok(own) => own,
            Err(error) => {
                errors.push(FieldError::invalid(field, &json!(text), &format!("is an invalid path: {error}")));
                continue;
            }
        };
        if text.starts_with(".metadata") {
            errors.push(FieldError::invalid(&*field, &json!(text), "must not point to fields in metadata"));
        }
        if !matches!(own["type"].as_str(), Some("string" | "boolean" | "integer")) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(&*field, &json!(text), detail));
        }
        if seen.contains(&text) {
            errors.push(FieldError::duplicate(field, &json!(text)));
        } else {
            seen.push(text);
        }
    }
    if seen.len() > SELECTABLE_MAX {
        errors.push(FieldError::too_many(path, seen.len(), SELECTABLE_MAX));
    }
    errors
}

fn conversion_errors(conversion: &Value) -> Vec<FieldError> {
    if !conversion.is_object() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let strategy = conversion["strategy"].as_str().unwrap_or_default();
    errors.extend(one_of("spec.conversion.strategy", strategy, &["None", "Webhook"]));
    let webhook = &conversion["webhook"];
    if strategy == "Webhook" {
        if webhook["clientConfig"].is_null() {
            let detail = "required when strategy is set to Webhook";
            errors.push(FieldError::required("spec.conversion.webhookClientConfig", detail));
        }
        if webhook["conversionReviewVersions"].as_array().is_none_or(Vec::is_empty) {
            errors.push(FieldError::required("spec.conversion.conversionReviewVersions", ""));
        }
    } else {
        let detail = "should not be set when strategy is not set to Webhook";
        if webhook["clientConfig"].is_object() {
            errors.push(FieldError::forbidden("spec.conversion.webhookClientConfig", detail));
        }
        if webhook["conversionReviewVersions"].as_array().is_some_and(|list| !list.is_empty()) {
            errors.push(FieldError::forbidden("spec.conversion.conversionReviewVersions", detail));
        }
    }
    errors
}

fn stored_errors(definition: &Value) -> Vec<FieldError> {
    let stored: Vec<&str> =
        definition["status"]["storedVersions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let field = "status.storedVersions";
    if stored.is_empty() {
        return vec![FieldError::invalid(field, &Value::Null, "must have at least one stored version")];
    }
    let mut errors = Vec::new();
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let mut known = Vec::new();
    for version in versions {
        let name = version["name"].as_str().unwrap_or_default();
        known.push(name);
        if version["storage"] == true && !stored.contains(&name) {
            let detail = format!("must have the storage version {name}");
            errors.push(FieldError::invalid(field, &json!(stored), &detail));
        }
    }
    for (index, name) in stored.iter().enumerate().filter(|(_, name)| !known.contains(name)) {
        let detail = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        errors.push(FieldError::invalid(format!("{field}[{index}]"), &json!(name), &detail));
    }
    errors
}

/// Whether a group is one of the project itself.
fn is_protected(definition: &Value) -> bool {
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// Status, reason and message of the condition that tells whether a definition of a protected group is approved.
pub(super) fn approval(definition: &Value) -> Option<(&'static str, &'static str, String)> {
    if !is_protected(definition) {
        return None;
    }
    Some(match definition["metadata"]["annotations"][APPROVAL].as_str() {
        None => ("False", "MissingAnnotation", PROTECTED.to_owned()),
        Some(text) if text.starts_with("unapproved") => {
            ("False", "UnapprovedAnnotation", format!("not approved: {}", go_quoted(text)))
        }
        Some(text) if text.starts_with("https://") => ("True", "ApprovedAnnotation", format!("approved in {text}")),
        Some(_) => ("False", "InvalidAnnotation", malformed()),
    })
}

fn malformed() -> String {
    format!(
        "protected groups must have approval annotation \"{APPROVAL}\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
    )
}

/// Groups of the project itself need a word of approval.
fn approval_error(definition: &Value, old: Option<&Value>) -> Option<FieldError> {
    let protected = is_protected(definition);
    let approval = |definition: &Value| definition["metadata"]["annotations"][APPROVAL].as_str().map(str::to_owned);
    if !protected || old.is_some_and(|old| approval(old) == approval(definition)) {
        return None;
    }
    let field = format!("metadata.annotations[{APPROVAL}]");
    match approval(definition) {
        None => Some(FieldError::required(field, PROTECTED)),
        Some(text) if text.starts_with("unapproved") || text.starts_with("https://") => None,
        Some(text) => Some(FieldError::invalid(field, &json!(text), &malformed())),
    }
}
