//! PersistentVolumes, the claims for them, and the classes and drivers that they come from.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{names, pod_rules, pod_volumes, quantity};
use crate::failure::FieldError;

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const ALONE: &str = "ReadWriteOncePod";
/// Fields of a volume that are no source of it.
const NO_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];
const CLAIM_FIXED: &str =
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Where the data of a claim comes from has an old and a new field.
pub(super) fn default_claim(claim: &mut Value) {
    let Some(spec) = claim["spec"].as_object_mut() else { return };
    let own = spec.get("dataSource").filter(|source| !source.is_null()).cloned();
    let kind = |source: &Value| (text(source, "apiGroup").to_owned(), text(source, "kind").to_owned());
    let known = |source: &Value| {
        let (group, kind) = kind(source);
        matches!(
            (group.as_str(), kind.as_str()),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        )
    };
    match (own, spec.get("dataSourceRef").filter(|source| !source.is_null()).cloned()) {
        (Some(own), _) if !known(&own) => {
            spec.remove("dataSource");
        }
        (Some(own), None) => {
            spec.insert("dataSourceRef".into(), own);
        }
        (None, Some(reference)) if known(&reference) && text(&reference, "namespace").is_empty() => {
            spec.insert("dataSource".into(), reference);
        }
        _ => {}
    }
}

/// A new claim, or a new volume, waits.
pub(super) fn prepare_claim(object: &mut Value) {
    object["status"] = json!({"phase": "Pending"});
}

/// See [`prepare_claim`].
pub(super) fn prepare_volume(object: &mut Value) {
    object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": object["metadata"]["creationTimestamp"]});
}

/// A new phase of a volume has a time.
pub(super) fn mark_phase(object: &mut Value, current: &Value, now: &str) {
    // A client may say when it was.
    let time = |object: &Value| object["status"]["lastPhaseTransitionTime"].clone();
    let said = !time(object).is_null() && time(object) != time(current);
    if object["status"]["phase"] != current["status"]["phase"] && !said {
        object["status"]["lastPhaseTransitionTime"] = json!(now);
    }
}

/// Volumes of a driver last, if it does not say otherwise.
pub(super) fn default_driver(object: &mut Value) {
    let modes = &mut object["spec"]["volumeLifecycleModes"];
    if modes.as_array().is_none_or(Vec::is_empty) {
        *modes = json!(["Persistent"]);
    }
}

fn mode_errors(spec: &Value, path: &str, none: &str) -> Vec<FieldError> {
    let (modes, field) = (words(&spec["accessModes"]), format!("{path}.accessModes"));
    if modes.is_empty() {
        return vec![FieldError::required(field, none)];
    }
    let unknown = modes.iter().filter(|mode| !MODES.contains(mode));
    let mut errors: Vec<FieldError> =
        unknown.map(|mode| FieldError::not_supported(&*field, &json!(mode), &MODES)).collect();
    if modes.len() > 1 && modes.contains(&ALONE) {
        errors.push(FieldError::forbidden(field, &format!("may not use {ALONE} with other access modes")));
    }
    errors
}

fn volume_mode_error(spec: &Value, path: &str) -> Option<FieldError> {
    let known = ["Block", "Filesystem"];
    let mode = spec["volumeMode"].as_str().filter(|mode| !known.contains(mode))?;
    Some(FieldError::not_supported(format!("{path}.volumeMode"), &json!(mode), &known))
}

fn class_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    match text(spec, "storageClassName") {
        "" => Vec::new(),
        name => FieldError::each(&format!("{path}.storageClassName"), &json!(name), names::subdomain(name)),
    }
}

fn positive(amount: &Value, field: &str) -> Option<FieldError> {
    let sign = quantity::compare(amount, &json!("0"));
    (sign != Ordering::Greater).then(|| FieldError::invalid(field, amount, "must be greater than zero"))
}

