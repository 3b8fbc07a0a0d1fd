//! What is wrong with the volumes of a pod, and with where volumes come from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::pods::{list, text};
use super::{names, quantity, volumes};
use crate::failure::FieldError;

const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
    "cinder",
];
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const SECOND: &str = "may not specify more than 1 volume type";
const SHORTEST_TOKEN: i64 = 600;
const LONGEST_DRIVER: usize = 63;

/// Volumes that are sound, by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

/// The sound volumes of a pod, and what is wrong with the others.
pub(super) fn check<'a>(spec: &'a Value, path: &str) -> (Volumes<'a>, Vec<FieldError>) {
    let (mut sound, mut errors) = (Volumes::new(), Vec::new());
    for (index, volume) in list(spec, "volumes") {
        let at = format!("{path}.volumes[{index}]");
        let name = text(volume, "name");
        let mut own = volume_errors(volume, &at);
        match name {
            "" => own.push(FieldError::required(format!("{at}.name"), "")),
            name => own.extend(FieldError::each(&format!("{at}.name"), &volume["name"], names::label(name))),
        }
        if sound.contains_key(name) {
            own.push(FieldError::duplicate(format!("{at}.name"), &volume["name"]));
        }
        if own.is_empty() {
            sound.insert(name, volume);
        }
        errors.extend(own);
    }
    (sound, errors)
}

fn volume_errors(volume: &Value, path: &str) -> Vec<FieldError> {
    let given: Vec<&str> = SOURCES.iter().copied().filter(|source| volume[*source].is_object()).collect();
    let Some((first, others)) = given.split_first() else {
        return vec![FieldError::required(path, "must specify a volume type")];
    };
    let mut errors = source_errors(&volume[*first], first, &format!("{path}.{first}"));
    errors.extend(others.iter().map(|source| FieldError::forbidden(format!("{path}.{source}"), SECOND)));
    errors
}

/// What is wrong with where a volume comes from.
pub(super) fn source_errors(source: &Value, kind: &str, path: &str) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let required = |names: &[&str]| -> Vec<FieldError> {
        let missing = names.iter().filter(|name| text(source, name).is_empty());
        missing.map(|name| FieldError::required(at(name), "")).collect()
    };
    match kind {
        "emptyDir" if quantity::compare(&source["sizeLimit"], &json!("0")).is_lt() => {
            let detail = "SizeLimit field must be a valid resource quantity";
            vec![FieldError::forbidden(at("sizeLimit"), detail)]
        }
        "hostPath" => host_path_errors(source, path),
        "nfs" => {
            let mut errors = required(&["server", "path"]);
            if !text(source, "path").starts_with('/') {
                errors.push(FieldError::invalid(at("path"), &json!(text(source, "path")), "must be an absolute path"));
            }
            errors
        }
        "secret" => [required(&["secretName"]), filled_errors(source, path)].concat(),
        "configMap" => [required(&["name"]), filled_errors(source, path)].concat(),
        "persistentVolumeClaim" => required(&["claimName"]),
        "downwardAPI" => {
            let mut errors: Vec<FieldError> =
                mode_error(&source["defaultMode"], at("defaultMode")).into_iter().collect();
            errors.extend(list(source, "items").flat_map(|(_, file)| file_errors(file, path)));
            errors
        }
        "projected" => projected_errors(source, path),
        "csi" => {
            let mut errors = driver_errors(&source["driver"], &at("driver"));
            let secret = &source["nodePublishSecretRef"];
            if secret.is_object() {
                let field = at("nodePublishSecretRef.name");
                match text(secret, "name") {
                    "" => errors.push(FieldError::required(field, "")),
                    name => errors.extend(FieldError::each(&field, &secret["name"], names::subdomain(name))),
                }
            }
            errors
        }
        "ephemeral" => match &source["volumeClaimTemplate"] {
            template if template.is_object() => volumes::template_errors(template, &at("volumeClaimTemplate")),
            _ => vec![FieldError::required(at("volumeClaimTemplate"), "")],
        },
        _ => Vec::new(),
    }
}

/// Name of a driver; the case of letters does not matter.
pub(super) fn driver_errors(driver: &Value, field: &str) -> Vec<FieldError> {
    let name = driver.as_str().unwrap_or_default();
    let none = name.is_empty().then(|| FieldError::required(field, ""));
    let long = name.len() > LONGEST_DRIVER;
    let long = long.then(|| FieldError::too_long(field, LONGEST_DRIVER));
    let mut errors: Vec<FieldError> = none.into_iter().chain(long).collect();
    errors.extend(FieldError::each(field, driver, names::subdomain(&name.to_lowercase())));
    errors
}

