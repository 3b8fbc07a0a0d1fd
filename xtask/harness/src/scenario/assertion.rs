//! Assertions on objects: bounded waits, then a time in which they must stay true.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use kube::Client;
use kube::api::DynamicObject;
use serde_json::Value;

use super::format::{Assertion, ObjectRef};
use crate::cluster::install::api_of;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until the assertion holds, then watches that it stays so. Returns the time spent in declared windows.
///
/// # Errors
/// With what was seen last, and the last error of the API.
pub(super) async fn hold(client: &Client, assertion: &Assertion) -> Result<Duration> {
    let what = format!("{} {}", assertion.object.kind, assertion.object.name);
    let deadline = Instant::now() + Duration::from_secs_f64(assertion.within);
    while let Err(error) = look(client, assertion).await {
        if Instant::now() > deadline {
            bail!("{what}, {} s after the change: {error:#}", assertion.within);
        }
        tokio::time::sleep(LOOK).await;
    }
    let window = Duration::from_secs_f64(assertion.stable);
    let until = Instant::now() + window;
    while Instant::now() < until {
        if let Err(error) = look(client, assertion).await {
            bail!("{what} did not stay so for {} s: {error:#}", assertion.stable);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(window)
}

/// Reads an object; `None` if it is not there.
pub(super) async fn read(client: &Client, reference: &ObjectRef) -> Result<Option<DynamicObject>> {
    let api = api_of(client, &reference.api_version, &reference.kind, reference.namespace.as_deref()).await?;
    Ok(api.get_opt(&reference.name).await?)
}

async fn look(client: &Client, assertion: &Assertion) -> Result<()> {
    let object = read(client, &assertion.object).await?;
    let Some(object) = object else {
        if assertion.absent {
            return Ok(());
        }
        bail!("it is not there");
    };
    if assertion.absent {
        bail!("it is still there");
    }
    let value = serde_json::to_value(&object)?;
    if let Some(subset) = &assertion.subset {
        differs(subset, &value, "")?;
    }
    if let Some(network) = &assertion.ingress_in {
        let empty = Vec::new();
        let list = value["status"]["loadBalancer"]["ingress"].as_array().unwrap_or(&empty);
        let addresses: Vec<std::net::IpAddr> =
            list.iter().filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect();
        if addresses.len() != 1 || !network.contains(&addresses[0]) {
            bail!("expected one ingress address in {network}, seen {addresses:?}");
        }
    }
    if !assertion.columns.is_empty() {
        let row = columns(client, &assertion.object).await?;
        for (header, expected) in &assertion.columns {
            let Some((_, seen)) = row.iter().find(|(name, _)| name == header) else {
                let names: Vec<&String> = row.iter().map(|(name, _)| name).collect();
                bail!("there is no column {header:?}; there are {names:?}");
            };
            if seen != expected {
                bail!("column {header}: expected {expected:?}, seen {seen:?}");
            }
        }
    }
    Ok(())
}

/// The row that `kubectl get` prints: the server renders it.
async fn columns(client: &Client, reference: &ObjectRef) -> Result<Vec<(String, String)>> {
    let api = api_of(client, &reference.api_version, &reference.kind, reference.namespace.as_deref()).await?;
    let request = http::Request::get(format!("{}/{}", api.resource_url(), reference.name))
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    let table: Value = client.request(request).await?;
    let empty = Vec::new();
    let headers = table["columnDefinitions"].as_array().unwrap_or(&empty);
    let cells = table["rows"][0]["cells"].as_array().unwrap_or(&empty);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(headers
        .iter()
        .zip(cells)
        .map(|(header, cell)| (header["name"].as_str().unwrap_or_default().to_uppercase(), text(cell)))
        .collect())
}

/// Fails with the first place where `subset` is not part of `value`. Lists match where each expected element is part of
/// some element.
///
/// # Errors
/// With the path, what was expected and what was seen.
pub(super) fn differs(subset: &Value, value: &Value, path: &str) -> Result<()> {
    match (subset, value) {
        (Value::Object(wanted), Value::Object(seen)) => {
            for (key, expected) in wanted {
                differs(expected, seen.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}"))?;
            }
            Ok(())
        }
        (Value::Array(wanted), Value::Array(seen)) => {
            for (at, expected) in wanted.iter().enumerate() {
                if !seen.iter().any(|element| differs(expected, element, "").is_ok()) {
                    bail!("{path}[{at}]: no element is like {expected}, seen {value}");
                }
            }
            Ok(())
        }
        (expected, seen) if expected == seen => Ok(()),
        (expected, seen) => bail!("{path}: expected {expected}, seen {seen}"),
    }
}

#[cfg(test)]
#[path = "assertion_tests.rs"]
mod tests;