/// Errors of a volume, and of the change of one.
pub(super) fn validate_volume(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = mode_errors(spec, "spec", "");
    errors.extend(capacity_errors(&spec["capacity"]));
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !policies.contains(&policy) {
        let field = "spec.persistentVolumeReclaimPolicy";
        errors.push(FieldError::not_supported(field, &json!(policy), &policies));
    }
    errors.extend(affinity_errors(&spec["nodeAffinity"]));
    errors.extend(source_errors(spec));
    if spec["hostPath"]["path"] == "/" && policy == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden("spec.persistentVolumeReclaimPolicy", detail));
    }
    errors.extend(class_errors(spec, "spec"));
    errors.extend(volume_mode_error(spec, "spec"));
    if let Some(old) = old {
        // The real server looks at a changed volume twice, and tells it twice.
        errors.extend(errors.clone());
        let sources = |object: &Value| -> Vec<(String, Value)> {
            let fields = object["spec"].as_object().into_iter().flatten();
            let fields = fields.filter(|(name, _)| !NO_SOURCE.contains(&name.as_str()));
            fields.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        if sources(object) != sources(old) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
        }
        if spec["volumeMode"] != old["spec"]["volumeMode"] {
            errors.push(FieldError::invalid("volumeMode", &spec["volumeMode"], "field is immutable"));
        }
    }
    errors
}

fn capacity_errors(capacity: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let amounts = capacity.as_object();
    if amounts.is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required("spec.capacity", ""));
    }
    if amounts.is_none_or(|amounts| amounts.len() != 1 || !amounts.contains_key("storage")) {
        errors.push(FieldError::not_supported("spec.capacity", capacity, &["storage"]));
    }
    for (name, amount) in amounts.into_iter().flatten() {
        let field = format!("spec.capacity[{name}]");
        if quantity::compare(amount, &json!("0")) == Ordering::Less {
            let shown = amount.as_str().unwrap_or_default();
            let message = format!("Invalid value: {shown}: must be a valid resource quantity");
            errors.push(FieldError { reason: "FieldValueInvalid", message, field: field.clone() });
        }
        if name == "storage" {
            errors.extend(positive(amount, &field));
        }
    }
    errors
}

fn affinity_errors(affinity: &Value) -> Vec<FieldError> {
    let field = "spec.nodeAffinity.required";
    if affinity.is_null() {
        return Vec::new();
    }
    if affinity["required"].is_null() {
        return vec![FieldError::required(field, "must specify required node constraints")];
    }
    pod_rules::node_selector_errors(&affinity["required"], field, false)
}

fn source_errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let fields = spec.as_object().into_iter().flatten();
    let sources: Vec<_> = fields.filter(|(name, _)| !NO_SOURCE.contains(&name.as_str())).collect();
    if sources.is_empty() {
        errors.push(FieldError::required("spec", "must specify a volume type"));
    }
    for (number, (kind, source)) in sources.into_iter().enumerate() {
        let path = format!("spec.{kind}");
        if number > 0 {
            errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type"));
            continue;
        }
        let required = |name: &str| {
            let missing = source[name].as_str().unwrap_or_default().is_empty();
            missing.then(|| FieldError::required(format!("{path}.{name}"), ""))
        };
        match kind.as_str() {
            "nfs" => {
                errors.extend(required("server"));
                match required("path") {
                    Some(missing) => errors.push(missing),
                    None if !text(source, "path").starts_with('/') => {
                        let detail = "must be an absolute path";
                        errors.push(FieldError::invalid(format!("{path}.path"), &source["path"], detail));
                    }
                    None => {}
                }
            }
            "local" => {
                errors.extend(required("path"));
                if spec["nodeAffinity"].is_null() {
                    errors.push(FieldError::required("spec.nodeAffinity", "Local volume requires node affinity"));
                }
            }
            "csi" => errors.extend(csi_errors(source, &path)),
            kind => errors.extend(pod_volumes::source_errors(source, kind, &path)),
        }
    }
    errors
}