fn host_path_errors(source: &Value, path: &str) -> Vec<FieldError> {
    if text(source, "path").is_empty() {
        return vec![FieldError::required(format!("{path}.path"), "")];
    }
    let mut errors: Vec<FieldError> = backstep_error(&source["path"], &format!("{path}.path")).into_iter().collect();
    let kind = text(source, "type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(format!("{path}.type"), &json!(kind), &HOST_PATH_TYPES));
    }
    errors
}

/// A volume of files from a ConfigMap or a Secret.
fn filled_errors(source: &Value, path: &str) -> Vec<FieldError> {
    let mode = mode_error(&source["defaultMode"], format!("{path}.defaultMode"));
    let items = list(source, "items").flat_map(|(index, item)| item_errors(item, &format!("{path}.items[{index}]")));
    mode.into_iter().chain(items).collect()
}

fn item_errors(item: &Value, path: &str) -> Vec<FieldError> {
    let missing = ["key", "path"].into_iter().filter(|name| text(item, name).is_empty());
    let mut errors: Vec<FieldError> = missing.map(|name| FieldError::required(format!("{path}.{name}"), "")).collect();
    errors.extend(own_path_errors(&item["path"], &format!("{path}.path")));
    errors.extend(mode_error(&item["mode"], format!("{path}.mode")));
    errors
}

fn mode_error(mode: &Value, field: String) -> Option<FieldError> {
    let number = mode.as_i64().filter(|mode| !(0..=0o777).contains(mode))?;
    Some(FieldError::invalid(field, &json!(number), FILE_MODE))
}

fn backstep_error(path: &Value, field: &str) -> Option<FieldError> {
    let back = path.as_str().unwrap_or_default().split('/').any(|part| part == "..");
    back.then(|| FieldError::invalid(field, path, "must not contain '..'"))
}

/// A path that leads down from where it is looked at.
pub(super) fn descending_path_errors(path: &Value, field: &str) -> Vec<FieldError> {
    let absolute = path.as_str().unwrap_or_default().starts_with('/');
    let absolute = absolute.then(|| FieldError::invalid(field, path, "must be a relative path"));
    absolute.into_iter().chain(backstep_error(path, field)).collect()
}

/// A path of a file that is not one of the system's own.
fn own_path_errors(path: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = descending_path_errors(path, field);
    let text = path.as_str().unwrap_or_default();
    if text.starts_with("..") && !text.starts_with("../") {
        let detail = "must not start with '..'";
        // `..` by itself has been told.
        errors.push(FieldError::invalid(field, path, detail));
    }
    errors
}

/// A file that shows something of its pod.
fn file_errors(file: &Value, path: &str) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let mut errors = Vec::new();
    if text(file, "path").is_empty() {
        errors.push(FieldError::required(at("path"), ""));
    }
    errors.extend(own_path_errors(&file["path"], &at("path")));
    let (field, amount) = (&file["fieldRef"], &file["resourceFieldRef"]);
    if field.is_object() {
        errors.extend(field_errors(field, &at("fieldRef"), &SHOWN[..5]));
        if amount.is_object() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(FieldError::invalid(path, &json!("resource"), detail));
        }
    } else if amount.is_object() {
        errors.extend(amount_errors(amount, &at("resourceFieldRef"), true));
    } else {
        errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
    }
    errors.extend(mode_error(&file["mode"], at("mode")));
    errors
}

/// Fields of a pod that have a downward form; a file can have the first five, a variable all but
/// the first two, which are maps.
pub(super) const SHOWN: [&str; 11] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// A field of the pod; `known` are those that may be asked for here.
pub(super) fn field_errors(reference: &Value, path: &str, known: &[&str]) -> Vec<FieldError> {
    let shown = text(reference, "fieldPath");
    let field = format!("{path}.fieldPath");
    let version = text(reference, "apiVersion");
    if version.is_empty() {
        return vec![FieldError::required(format!("{path}.apiVersion"), "")];
    }
    if shown.is_empty() {
        return vec![FieldError::required(field, "")];
    }
    let convert = |why: &str| {
        let detail = format!("error converting fieldPath: {why}");
        vec![FieldError::invalid(&*field, &reference["fieldPath"], &detail)]
    };
    if version != "v1" {
        return convert(&format!("unsupported pod version: {version}"));
    }
    let subscript = shown.strip_suffix("']").and_then(|text| text.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            FieldError::each(path, &json!(key.to_lowercase()), names::qualified(&key.to_lowercase()))
        }
        Some(("metadata.labels", key)) => FieldError::each(path, &json!(key), names::qualified(key)),
        Some(_) => convert(&format!("field label does not support subscript: {shown}")),
        None if shown == "spec.host" || known.contains(&shown) => Vec::new(),
        None if SHOWN.contains(&shown) => vec![FieldError::not_supported(field, &json!(shown), known)],
        None => convert(&format!("field label not supported: {shown}")),
    }
}

