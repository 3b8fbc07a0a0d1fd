//! LimitRanges: their defaults, and what is wrong with them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::quantity::compare;
use crate::failure::FieldError;

const AMOUNTS: [&str; 5] = ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"];
const NOT_FOR_PODS: &str = "may not be specified when `type` is 'Pod'";
const TYPES: [&str; 3] = ["Pod", "Container", CLAIMS];
const CLAIMS: &str = "PersistentVolumeClaim";

/// What a container gets is the most it may have, if nothing else is said; and it asks for what it gets, or for the least.
pub(super) fn default(object: &mut Value) {
    for limit in object["spec"]["limits"].as_array_mut().into_iter().flatten() {
        if limit["type"] != "Container" {
            continue;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let known = limit[from].as_object().cloned().unwrap_or_default();
            if known.is_empty() {
                continue;
            }
            if !limit[to].is_object() {
                limit[to] = json!({});
            }
            let Some(amounts) = limit[to].as_object_mut() else { continue };
            for (name, amount) in known {
                amounts.entry(name).or_insert(amount);
            }
        }
        let Some(fields) = limit.as_object_mut() else { continue };
        fields.retain(|_, value| !value.is_null());
    }
}

/// What is wrong with a LimitRange.
pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut types = BTreeSet::new();
    for (index, limit) in object["spec"]["limits"].as_array().into_iter().flatten().enumerate() {
        let field = format!("spec.limits[{index}]");
        let kind = limit["type"].as_str().unwrap_or_default();
        if kind.is_empty() {
            errors.push(FieldError::required(format!("{field}.type"), ""));
        }
        // A type of one's own has a domain in its name.
        if !kind.is_empty() && !TYPES.contains(&kind) && !kind.contains('/') {
            let detail = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(format!("{field}.type"), &limit["type"], detail));
        }
        if !types.insert(kind) {
            errors.push(FieldError::duplicate(format!("{field}.type"), &limit["type"]));
        }
        let given = |name: &str| limit[name].as_object().is_some_and(|amounts| !amounts.is_empty());
        if kind == "Pod" {
            let wrong = ["default", "defaultRequest"].into_iter().filter(|name| given(name));
            errors.extend(wrong.map(|name| FieldError::forbidden(format!("{field}.{name}"), NOT_FOR_PODS)));
        }
        if kind == CLAIMS && limit["min"]["storage"].is_null() && limit["max"]["storage"].is_null() {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(format!("{field}.limits"), detail));
        }
        let names = AMOUNTS.iter().filter_map(|name| limit[*name].as_object()).flat_map(Map::keys);
        for name in names.collect::<BTreeSet<_>>() {
            errors.extend(order_errors(limit, name, &field));
        }
    }
    errors
}

/// Amounts of one resource that contradict each other.
fn order_errors(limit: &Value, name: &str, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let amount = |of: &str| limit[of].get(name).filter(|amount| !amount.is_null());
    let text = |amount: &Value| amount.as_str().unwrap_or_default().to_owned();
    // The smaller, the larger, how both are called, and the field and value that are blamed.
    let orders = [
        ("min", "max", "min value", "max value", "min", "min"),
        ("min", "defaultRequest", "min value", "default request value", "defaultRequest", "defaultRequest"),
        ("defaultRequest", "max", "default request value", "max value", "defaultRequest", "defaultRequest"),
        (
            "defaultRequest",
            "default",
            "default request value",
            "default limit value",
            "defaultRequest",
            "defaultRequest",
        ),
        ("min", "default", "min value", "default value", "default", "min"),
        ("default", "max", "default value", "max value", "default", "max"),
    ];
    for (small, large, small_words, large_words, blamed, shown) in orders {
        if let (Some(low), Some(high), Some(value)) = (amount(small), amount(large), amount(shown))
            && compare(low, high).is_gt()
        {
            let detail = format!("{small_words} {} is greater than {large_words} {}", text(low), text(high));
            errors.push(FieldError::invalid(format!("{field}.{blamed}[{name}]"), value, &detail));
        }
    }
    if let Some(ratio) = amount("maxLimitRequestRatio")
        && compare(ratio, &json!("1")).is_lt()
    {
        let detail = format!("ratio {} is less than 1", text(ratio));
        errors.push(FieldError::invalid(format!("{field}.maxLimitRequestRatio[{name}]"), ratio, &detail));
    }
    errors
}