fn csi_errors(source: &Value, path: &str) -> Vec<FieldError> {
    let driver = text(source, "driver");
    let mut errors = match driver {
        "" => vec![FieldError::required(format!("{path}.driver"), "")],
        driver => FieldError::each(&format!("{path}.driver"), &json!(driver), names::subdomain(driver)),
    };
    if text(source, "volumeHandle").is_empty() {
        errors.push(FieldError::required(format!("{path}.volumeHandle"), ""));
    }
    for name in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        if source[name].is_object() {
            let parts = ["name", "namespace"].into_iter().filter(|part| text(&source[name], part).is_empty());
            errors.extend(parts.map(|part| FieldError::required(format!("{path}.{name}.{part}"), "")));
        }
    }
    errors
}

/// What a pod says of the claim that is made for it.
pub(super) fn template_errors(template: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = names::template_metadata_errors(&template["metadata"], &format!("{path}.metadata"));
    errors.extend(claim_errors(&template["spec"], &format!("{path}.spec")));
    errors
}

/// What is wrong with the `spec` of a claim.
pub(super) fn claim_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let modes = words(&spec["accessModes"]);
    let mut errors = Vec::new();
    if modes.is_empty() {
        errors.push(FieldError::required(at("accessModes"), "at least 1 access mode is required"));
    }
    if spec["selector"].is_object() {
        errors.extend(names::selector_errors(&spec["selector"], &at("selector")));
    }
    if !modes.is_empty() {
        errors.extend(mode_errors(spec, path, ""));
    }
    match &spec["resources"]["requests"]["storage"] {
        Value::Null => errors.push(FieldError::required(at("resources[storage]"), "")),
        amount => errors.extend(positive(amount, &at("resources[storage]"))),
    }
    errors.extend(class_errors(spec, path));
    errors.extend(volume_mode_error(spec, path));
    for name in ["dataSource", "dataSourceRef"] {
        errors.extend(origin_errors(&spec[name], &at(name)));
    }
    // What is shown is the path, of which Go's encoder sees nothing.
    let shown = json!({});
    if !text(&spec["dataSourceRef"], "namespace").is_empty() {
        if spec["dataSource"].is_object() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            errors.push(FieldError::invalid(path, &shown, detail));
        }
    } else if spec["dataSource"].is_object()
        && spec["dataSourceRef"].is_object()
        && ["apiGroup", "kind", "name"]
            .iter()
            .any(|name| text(&spec["dataSource"], name) != text(&spec["dataSourceRef"], name))
    {
        errors.push(FieldError::invalid(path, &shown, "must match dataSourceRef"));
    }
    errors
}

/// Where the data of a claim comes from.
fn origin_errors(origin: &Value, path: &str) -> Vec<FieldError> {
    if !origin.is_object() {
        return Vec::new();
    }
    let missing = ["name", "kind"].into_iter().filter(|name| text(origin, name).is_empty());
    let mut errors: Vec<FieldError> = missing.map(|name| FieldError::required(format!("{path}.{name}"), "")).collect();
    match text(origin, "apiGroup") {
        "" if text(origin, "kind") != "PersistentVolumeClaim" => {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(path, &json!(text(origin, "kind")), detail));
        }
        "" => {}
        group => {
            errors.extend(FieldError::each(&format!("{path}.apiGroup"), &json!(group), names::subdomain(group)));
        }
    }
    errors
}

