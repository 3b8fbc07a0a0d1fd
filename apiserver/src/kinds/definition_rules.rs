//! What is wrong with a CustomResourceDefinition.

use serde_json::{Value, json};

use crate::failure::FieldError;
use crate::schema::validate::validate as check_value;
use crate::verbs::meta;

const APPROVAL: &str = "api-approved.kubernetes.io";
const PROTECTED: &str = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";

/// Errors of a definition, and of the change of one.
pub(super) fn validate(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let mut errors = Vec::new();
    if meta(definition, "name") != format!("{plural}.{group}") {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &definition["metadata"]["name"], detail));
    }
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")));
    if protected && definition["metadata"]["annotations"][APPROVAL].is_null() {
        errors.push(FieldError::required(format!("metadata.annotations[{APPROVAL}]"), PROTECTED));
    }
    if !matches!(spec["scope"].as_str(), Some("Cluster" | "Namespaced")) {
        errors.push(FieldError::not_supported("spec.scope", &spec["scope"], &["Cluster", "Namespaced"]));
    }
    errors.extend(version_errors(definition));
    if let Some(old) = old {
        for field in ["group", "scope"] {
            if old["spec"][field] != spec[field] {
                errors.push(FieldError::invalid(format!("spec.{field}"), &spec[field], "field is immutable"));
            }
        }
    }
    errors
}

fn version_errors(definition: &Value) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let versions: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    let mut errors = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            errors.push(FieldError::required(format!("spec.versions[{index}].schema.openAPIV3Schema"), ""));
        }
    }
    let stored: Vec<&&Value> = versions.iter().filter(|version| version["storage"] == true).collect();
    if errors.is_empty() && stored.len() != 1 {
        let shown: Vec<Value> =
            versions.iter().map(|version| json!({"Name": version["name"], "Storage": version["storage"]})).collect();
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &json!(shown), detail));
    }
    // One schema for all versions is shown at another place, where it once stood.
    let one = versions.iter().all(|version| version["schema"] == versions[0]["schema"]);
    for (index, version) in versions.iter().enumerate() {
        let path = match one {
            true => "spec.validation.openAPIV3Schema".to_owned(),
            false => format!("spec.versions[{index}].schema.openAPIV3Schema"),
        };
        errors.extend(schema_errors(&version["schema"]["openAPIV3Schema"], &path));
        if one {
            break;
        }
    }
    errors
}

/// A schema must be structural, its defaults must fit, and its rules must name known fields.
fn schema_errors(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let loose =
        ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"].iter().any(|word| schema[*word] == true);
    if schema.is_object() && schema["type"].is_null() && !loose {
        errors.push(FieldError::required(format!("{path}.type"), "must not be empty for specified object fields"));
    }
    if let Some(default) = schema.get("default") {
        let found = check_value(default, schema);
        errors.extend(found.into_iter().map(|error| FieldError { field: format!("{path}.default"), ..error }));
    }
    for (index, rule) in schema["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
        errors.extend(rule_error(rule, schema, &format!("{path}.x-kubernetes-validations[{index}].rule")));
    }
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        errors.extend(schema_errors(below, &format!("{path}.properties[{name}]")));
    }
    if schema["items"].is_object() {
        errors.extend(schema_errors(&schema["items"], &format!("{path}.items")));
    }
    if schema["additionalProperties"].is_object() {
        errors.extend(schema_errors(&schema["additionalProperties"], &format!("{path}.additionalProperties")));
    }
    errors
}

/// Rules are not compiled here, but a field of `self` that the schema does not have is found.
fn rule_error(rule: &Value, schema: &Value, path: &str) -> Option<FieldError> {
    let text = rule["rule"].as_str().unwrap_or_default();
    let fields = schema["properties"].as_object()?;
    let found = text.match_indices("self.").find_map(|(at, _)| {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let whole = !text[..at].chars().next_back().is_some_and(word);
        let name: String = text[at + 5..].chars().take_while(|c| word(*c)).collect();
        let call = text[at + 5 + name.len()..].starts_with('(');
        (whole && !call && !fields.contains_key(&name) && name != "metadata" && name != "kind" && name != "apiVersion")
            .then_some((at, name))
    });
    let (at, name) = found?;
    let (column, dots) = (at + 5, ".".repeat(at + 4));
    let detail =
        format!("compilation failed: ERROR: <input>:1:{column}: undefined field '{name}'\n | {text}\n | {dots}^");
    let escaped = Value::from(text).to_string().replace('>', "\\u003e").replace('<', "\\u003c").replace('&', "\\u0026");
    let message = rule["message"].as_str().unwrap_or_default();
    let shown = format!(
        "{{\"Rule\":{escaped},\"Message\":{},\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}",
        Value::from(message)
    );
    Some(FieldError {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {shown}: {detail}"),
        field: path.to_owned(),
    })
}
