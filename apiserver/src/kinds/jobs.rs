//! Jobs: defaults, the selector that the server makes, what is wrong with one and with the change of one.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::pods::{not_negative, template_errors};
use super::workload_rules::{is_sound, matches};
use super::{names, statuses};
use crate::failure::FieldError;

const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
/// Jobs whose pods have indices have no more pods at a time.
const INDEXED_MOST: i64 = 100_000;

/// Defaults that depend on what else is said.
pub(super) fn default(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if is_bare(object) && labels.is_object() {
        object["metadata"]["labels"] = labels;
    }
    let Some(spec) = object["spec"].as_object_mut() else { return };
    let given = |spec: &Map<String, Value>, name: &str| spec.get(name).is_some_and(|value| !value.is_null());
    if !given(spec, "completions") && !given(spec, "parallelism") {
        spec.insert("completions".into(), json!(1));
    }
    spec.entry("parallelism").or_insert(json!(1));
    let limit = if given(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    spec.entry("backoffLimit").or_insert(json!(limit));
    let replace = if given(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    spec.entry("podReplacementPolicy").or_insert(json!(replace));
}

/// Whether a Job has no labels of its own; it then shares those of its template, also the ones that the server adds.
pub(super) fn is_bare(object: &Value) -> bool {
    object["metadata"]["labels"].as_object().is_none_or(Map::is_empty)
}

/// Whether a new Job has no labels but those that the server gives its template: the real server gives it those when it is
/// stored, after it has been looked at.
pub(super) fn is_labelled_later(object: &Value) -> bool {
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    let given = |name: &String| !NAME_LABELS.iter().chain(&UID_LABELS).any(|label| label == name);
    *labels == object["metadata"]["labels"] && !labels.as_object().into_iter().flatten().any(|(name, _)| given(name))
}

/// Gives a new Job the labels and the selector by which its pods are told from those of others.
pub(super) fn select(object: &mut Value, bare: bool) {
    if object["spec"]["manualSelector"] == true {
        return;
    }
    let (name, uid) = (object["metadata"]["name"].clone(), object["metadata"]["uid"].clone());
    let template = &mut object["spec"]["template"];
    if !template["metadata"].is_object() {
        template["metadata"] = json!({});
    }
    for (labels, value) in [(NAME_LABELS, name), (UID_LABELS, uid.clone())] {
        for label in labels {
            if template["metadata"]["labels"][label].is_null() {
                template["metadata"]["labels"][label] = value.clone();
            }
        }
    }
    let labels = template["metadata"]["labels"].clone();
    if object["spec"]["selector"]["matchLabels"][UID_LABELS[1]].is_null() {
        object["spec"]["selector"]["matchLabels"][UID_LABELS[1]] = uid;
    }
    if bare {
        object["metadata"]["labels"] = labels;
    }
}

/// Errors of a Job, and of the change of one.
pub(super) fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &object["spec"];
    let own: Vec<FieldError> = [spec_errors(spec), pod_errors(spec), selector_errors(spec)].concat();
    let mut errors = generated_errors(object);
    errors.extend(own.iter().cloned());
    errors.extend(host_errors(object));
    if let Some(old) = old {
        // The real server looks at a changed spec twice, and tells it twice.
        errors.extend(own);
        errors.extend(change_errors(spec, &old["spec"]));
    }
    errors
}

/// A selector that the server has made must be there as it was made.
fn generated_errors(object: &Value) -> Vec<FieldError> {
    let (spec, metadata) = (&object["spec"], &object["metadata"]);
    if spec["manualSelector"] == true || spec["selector"].is_null() {
        return Vec::new();
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let mut errors = Vec::new();
    for (names, want) in [(UID_LABELS, &metadata["uid"]), (NAME_LABELS, &metadata["name"])] {
        for name in names.iter().rev() {
            let field = format!("spec.template.metadata.labels[{name}]");
            let wanted = want.as_str().unwrap_or_default();
            match &labels[*name] {
                Value::Null => errors.push(FieldError::required(field, &format!("must be '{wanted}'"))),
                found if found != want => {
                    errors.push(FieldError::invalid(field, labels, &format!("must be '{wanted}'")));
                }
                _ => {}
            }
        }
    }
    if spec["selector"] != json!({"matchLabels": {UID_LABELS[1]: metadata["uid"]}}) {
        errors.push(FieldError::invalid("spec.selector", &spec["selector"], "`selector` not auto-generated"));
    }
    errors
}

fn spec_errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for name in counts {
        errors.extend(not_negative(&spec[name], &format!("spec.{name}")));
    }
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        errors.push(FieldError::required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = spec["managedBy"].as_str() {
        errors.extend(names::domain_path_error("spec.managedBy", manager));
    }
    errors.extend(mode_errors(spec));
    if !spec["podFailurePolicy"].is_null() {
        errors.extend(failure_policy_errors(spec));
    }
    errors.extend(success_policy_errors(spec));
    let policies: &[&str] =
        if spec["podFailurePolicy"].is_null() { &["Failed", "TerminatingOrFailed"] } else { &["Failed"] };
    if let Some(policy) = spec["podReplacementPolicy"].as_str().filter(|policy| !policies.contains(policy)) {
        errors.push(FieldError::not_supported("spec.podReplacementPolicy", &json!(policy), policies));
    }
    errors
}

fn mode_errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let number = |name: &str| spec[name].as_i64();
    match spec["completionMode"].as_str() {
        Some("Indexed") => {
            let Some(completions) = number("completions") else {
                return vec![FieldError::required("spec.completions", "when completion mode is Indexed")];
            };
            if let Some(parallel) = number("parallelism").filter(|parallel| *parallel > INDEXED_MOST) {
                let detail = format!("must be less than or equal to {INDEXED_MOST} when completion mode is Indexed");
                errors.push(FieldError::invalid("spec.parallelism", &json!(parallel), &detail));
            }
            if let Some(most) = number("maxFailedIndexes").filter(|most| *most > completions) {
                let detail = "must be less than or equal to completions";
                errors.push(FieldError::invalid("spec.maxFailedIndexes", &json!(most), detail));
            }
        }
        Some("NonIndexed") | None => {
            for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(number) = number(name) {
                    let detail = "requires indexed completion mode";
                    errors.push(FieldError::invalid(format!("spec.{name}"), &json!(number), detail));
                }
            }
        }
        Some(other) => {
            let modes = ["NonIndexed", "Indexed"];
            errors.push(FieldError::not_supported("spec.completionMode", &json!(other), &modes));
        }
    }
    errors
}