const AMOUNTS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// What a container may use; in a file it must be said of which container.
pub(super) fn amount_errors(reference: &Value, path: &str, in_file: bool) -> Vec<FieldError> {
    let (resource, divisor) = (text(reference, "resource"), text(reference, "divisor"));
    let pages = ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.starts_with(prefix));
    let mut errors = Vec::new();
    if in_file && text(reference, "containerName").is_empty() {
        errors.push(FieldError::required(format!("{path}.containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(format!("{path}.resource"), ""));
    } else if !AMOUNTS.contains(&resource) && !pages {
        errors.push(FieldError::not_supported(format!("{path}.resource"), &json!(resource), &AMOUNTS));
    }
    if divisor.is_empty() || quantity::compare(&reference["divisor"], &json!("0")).is_eq() {
        return errors;
    }
    let (allowed, of): (&[&str], _) = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => (&["1m", "1"], "cpu"),
        "memory" => (&BYTES, "memory"),
        "ephemeral-storage" => (&BYTES, "local ephemeral storage"),
        _ if pages => (&BYTES, "hugepages"),
        _ => return errors,
    };
    if !allowed.contains(&divisor) {
        let values = if of == "cpu" { "1m and 1".into() } else { allowed.join(", ") };
        let detail = format!("only divisor's values {values} are supported with the {of} resource");
        errors.push(FieldError::invalid(format!("{path}.divisor"), &json!(resource), &detail));
    }
    errors
}

/// How long a token is good.
pub(super) fn token_life_errors(seconds: i64, field: &str) -> Option<FieldError> {
    let detail = match seconds {
        ..SHORTEST_TOKEN => "may not specify a duration less than 10 minutes",
        seconds if seconds > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
        _ => return None,
    };
    Some(FieldError::invalid(field, &json!(seconds), detail))
}

fn projected_errors(source: &Value, path: &str) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> =
        mode_error(&source["defaultMode"], format!("{path}.defaultMode")).into_iter().collect();
    let mut taken = BTreeSet::new();
    for (index, part) in list(source, "sources") {
        let at = format!("{path}.sources[{index}]");
        let kinds = ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"];
        let given: Vec<&str> = kinds.into_iter().filter(|kind| part[*kind].is_object()).collect();
        let Some((first, others)) = given.split_first() else { continue };
        errors.extend(projection_errors(&part[*first], first, (path, &at), &mut taken));
        errors.extend(others.iter().map(|kind| FieldError::forbidden(format!("{at}.{kind}"), SECOND)));
    }
    errors
}

/// One source of a projected volume; `taken` are the paths that others have.
fn projection_errors<'a>(
    part: &'a Value,
    kind: &str,
    (volume, path): (&str, &str),
    taken: &mut BTreeSet<&'a str>,
) -> Vec<FieldError> {
    let at = format!("{path}.{kind}");
    let mut errors = Vec::new();
    let mut conflict = |file: &'a str, shown: &str| {
        let twice = !file.is_empty() && !taken.insert(file);
        twice.then(|| FieldError::invalid(volume, &json!(shown), "conflicting duplicate paths"))
    };
    match kind {
        "secret" | "configMap" => {
            if text(part, "name").is_empty() {
                errors.push(FieldError::required(format!("{at}.name"), ""));
            }
            for (index, item) in list(part, "items") {
                errors.extend(item_errors(item, &format!("{at}.items[{index}]")));
                errors.extend(conflict(text(item, "path"), text(part, "name")));
            }
        }
        "downwardAPI" => {
            for (_, file) in list(part, "items") {
                errors.extend(file_errors(file, &at));
                errors.extend(conflict(text(file, "path"), text(file, "path")));
            }
        }
        "serviceAccountToken" => {
            let seconds = part["expirationSeconds"].as_i64().unwrap_or(0);
            errors.extend(token_life_errors(seconds, &format!("{at}.expirationSeconds")));
            match text(part, "path") {
                "" => errors.push(FieldError::required(format!("{at}.path"), "")),
                _ => errors.extend(own_path_errors(&part["path"], &format!("{at}.path"))),
            }
        }
        _ => {}
    }
    errors
}
