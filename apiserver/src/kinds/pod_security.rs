//! What is wrong with the security of a pod and of its containers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::pod_volumes::descending_path_errors;
use super::pods::{list, text};
use crate::failure::FieldError;

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const LONGEST_PROFILE: usize = 4095;

/// A user or group is a number that every system has.
fn id_error(holder: &Value, name: &str, path: &str) -> Option<FieldError> {
    number_error(&holder[name], format!("{path}.{name}"))
}

fn number_error(value: &Value, field: String) -> Option<FieldError> {
    let id = value.as_i64().filter(|id| !(0..=i64::from(i32::MAX)).contains(id))?;
    let detail = format!("must be between 0 and {}, inclusive", i32::MAX);
    Some(FieldError::invalid(field, &json!(id), &detail))
}

/// A word that is none of those known, if there is one.
pub(super) fn word_error(holder: &Value, name: &str, path: &str, known: &[&str]) -> Option<FieldError> {
    let word = holder[name].as_str().filter(|word| !known.contains(word))?;
    Some(FieldError::not_supported(format!("{path}.{name}"), &json!(word), known))
}

/// `securityContext` of a pod.
pub(super) fn pod_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let security = &spec["securityContext"];
    let mut errors = Vec::new();
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        errors.extend(id_error(security, name, path));
    }
    for (index, group) in list(security, "supplementalGroups") {
        errors.extend(number_error(group, format!("{path}.supplementalGroups[{index}]")));
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(format!("{path}.shareProcessNamespace"), &json!(true), detail));
    }
    errors.extend(control_errors(spec, &format!("{path}.sysctls")));
    errors.extend(word_error(security, "fsGroupChangePolicy", path, &["Always", "OnRootMismatch"]));
    errors.extend(seccomp_errors(&security["seccompProfile"], &format!("{path}.seccompProfile")));
    errors.extend(armor_errors(&security["appArmorProfile"], &format!("{path}.appArmorProfile")));
    errors.extend(word_error(security, "supplementalGroupsPolicy", path, &["Merge", "Strict"]));
    errors
}

fn control_errors(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, control) in list(&spec["securityContext"], "sysctls") {
        let (at, name) = (format!("{path}[{index}].name"), text(control, "name"));
        if name.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if !is_sysctl(name) {
            let detail = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(FieldError::invalid(at, &control["name"], detail));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(at, &control["name"]));
        }
    }
    errors
}