fn failure_policy_errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let pod = &spec["template"]["spec"];
    let containers: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pod[*list].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str())
        .collect();
    for (index, rule) in spec["podFailurePolicy"]["rules"].as_array().into_iter().flatten().enumerate() {
        let path = format!("spec.podFailurePolicy.rules[{index}]");
        let action = rule["action"].as_str().unwrap_or_default();
        let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
        if action == "FailIndex" && spec["backoffLimitPerIndex"].is_null() {
            let detail = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(format!("{path}.action"), &rule["action"], detail));
        } else if action.is_empty() {
            let detail = "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]";
            errors.push(FieldError::required(format!("{path}.action"), detail));
        } else if !actions.contains(&action) {
            errors.push(FieldError::not_supported(format!("{path}.action"), &json!(action), &actions));
        }
        let (codes, conditions) = (&rule["onExitCodes"], &rule["onPodConditions"]);
        if codes.is_object() {
            errors.extend(exit_code_errors(codes, &format!("{path}.onExitCodes"), &containers));
        }
        let given = conditions.as_array().is_some_and(|list| !list.is_empty());
        if given {
            errors.extend(condition_errors(conditions, &format!("{path}.onPodConditions")));
        }
        let bare = |message: &str| FieldError {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {message}"),
            field: path.clone(),
        };
        match (codes.is_object(), given) {
            (true, true) => {
                errors.push(bare("specifying both OnExitCodes and OnPodConditions is not supported"));
            }
            (false, false) => errors.push(bare("specifying one of OnExitCodes and OnPodConditions is required")),
            _ => {}
        }
    }
    errors
}

fn exit_code_errors(codes: &Value, path: &str, containers: &BTreeSet<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let operator = codes["operator"].as_str().unwrap_or_default();
    if operator.is_empty() {
        errors.push(FieldError::required(format!("{path}.operator"), "valid values: [\"In\" \"NotIn\"]"));
    } else if !["In", "NotIn"].contains(&operator) {
        let field = format!("{path}.operator");
        errors.push(FieldError::not_supported(field, &json!(operator), &["In", "NotIn"]));
    }
    if let Some(name) = codes["containerName"].as_str().filter(|name| !containers.contains(name)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(format!("{path}.containerName"), &json!(name), detail));
    }
    let field = format!("{path}.values");
    let list: Vec<i64> = codes["values"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
    if list.is_empty() {
        errors.push(FieldError::invalid(field, &codes["values"], "at least one value is required"));
        return errors;
    }
    let mut seen = BTreeSet::new();
    for (index, value) in list.iter().enumerate() {
        let at = format!("{field}[{index}]");
        if operator == "In" && *value == 0 {
            errors.push(FieldError::invalid(at.clone(), &json!(0), "must not be 0 for the In operator"));
        }
        if !seen.insert(value) {
            errors.push(FieldError::duplicate(at, &json!(value)));
        }
    }
    if !list.is_sorted() {
        errors.push(FieldError::invalid(field, &json!(list), "must be ordered"));
    }
    errors
}

