//! The CNI protocol (spec 0.3.1 to 1.1.0): environment and standard input in, result or error JSON out.

use serde::Deserialize;
use serde_json::{Value, json};

/// Versions of the specification that are spoken.
pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// An error as the specification wants it (section "Error", well-known codes).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// Code.
    pub code: u32,
    /// Short message.
    pub message: String,
    /// Details.
    pub details: String,
}

impl CniError {
    /// Code 1: the version is not spoken.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// Code 4: an environment variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Code 5: a file or socket could not be read or written.
    pub const IO: u32 = 5;
    /// Code 6: the configuration on standard input cannot be understood.
    pub const DECODING: u32 = 6;
    /// Code 11: a passing condition.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// Code 50 (1.1.0, STATUS): the plugin cannot serve ADD now.
    pub const NOT_AVAILABLE: u32 = 50;
    /// Plugin-specific codes begin at 100.
    pub const INTERNAL: u32 = 100;

    /// A new error.
    pub fn new(code: u32, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }

    /// The JSON document for standard output.
    #[must_use]
    pub fn to_json(&self, version: &str) -> Value {
        json!({"cniVersion": version, "code": self.code, "msg": self.message, "details": self.details})
    }
}

/// Network configuration on standard input, as far as this plugin reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetConf {
    /// Version that the result must have.
    #[serde(default)]
    pub cni_version: String,
    /// For CHECK: what ADD answered.
    #[serde(default)]
    pub prev_result: Option<Value>,
    /// For GC: the attachments that are still valid; all others may go.
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
}

/// One entry of `cni.dev/valid-attachments` (CNI 1.1.0, section "GC").
#[derive(Debug, Deserialize)]
pub struct ValidAttachment {
    /// Container id.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Interface name inside the pod.
    pub ifname: String,
}

impl NetConf {
    /// Parses standard input.
    ///
    /// # Errors
    /// Code 6, or code 1 for a version that is not spoken.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        let conf: Self = serde_json::from_str(text).map_err(|error| {
            CniError::new(CniError::DECODING, "the network configuration cannot be understood", error.to_string())
        })?;
        if !VERSIONS.contains(&conf.cni_version.as_str()) {
            let details = format!("cniVersion {:?}; spoken are {}", conf.cni_version, VERSIONS.join(", "));
            return Err(CniError::new(CniError::INCOMPATIBLE_VERSION, "this CNI version is not supported", details));
        }
        Ok(conf)
    }
}

/// The parameters in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; may be empty for DEL.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `K8S_POD_NAMESPACE` of `CNI_ARGS`.
    pub namespace: String,
    /// `K8S_POD_NAME` of `CNI_ARGS`.
    pub pod: String,
}

impl Params {
    /// Reads the parameters; `netns_required` for ADD and CHECK.
    ///
    /// # Errors
    /// Code 4, naming the variable.
    pub fn from_env(get: impl Fn(&str) -> Option<String>, netns_required: bool) -> Result<Self, CniError> {
        let required = |name: &str| {
            get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                CniError::new(CniError::INVALID_ENVIRONMENT, format!("environment variable {name} is not set"), "")
            })
        };
        let args = get("CNI_ARGS").unwrap_or_default();
        let arg = |key: &str| {
            let value = args.split(';').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key);
            value.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let ifname = required("CNI_IFNAME")?;
        if ifname.len() > 15 || ifname.contains('/') {
            let message = format!("CNI_IFNAME {ifname:?} is no interface name");
            return Err(CniError::new(CniError::INVALID_ENVIRONMENT, message, ""));
        }
        Ok(Self {
            container_id: required("CNI_CONTAINERID")?,
            netns: if netns_required { required("CNI_NETNS")? } else { get("CNI_NETNS").unwrap_or_default() },
            ifname,
            namespace: arg("K8S_POD_NAMESPACE"),
            pod: arg("K8S_POD_NAME"),
        })
    }
}

/// The result of ADD in the shape of `version`.
#[must_use]
pub fn result(version: &str, added: &Added) -> Value {
    let mut address = json!({
        "address": format!("{}/32", added.address),
        "gateway": super::GATEWAY.to_string(),
        "interface": 1,
    });
    if version.starts_with("0.") {
        address["version"] = json!("4");
    }
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": added.host_name, "mac": added.host_mac},
            {"name": added.pod_name, "mac": added.pod_mac, "sandbox": added.netns},
        ],
        "ips": [address],
        "routes": [{"dst": "0.0.0.0/0", "gw": super::GATEWAY.to_string()}],
        "dns": {},
    })
}

/// What ADD made.
#[derive(Clone, Debug)]
pub struct Added {
    /// Address of the pod.
    pub address: std::net::Ipv4Addr,
    /// Interface on the node.
    pub host_name: String,
    /// Its MAC address.
    pub host_mac: String,
    /// Interface in the pod.
    pub pod_name: String,
    /// Its MAC address.
    pub pod_mac: String,
    /// Path of the pod's network namespace.
    pub netns: String,
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
