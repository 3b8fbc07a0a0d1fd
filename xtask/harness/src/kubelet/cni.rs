//! Calling the node's CNI plugins as a container runtime does.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::PodId;
use super::node::CNI_CONF;

/// Where plugins lie.
const BIN: &str = "/opt/cni/bin";

/// ADD: the pod's address.
///
/// # Errors
/// With what the plugin answered.
pub(super) fn add(id: &PodId) -> Result<Ipv4Addr> {
    let (name, version, plugins) = chain()?;
    let mut previous = Value::Null;
    for plugin in &plugins {
        previous = call("ADD", id, &name, &version, plugin, &previous)?;
    }
    let address = previous["ips"][0]["address"].as_str().context("the CNI result has no address")?;
    address.split('/').next().and_then(|text| text.parse().ok()).with_context(|| format!("CNI address {address:?}"))
}

/// DEL, in reverse order.
///
/// # Errors
/// With what the plugin answered.
pub(super) fn del(id: &PodId) -> Result<()> {
    let (name, version, plugins) = chain()?;
    for plugin in plugins.iter().rev() {
        call("DEL", id, &name, &version, plugin, &Value::Null)?;
    }
    Ok(())
}

/// The first configuration in the directory: its name, version and plugins.
fn chain() -> Result<(String, String, Vec<Value>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(CNI_CONF)
        .with_context(|| format!("reading {CNI_CONF}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "conflist"))
        .collect();
    files.sort();
    let Some(file) = files.first() else { bail!("cni plugin not initialized: no configuration in {CNI_CONF}") };
    let conf: Value =
        serde_json::from_slice(&std::fs::read(file)?).with_context(|| format!("in {}", file.display()))?;
    let text = |key: &str| conf[key].as_str().unwrap_or_default().to_owned();
    let plugins = conf["plugins"].as_array().cloned().with_context(|| format!("{} has no plugins", file.display()))?;
    Ok((text("name"), text("cniVersion"), plugins))
}

fn call(command: &str, id: &PodId, name: &str, version: &str, plugin: &Value, previous: &Value) -> Result<Value> {
    let kind = plugin["type"].as_str().context("a CNI plugin has no type")?;
    let mut conf = plugin.clone();
    conf["name"] = json!(name);
    conf["cniVersion"] = json!(version);
    if !previous.is_null() {
        conf["prevResult"] = previous.clone();
    }
    let mut child = Command::new(Path::new(BIN).join(kind))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &id.uid)
        .env("CNI_NETNS", id.netns())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", BIN)
        .env(
            "CNI_ARGS",
            format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
                id.namespace, id.name, id.uid, id.uid
            ),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting CNI plugin {kind}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(&conf)?).context("writing the CNI configuration")?;
    }
    let output = child.wait_with_output()?;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if !output.status.success() {
        bail!(
            "plugin type={kind:?} failed ({command}): code {}: {}: {} {}",
            answer["code"],
            answer["msg"].as_str().unwrap_or("no answer"),
            answer["details"].as_str().unwrap_or_default(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(answer)
}
