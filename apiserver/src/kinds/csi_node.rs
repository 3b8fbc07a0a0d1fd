//! What is wrong with CSINodes: the drivers of a node, each of which stays as it was registered.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{names, pods::not_negative};
use crate::failure::FieldError;

const NODE_ID_MAX: usize = 256;

/// Errors of a CSINode, and of the change of one.
pub(super) fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, driver) in drivers(object).enumerate() {
        let field = format!("spec.drivers[{index}]");
        errors.extend(driver_errors(driver, &field));
        if !seen.insert(driver["name"].as_str()) {
            errors.push(FieldError::duplicate(format!("{field}.name"), &driver["name"]));
        }
        errors.extend(key_errors(driver, &field));
    }
    for before in old.into_iter().flat_map(drivers) {
        let changed = drivers(object).filter(|driver| driver["name"] == before["name"] && *driver != before);
        errors.extend(changed.map(|driver| FieldError {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: field is immutable", held(driver)),
            field: "spec.drivers".into(),
        }));
    }
    errors
}

fn drivers(object: &Value) -> impl Iterator<Item = &Value> {
    object["spec"]["drivers"].as_array().into_iter().flatten()
}

fn driver_errors(driver: &Value, field: &str) -> Vec<FieldError> {
    let text = |name: &str| driver[name].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    let name = format!("{field}.name");
    if text("name").is_empty() {
        errors.push(FieldError::required(&*name, ""));
    }
    errors.extend(FieldError::each(&name, &json!(text("name")), names::subdomain(&text("name").to_lowercase())));
    let id = format!("{field}.nodeID");
    if text("nodeID").is_empty() {
        errors.push(FieldError::required(id, ""));
    } else if text("nodeID").len() > NODE_ID_MAX {
        let detail = format!("must be {NODE_ID_MAX} characters or less");
        errors.push(FieldError::invalid(id, &driver["nodeID"], &detail));
    }
    errors.extend(not_negative(&driver["allocatable"]["count"], &format!("{field}.allocatable.count")));
    errors
}

fn key_errors(driver: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for key in driver["topologyKeys"].as_array().into_iter().flatten() {
        let word = key.as_str().unwrap_or_default();
        if word.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if !seen.insert(word) {
            errors.push(FieldError::duplicate(field, key));
        }
        errors.extend(FieldError::each(field, key, names::qualified(word)));
    }
    errors
}

/// A driver as the real server holds and shows it.
fn held(driver: &Value) -> String {
    let allocatable = match &driver["allocatable"] {
        Value::Null => Value::Null,
        given => json!({"Count": given["count"]}),
    };
    format!(
        "{{\"Name\":{},\"NodeID\":{},\"TopologyKeys\":{},\"Allocatable\":{allocatable}}}",
        driver["name"], driver["nodeID"], driver["topologyKeys"]
    )
}
