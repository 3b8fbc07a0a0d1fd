//! Calling the node's CNI plugins as a container runtime does.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::PodId;
use super::node::CNI_CONF;

/// Where plugins lie.
const BIN: &str = "/opt/cni/bin";
/// What pods were attached to.
const RECORDS: &str = "/var/lib/kubelet/cni";
/// Longest time a plugin may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where plugins and their configuration are found.
pub(super) struct Cni {
    bin: PathBuf,
    conf: PathBuf,
    records: PathBuf,
}

/// The network that a pod was attached to: what DEL needs, whatever has become of the configuration since.
#[derive(Debug, Serialize, Deserialize)]
struct Attachment {
    name: String,
    version: String,
    plugins: Vec<Value>,
    /// Result of ADD; null until it has succeeded.
    result: Value,
}

impl Default for Cni {
    fn default() -> Self {
        Self { bin: BIN.into(), conf: CNI_CONF.into(), records: RECORDS.into() }
    }
}

impl Cni {
    /// Whether there is a configuration at all.
    ///
    /// # Errors
    /// If there is none that can be read.
    pub(super) fn ready(&self) -> Result<()> {
        self.chain().map(drop)
    }

    /// ADD: the pod's address. What DEL will need is on disk before the first plugin is called.
    ///
    /// # Errors
    /// With what the plugin answered.
    pub(super) async fn add(&self, id: &PodId) -> Result<Ipv4Addr> {
        let mut attachment = self.chain()?;
        self.store(id, &attachment)?;
        let mut previous = Value::Null;
        for plugin in &attachment.plugins {
            previous = self.call("ADD", id, &attachment, plugin, &previous).await?;
        }
        let address = previous["ips"][0]["address"].as_str().context("the CNI result has no address")?;
        let parsed = address.split('/').next().and_then(|text| text.parse().ok());
        let parsed = parsed.with_context(|| format!("CNI address {address:?}"))?;
        attachment.result = previous;
        self.store(id, &attachment)?;
        Ok(parsed)
    }

    /// DEL, in reverse order, of what ADD was tried for; nothing if it never was.
    ///
    /// # Errors
    /// With what the plugin answered; it is to be called again then.
    pub(super) async fn del(&self, id: &PodId) -> Result<()> {
        let path = self.record(id);
        let attachment: Attachment = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        for plugin in attachment.plugins.iter().rev() {
            self.call("DEL", id, &attachment, plugin, &attachment.result).await?;
        }
        std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }

    /// Where a pod's attachment is written down.
    fn record(&self, id: &PodId) -> PathBuf {
        self.records.join(format!("{}.json", id.uid))
    }

    fn store(&self, id: &PodId, attachment: &Attachment) -> Result<()> {
        let path = self.record(id);
        std::fs::create_dir_all(&self.records).with_context(|| format!("creating {}", self.records.display()))?;
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, serde_json::to_vec(attachment)?)
            .with_context(|| format!("writing {}", fresh.display()))?;
        std::fs::rename(&fresh, &path).with_context(|| format!("renaming to {}", path.display()))
    }

    /// The first configuration in the directory.
    fn chain(&self) -> Result<Attachment> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.conf)
            .with_context(|| format!("reading {}", self.conf.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "conflist"))
            .collect();
        files.sort();
        let Some(file) = files.first() else {
            bail!("cni plugin not initialized: no configuration in {}", self.conf.display())
        };
        let conf: Value =
            serde_json::from_slice(&std::fs::read(file)?).with_context(|| format!("in {}", file.display()))?;
        let text = |key: &str| conf[key].as_str().unwrap_or_default().to_owned();
        let plugins = conf["plugins"].as_array().cloned();
        let plugins = plugins.with_context(|| format!("{} has no plugins", file.display()))?;
        Ok(Attachment { name: text("name"), version: text("cniVersion"), plugins, result: Value::Null })
    }

    async fn call(
        &self,
        command: &str,
        id: &PodId,
        attachment: &Attachment,
        plugin: &Value,
        previous: &Value,
    ) -> Result<Value> {
        let kind = plugin["type"].as_str().context("a CNI plugin has no type")?;
        let mut conf = plugin.clone();
        conf["name"] = json!(attachment.name);
        conf["cniVersion"] = json!(attachment.version);
        if !previous.is_null() {
            conf["prevResult"] = previous.clone();
        }
        let mut child = Command::new(self.bin.join(kind))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &id.uid)
            .env("CNI_NETNS", id.netns())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.bin)
            .env("CNI_ARGS", arguments(id))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting CNI plugin {kind}"))?;
        let talk = async {
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(&serde_json::to_vec(&conf)?).await.context("writing the CNI configuration")?;
            }
            child.wait_with_output().await.context("waiting for the plugin")
        };
        let talk = tokio::time::timeout(TIMEOUT, talk).await;
        let output = talk.with_context(|| format!("plugin type={kind:?} ({command}): no answer in {TIMEOUT:?}"))??;
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
}

fn arguments(id: &PodId) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        id.namespace, id.name, id.uid, id.uid
    )
}

#[cfg(test)]
#[path = "cni_tests.rs"]
mod tests;
