//! The downward API: fields and resources of a pod as texts.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use super::node;

/// Addresses that the downward API tells.
pub(super) struct Addresses {
    pub(super) pod: String,
    pub(super) host: String,
}

/// A field of the pod.
///
/// # Errors
/// If the field is not one of those that exist.
pub(super) fn field_value(pod: &Pod, field: &ObjectFieldSelector, addresses: &Addresses, node: &str) -> Result<String> {
    let spec = pod.spec.as_ref();
    let keyed = |prefix: &str| {
        let rest = field.field_path.strip_prefix(prefix)?.strip_prefix("['")?;
        rest.strip_suffix("']").map(str::to_owned)
    };
    let all = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
    };
    if let Some(key) = keyed("metadata.labels") {
        return Ok(pod.labels().get(&key).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed("metadata.annotations") {
        return Ok(pod.annotations().get(&key).cloned().unwrap_or_default());
    }
    Ok(match field.field_path.as_str() {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => all(pod.labels()),
        "metadata.annotations" => all(pod.annotations()),
        "spec.nodeName" => node.to_owned(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" | "status.podIPs" => addresses.pod.clone(),
        "status.hostIP" | "status.hostIPs" => addresses.host.clone(),
        other => bail!("unknown field {other:?}"),
    })
}

/// A resource of a container in units of the divisor, rounded up. A limit that is not set is what the node has.
///
/// # Errors
/// If there is no such resource, or a quantity cannot be read.
pub(super) fn resource_value(pod: &Pod, own: Option<&Container>, field: &ResourceFieldSelector) -> Result<String> {
    let named = field.container_name.as_deref().filter(|name| !name.is_empty());
    let spec = pod.spec.as_ref();
    let mut all = spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let container = match named {
        Some(name) => Some(all.find(|one| one.name == name).with_context(|| format!("no container {name:?}"))?),
        None => own,
    };
    let container = container.context("a resourceFieldRef of a volume needs containerName")?;
    let (kind, resource) = field.resource.split_once('.').with_context(|| format!("resource {:?}", field.resource))?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref()).and_then(|all| all.get(resource));
    let requests = resources.and_then(|resources| resources.requests.as_ref()).and_then(|all| all.get(resource));
    let given = match kind {
        "limits" => limits,
        "requests" => requests,
        other => bail!("resource {other:?} is neither limits nor requests"),
    };
    let amount = match (given, kind, resource) {
        (Some(Quantity(text)), _, _) => nanos(text)?,
        (None, "limits", "cpu") => node::cpus() as i128 * NANO,
        (None, "limits", "memory") => i128::from(node::memory_kib()) * 1024 * NANO,
        (None, "requests", _) => 0,
        _ => bail!("container {} has no {}", container.name, field.resource),
    };
    let divisor = match field.divisor.as_ref().map(|Quantity(text)| text.as_str()) {
        None | Some("" | "0") => NANO,
        Some(text) => nanos(text)?,
    };
    if divisor <= 0 {
        bail!("divisor of {} is not positive", field.resource);
    }
    Ok(((amount + divisor - 1) / divisor).to_string())
}

/// Parts of one that quantities are counted in here.
const NANO: i128 = 1_000_000_000;

/// A quantity in billionths.
///
/// # Errors
/// If it is none.
pub(super) fn nanos(text: &str) -> Result<i128> {
    parse(text).with_context(|| format!("{text:?} is no quantity"))
}

fn parse(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let binary = |power: u32| Some((1024_i128.checked_pow(power)?, 0));
    let (factor, exponent): (i128, i32) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => binary(1)?,
        "Mi" => binary(2)?,
        "Gi" => binary(3)?,
        "Ti" => binary(4)?,
        "Pi" => binary(5)?,
        "Ei" => binary(6)?,
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let scaled: i128 = format!("{whole}{fraction}").parse().ok()?;
    let exponent = exponent + 9 - i32::try_from(fraction.len()).ok()?;
    let scaled = scaled.checked_mul(factor)?;
    if exponent >= 0 {
        scaled.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?)
    } else {
        // Finer than a billionth is rounded up, as Kubernetes does it.
        let by = 10_i128.checked_pow(exponent.unsigned_abs())?;
        Some((scaled + by - 1) / by)
    }
}

#[cfg(test)]
#[path = "downward_tests.rs"]
mod tests;