fn condition_errors(conditions: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, pattern) in conditions.as_array().into_iter().flatten().enumerate() {
        let kind = pattern["type"].as_str().unwrap_or_default();
        errors.extend(FieldError::each(&format!("{path}[{index}].type"), &json!(kind), names::qualified(kind)));
        let words = ["False", "True", "Unknown"];
        if let Some(status) = pattern["status"].as_str().filter(|status| !words.contains(status)) {
            errors.push(FieldError::not_supported(format!("{path}[{index}].status"), &json!(status), &words));
        }
    }
    errors
}

fn pod_errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = template_errors(&spec["template"], "spec.template");
    let policy = &spec["template"]["spec"]["restartPolicy"];
    let field = "spec.template.spec.restartPolicy";
    match policy.as_str().unwrap_or_default() {
        "" | "Always" => {
            errors.push(FieldError::required(field, "valid values: \"OnFailure\", \"Never\""));
        }
        "Never" => {}
        "OnFailure" if spec["podFailurePolicy"].is_null() => {}
        "OnFailure" => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(field, policy, detail));
        }
        _ => errors.push(FieldError::not_supported(field, policy, &["OnFailure", "Never"])),
    }
    errors
}

fn selector_errors(spec: &Value) -> Vec<FieldError> {
    let (selector, labels) = (&spec["selector"], &spec["template"]["metadata"]["labels"]);
    let mut errors = match selector {
        Value::Null => vec![FieldError::required("spec.selector", "")],
        selector => names::selector_errors(selector, "spec.selector"),
    };
    if is_sound(selector) && !matches(selector, labels) {
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", labels, detail));
    }
    errors
}