/// Errors of a claim, and of the change of one.
pub(super) fn validate_claim(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = claim_errors(spec, "spec");
    let Some(old) = old else { return errors };
    let bound = old["status"]["phase"] == "Bound";
    if fixed_part(object, old, bound) != fixed_part(old, old, bound) {
        errors.push(FieldError::forbidden("spec", CLAIM_FIXED));
    }
    let (wanted, has) = (&spec["resources"]["requests"]["storage"], &old["status"]["capacity"]["storage"]);
    let before = &old["spec"]["resources"]["requests"]["storage"];
    if quantity::compare(wanted, before) == Ordering::Less
        && (has.is_null() || quantity::compare(wanted, has) == Ordering::Less)
    {
        let detail = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
    errors
}

/// What of a claim may not change: the name of its volume is set once, a class may be put in later.
fn fixed_part(object: &Value, old: &Value, bound: bool) -> Value {
    let mut spec = object["spec"].clone();
    let Some(fields) = spec.as_object_mut() else { return spec };
    for name in ["volumeName", "storageClassName"] {
        if old["spec"][name].as_str().unwrap_or_default().is_empty() {
            fields.remove(name);
        }
    }
    if bound {
        fields.remove("volumeAttributesClassName");
        if let Some(requests) = spec["resources"]["requests"].as_object_mut() {
            requests.remove("storage");
        }
    }
    spec
}

/// Errors of a class, and of the change of one.
pub(super) fn validate_class(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = match text(object, "provisioner") {
        "" => vec![FieldError::required("provisioner", "")],
        name => FieldError::each("provisioner", &json!(name), names::qualified(&name.to_lowercase())),
    };
    if object["parameters"].as_object().is_some_and(|map| map.contains_key("")) {
        errors.push(FieldError::invalid("parameters", &json!(""), "field can not be empty."));
    }
    for (name, known) in
        [("reclaimPolicy", &["Delete", "Retain"][..]), ("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"])]
    {
        if let Some(word) = object[name].as_str().filter(|word| !known.contains(word)) {
            errors.push(FieldError::not_supported(name, &json!(word), known));
        }
    }
    errors.extend(topology_errors(&object["allowedTopologies"]));
    let Some(old) = old else { return errors };
    for name in ["parameters", "provisioner", "reclaimPolicy"] {
        if object[name] != old[name] {
            errors.push(FieldError::forbidden(name, &format!("updates to {name} are forbidden.")));
        }
    }
    if object["volumeBindingMode"] != old["volumeBindingMode"] {
        let detail = "field is immutable";
        errors.push(FieldError::invalid("volumeBindingMode", &object["volumeBindingMode"], detail));
    }
    errors
}

fn topology_errors(topologies: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, term) in topologies.as_array().into_iter().flatten().enumerate() {
        let path = format!("allowedTopologies[{index}].matchLabelExpressions");
        let expressions = term["matchLabelExpressions"].as_array();
        if expressions.is_none_or(Vec::is_empty) {
            errors.push(FieldError::duplicate(path, &json!("")));
            continue;
        }
        for (number, expression) in expressions.into_iter().flatten().enumerate() {
            let (at, key) = (format!("{path}[{number}]"), text(expression, "key"));
            if words(&expression["values"]).is_empty() {
                errors.push(FieldError::required(format!("{at}.values"), ""));
            }
            errors.extend(FieldError::each(&format!("{at}.key"), &json!(key), names::qualified(key)));
        }
    }
    errors
}

/// Errors of a driver, and of the change of one.
pub(super) fn validate_driver(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    if let Some(policy) = spec["fsGroupPolicy"].as_str().filter(|policy| !policies.contains(policy)) {
        errors.push(FieldError::not_supported("spec.fsGroupPolicy", &json!(policy), &policies));
    }
    let mut seen = BTreeSet::new();
    for (index, request) in spec["tokenRequests"].as_array().into_iter().flatten().enumerate() {
        let audience = text(request, "audience");
        if !seen.insert(audience) {
            let field = format!("spec.tokenRequests[{index}].audience");
            errors.push(FieldError::duplicate(field, &json!(audience)));
        }
        if let Some(seconds) = request["expirationSeconds"].as_i64() {
            let field = format!("spec.tokenRequests[{index}].expirationSeconds");
            errors.extend(pod_volumes::token_life_errors(seconds, &field));
        }
    }
    let modes = ["Persistent", "Ephemeral"];
    for mode in words(&spec["volumeLifecycleModes"]).into_iter().filter(|mode| !modes.contains(mode)) {
        errors.push(FieldError::not_supported("spec.volumeLifecycleModes", &json!(mode), &modes));
    }
    let Some(old) = old else { return errors };
    for (name, field) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")] {
        if spec[name] != old["spec"][name] {
            errors.push(FieldError::invalid(format!("spec.{field}"), &spec[name], "field is immutable"));
        }
    }
    errors
}