fn is_sysctl(name: &str) -> bool {
    let part = |part: &str| {
        let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        end(part.chars().next())
            && end(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

fn seccomp_errors(profile: &Value, path: &str) -> Vec<FieldError> {
    if !profile.is_object() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let (kind, field) = (text(profile, "type"), format!("{path}.type"));
    match kind {
        "" => errors.push(FieldError::required(field, "type is required when seccompProfile is set")),
        word if PROFILES.contains(&word) => {}
        word => errors.push(FieldError::not_supported(field, &json!(word), &PROFILES)),
    }
    let (local, field) = (&profile["localhostProfile"], format!("{path}.localhostProfile"));
    if kind == "Localhost" {
        match local.as_str() {
            None => errors.push(FieldError::required(field, "must be set when seccomp type is Localhost")),
            Some(_) => errors.extend(descending_path_errors(local, &field)),
        }
    } else if local.is_string() {
        let shown = format!("{{\"Type\":{},\"LocalhostProfile\":{local}}}", json!(kind));
        let message = format!("Invalid value: {shown}: can only be set when seccomp type is Localhost");
        errors.push(FieldError { reason: "FieldValueInvalid", message, field });
    }
    errors
}

fn armor_errors(profile: &Value, path: &str) -> Vec<FieldError> {
    if !profile.is_object() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let (local, field) = (&profile["localhostProfile"], format!("{path}.localhostProfile"));
    let needed = "must be set when AppArmor type is Localhost";
    match text(profile, "type") {
        "Localhost" => match local.as_str() {
            None => errors.push(FieldError::required(field, needed)),
            Some(name) => {
                if name.trim() != name {
                    errors.push(FieldError::invalid(&*field, local, "must not be padded with whitespace"));
                } else if name.is_empty() {
                    errors.push(FieldError::required(&*field, needed));
                }
                if name.len() > LONGEST_PROFILE {
                    errors.push(FieldError::too_long(field, LONGEST_PROFILE));
                }
            }
        },
        "RuntimeDefault" | "Unconfined" => {
            if local.is_string() {
                let detail = "can only be set when AppArmor type is Localhost";
                errors.push(FieldError::invalid(field, local, detail));
            }
        }
        "" => {
            let detail = "type is required when appArmorProfile is set";
            errors.push(FieldError::required(format!("{path}.type"), detail));
        }
        word => errors.push(FieldError::not_supported(format!("{path}.type"), &json!(word), &PROFILES)),
    }
    errors
}

/// `securityContext` of a container.
pub(super) fn container_errors(security: &Value, path: &str, host_users: bool) -> Vec<FieldError> {
    if !security.is_object() {
        return Vec::new();
    }
    let mut errors: Vec<FieldError> =
        ["runAsUser", "runAsGroup"].iter().filter_map(|name| id_error(security, name, path)).collect();
    let (mount, field) = (&security["procMount"], format!("{path}.procMount"));
    if let Some(word) = mount.as_str() {
        if !["Default", "Unmasked"].contains(&word) {
            errors.push(FieldError::not_supported(field, mount, &["Default", "Unmasked"]));
        } else if word == "Unmasked" && host_users {
            errors.push(FieldError::invalid(field, mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    errors.extend(seccomp_errors(&security["seccompProfile"], &format!("{path}.seccompProfile")));
    if security["allowPrivilegeEscalation"] == false {
        let mut refuse = |what: &str| {
            let detail = format!("cannot set `allowPrivilegeEscalation` to false and {what}");
            let message = format!("Invalid value: {}: {detail}", as_in_go(security));
            errors.push(FieldError { reason: "FieldValueInvalid", message, field: path.into() });
        };
        if security["privileged"] == true {
            refuse("`privileged` to true");
        }
        for _ in list(&security["capabilities"], "add").filter(|(_, name)| *name == "CAP_SYS_ADMIN") {
            refuse("`capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    errors.extend(armor_errors(&security["appArmorProfile"], &format!("{path}.appArmorProfile")));
    errors
}

/// A container's security as Go's internal type is printed.
fn as_in_go(security: &Value) -> String {
    let fields = |value: &Value, names: &[(&str, &str)]| -> String {
        if !value.is_object() {
            return "null".into();
        }
        let pairs: Vec<String> = names.iter().map(|(go, name)| format!("\"{go}\":{}", value[*name])).collect();
        format!("{{{}}}", pairs.join(","))
    };
    let profile = [("Type", "type"), ("LocalhostProfile", "localhostProfile")];
    let mut parts = vec![
        ("Capabilities", fields(&security["capabilities"], &[("Add", "add"), ("Drop", "drop")])),
        ("Privileged", security["privileged"].to_string()),
        (
            "SELinuxOptions",
            match security["seLinuxOptions"].is_object() {
                true => {
                    let text = |name: &str| json!(security["seLinuxOptions"][name].as_str().unwrap_or_default());
                    let pair = |go: &str, name: &str| format!("\"{go}\":{}", text(name));
                    let all = [("User", "user"), ("Role", "role"), ("Type", "type"), ("Level", "level")];
                    format!("{{{}}}", all.map(|(go, name)| pair(go, name)).join(","))
                }
                false => "null".into(),
            },
        ),
        ("WindowsOptions", "null".into()),
    ];
    for (go, name) in [
        ("RunAsUser", "runAsUser"),
        ("RunAsGroup", "runAsGroup"),
        ("RunAsNonRoot", "runAsNonRoot"),
        ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem"),
        ("AllowPrivilegeEscalation", "allowPrivilegeEscalation"),
        ("ProcMount", "procMount"),
    ] {
        parts.push((go, security[name].to_string()));
    }
    parts.push(("SeccompProfile", fields(&security["seccompProfile"], &profile)));
    parts.push(("AppArmorProfile", fields(&security["appArmorProfile"], &profile)));
    let pairs: Vec<String> = parts.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", pairs.join(","))
}