/// Pods of an indexed Job are called after it, and hosts after them.
fn host_errors(object: &Value) -> Option<FieldError> {
    let spec = &object["spec"];
    let completions = spec["completions"].as_i64().filter(|completions| *completions > 0)?;
    if spec["completionMode"] != "Indexed" {
        return None;
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let host = format!("{name}-{}", completions - 1);
    let detail = format!("will not able to create pod with invalid DNS label: {host}");
    (!names::label(&host).is_empty()).then(|| FieldError::invalid("metadata.name", &json!(name), &detail))
}

/// What of a template a Job that has not begun may change.
const SCHEDULING: [&str; 4] = ["affinity", "nodeSelector", "tolerations", "schedulingGates"];

fn change_errors(spec: &Value, old: &Value) -> Vec<FieldError> {
    // An indexed Job may grow and shrink, if both of its numbers do.
    let indexed = spec["completionMode"] == "Indexed";
    let elastic = spec["completions"] == old["completions"] || spec["completions"] == spec["parallelism"];
    let tandem = (indexed && !elastic).then(|| {
        let detail = "can only be modified in tandem with spec.parallelism";
        FieldError::invalid("spec.completions", &spec["completions"], detail)
    });
    let mut errors: Vec<FieldError> = tandem.into_iter().collect();
    let mut fixed = |name: &str, same: bool| {
        if !same {
            let field = format!("spec.{name}");
            errors.push(FieldError::invalid(field, &spec[name], "field is immutable"));
        }
    };
    fixed("completions", spec["completions"] == old["completions"] || indexed);
    fixed("selector", spec["selector"] == old["selector"]);
    fixed("template", fixed_part(spec, old) == fixed_part(old, old));
    fixed("completionMode", spec["completionMode"] == old["completionMode"]);
    let fixed_policy = |name: &str| {
        let message = format!("Invalid value: {}: field is immutable", in_go(&spec[name]));
        let field = format!("spec.{name}");
        (spec[name] != old[name]).then_some(FieldError { reason: "FieldValueInvalid", message, field })
    };
    errors.extend(fixed_policy("podFailurePolicy"));
    for name in ["backoffLimitPerIndex", "managedBy"] {
        if spec[name] != old[name] {
            errors.push(FieldError::invalid(format!("spec.{name}"), &spec[name], "field is immutable"));
        }
    }
    errors.extend(fixed_policy("successPolicy"));
    errors
}

/// The parts of the policies of a Job, in the order of Go's internal types.
const POLICY_FIELDS: [(&str, &[&str]); 5] = [
    ("rules", &["rules"]),
    ("action", &["action", "onExitCodes", "onPodConditions"]),
    ("values", &["containerName", "operator", "values"]),
    ("type", &["type", "status"]),
    ("succeededCount", &["succeededIndexes", "succeededCount"]),
];

/// A policy as Go's internal type is printed: names begin with capitals, and nothing is left out.
fn in_go(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(in_go).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let known = POLICY_FIELDS.iter().find(|(_, fields)| fields.iter().any(|name| map.contains_key(*name)));
            let pair = |name: &&str| {
                let (first, rest) = name.split_at(1);
                format!("\"{}{rest}\":{}", first.to_uppercase(), map.get(*name).map_or("null".into(), in_go))
            };
            let fields = known.map_or(&[][..], |(_, fields)| *fields);
            format!("{{{}}}", fields.iter().map(pair).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// The template without what the change from `old` may touch.
fn fixed_part(spec: &Value, old: &Value) -> Value {
    let mut template = spec["template"].clone();
    if old["suspend"] != true {
        return template;
    }
    for (place, names) in [("spec", &SCHEDULING[..]), ("metadata", &["annotations", "labels"][..])] {
        if let Some(fields) = template[place].as_object_mut() {
            fields.retain(|name, _| !names.contains(&name.as_str()));
        }
    }
    template
}

/// Errors of `/status`.
pub(super) fn validate_status(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = statuses::job(object, old);
    let (done, spec) = (&object["status"]["completedIndexes"], &object["spec"]);
    if let Some(text) = done.as_str().filter(|text| !text.is_empty())
        && spec["completionMode"] == "Indexed"
        && let Err(why) = count_indices(text, spec["completions"].as_i64().unwrap_or(0))
    {
        let detail = format!("error parsing completedIndexes: {why}");
        errors.push(FieldError::invalid("status.completedIndexes", done, &detail));
    }
    errors
}

/// How many indices a text such as `0,3-5` names, all of them below `completions`; or what is wrong with it.
fn count_indices(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut count, mut last) = (0, None);
    let number =
        |word: &str| word.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {word:?}"));
    for part in text.split(',') {
        let bounds: Vec<&str> = part.split('-').collect();
        if bounds.len() > 2 {
            return Err(format!(
                "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let first = number(bounds[0])?;
        if first >= completions {
            return Err(format!("too large index: {:?}", bounds[0]));
        }
        if let Some(last) = last.filter(|last| first <= *last) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        let mut end = first;
        if let Some(word) = bounds.get(1) {
            end = number(word)?;
            if end >= completions {
                return Err(format!("too large index: {word:?}"));
            }
            if first >= end {
                return Err(format!("non-increasing order, previous: {first}, current: {end}"));
            }
        }
        count += end - first + 1;
        last = Some(end);
    }
    Ok(count)
}

const RULES_MOST: usize = 20;

/// `successPolicy`.
fn success_policy_errors(spec: &Value) -> Vec<FieldError> {
    let (policy, path) = (&spec["successPolicy"], "spec.successPolicy");
    if !policy.is_object() {
        return Vec::new();
    }
    let rules: Vec<&Value> = policy["rules"].as_array().into_iter().flatten().collect();
    if spec["completionMode"] != "Indexed" {
        let shown: Vec<String> = rules
            .iter()
            .map(|rule| {
                let (indices, count) = (&rule["succeededIndexes"], &rule["succeededCount"]);
                format!("{{\"SucceededIndexes\":{indices},\"SucceededCount\":{count}}}")
            })
            .collect();
        let shown = if policy["rules"].is_array() { format!("[{}]", shown.join(",")) } else { "null".into() };
        let message = format!("Invalid value: {{\"Rules\":{shown}}}: requires indexed completion mode");
        return vec![FieldError { reason: "FieldValueInvalid", message, field: path.into() }];
    }
    let field = format!("{path}.rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        return vec![FieldError::required(field, detail)];
    }
    if rules.len() > RULES_MOST {
        return vec![FieldError::too_many(field, rules.len(), RULES_MOST)];
    }
    let completions = spec["completions"].as_i64().unwrap_or(0);
    let each = rules.iter().enumerate();
    each.flat_map(|(index, rule)| success_rule_errors(rule, &format!("{field}[{index}]"), completions)).collect()
}

fn success_rule_errors(rule: &Value, path: &str, completions: i64) -> Vec<FieldError> {
    let (indices, count) = (&rule["succeededIndexes"], &rule["succeededCount"]);
    if indices.is_null() && count.is_null() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        return vec![FieldError::required(path, detail)];
    }
    let mut errors = Vec::new();
    let mut named = 0;
    if let Some(text) = indices.as_str() {
        match count_indices(text, completions) {
            Ok(count) => named = count,
            Err(why) => {
                let detail = format!("error parsing succeededIndexes: {why}");
                errors.push(FieldError::invalid(format!("{path}.succeededIndexes"), indices, &detail));
            }
        }
    }
    let Some(wanted) = count.as_i64() else { return errors };
    let field = format!("{path}.succeededCount");
    errors.extend(not_negative(count, &field));
    let mut at_most = |most: i64, what: &str| {
        if wanted > most {
            let detail = format!("must be less than or equal to {most} ({what})");
            errors.push(FieldError::invalid(&*field, count, &detail));
        }
    };
    at_most(completions, "the number of specified completions");
    if indices.is_string() {
        at_most(named, "the number of indexes in the specified succeededIndexes field");
    }
    errors
}
