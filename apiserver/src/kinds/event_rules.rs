//! What is wrong with an event, and with the change of one.

use serde_json::{Value, json};

use super::names;
use crate::failure::FieldError;
use crate::verbs::meta;

const NOTE_MAX: usize = 1024;
/// What of an event never changes, with the names under which it is told. The reason is looked at twice.
const FIXED: [(&str, &str); 14] = [
    ("involvedObject", "involvedObject"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("firstTimestamp", "firstTimestamp"),
    ("lastTimestamp", "lastTimestamp"),
    ("count", "count"),
    ("reason", "reason"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// An event, in the core form; `new` says that it came through `events.k8s.io`.
pub(super) fn event(object: &Value, old: Option<&Value>, new: bool) -> Vec<FieldError> {
    let mut errors = event_form(object, new);
    if !new {
        return errors;
    }
    errors.extend(match old {
        Some(old) => change_errors(object, old),
        None => creation_errors(object),
    });
    errors
}

fn change_errors(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if object["series"] != old["series"] {
        errors.extend(series_errors(object));
    }
    let detail = "field is immutable";
    for (name, shown) in FIXED.into_iter().filter(|(name, _)| object[*name] != old[*name]) {
        errors.push(match reference_in_go(&object[name]) {
            Some(text) if matches!(name, "involvedObject" | "related") => FieldError {
                reason: "FieldValueInvalid",
                message: format!("Invalid value: {text}: {detail}"),
                field: shown.into(),
            },
            // A text that is gone is an empty one.
            _ if old[name].is_string() && object[name].is_null() => FieldError::invalid(shown, &json!(""), detail),
            _ => FieldError::invalid(shown, &object[name], detail),
        });
    }
    errors
}

fn creation_errors(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if object["eventTime"].is_null() {
        errors.push(FieldError::required("eventTime", ""));
    }
    if !matches!(text(object, "type"), "Normal" | "Warning") {
        let detail = format!("has invalid value: {}", text(object, "type"));
        errors.push(FieldError::invalid("type", &json!(""), &detail));
    }
    errors.extend(series_errors(object));
    let source = &object["source"];
    for (name, set) in [
        ("firstTimestamp", !object["firstTimestamp"].is_null()),
        ("lastTimestamp", !object["lastTimestamp"].is_null()),
        ("count", object["count"].as_i64().unwrap_or(0) != 0),
        ("source", !text(source, "component").is_empty() || !text(source, "host").is_empty()),
    ] {
        if set {
            errors.push(FieldError::invalid(name, &json!(""), "needs to be unset"));
        }
    }
    errors
}

fn series_errors(object: &Value) -> Vec<FieldError> {
    let series = &object["series"];
    let mut errors = Vec::new();
    if series.is_object() {
        if series["count"].as_i64().unwrap_or(0) < 2 {
            errors.push(FieldError::invalid("series.count", &json!(""), "should be at least 2"));
        }
        if series["lastObservedTime"].is_null() {
            errors.push(FieldError::required("series.lastObservedTime", ""));
        }
    }
    errors
}

/// What an event is about, as the text of Go's internal type.
fn reference_in_go(reference: &Value) -> Option<String> {
    let names = [
        ("Kind", "kind"),
        ("Namespace", "namespace"),
        ("Name", "name"),
        ("UID", "uid"),
        ("APIVersion", "apiVersion"),
        ("ResourceVersion", "resourceVersion"),
        ("FieldPath", "fieldPath"),
    ];
    let pairs = names.map(|(go, name)| format!("\"{go}\":{}", json!(text(reference, name))));
    reference.is_object().then(|| format!("{{{}}}", pairs.join(",")))
}

fn event_form(object: &Value, new: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (own, of) = (meta(object, "namespace"), text(&object["involvedObject"], "namespace"));
    let fits = match (object["eventTime"].is_null(), of) {
        (true, "") => own == "default",
        (false, "") => own == "default" || own == "kube-system",
        (true, of) => own == of,
        (false, _) => true,
    };
    if !fits {
        errors.push(FieldError::invalid("involvedObject.namespace", &json!(of), "does not match event.namespace"));
    }
    if object["eventTime"].is_null() {
        return errors;
    }
    let controller = if new { "reportingController" } else { "reportingComponent" };
    let component = text(object, "reportingComponent");
    if component.is_empty() {
        errors.push(FieldError::required(controller, ""));
    }
    errors.extend(FieldError::each(controller, &json!(component), names::qualified(component)));
    for name in ["reportingInstance", "action", "reason"] {
        match text(object, name) {
            "" => errors.push(FieldError::required(name, "")),
            long if long.len() > 128 => {
                errors.push(FieldError::invalid(name, &json!(""), "can have at most 128 characters"));
            }
            _ => {}
        }
    }
    if text(object, "message").len() > NOTE_MAX {
        errors.push(FieldError::invalid("message", &json!(""), "can have at most 1024 characters"));
    }
    errors
}
