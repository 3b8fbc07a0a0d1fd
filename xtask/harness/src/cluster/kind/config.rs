//! The definition of a kind environment: a configuration of kind's own (`v1alpha4`), the built-in one or a user's file,
//! checked for what portolan cannot work with, and completed by what the harness needs.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::super::node::TOOLS;

/// The walk-through's shape: a control plane and two workers, neither CNI nor kube-proxy.
const DEFAULT: &str = "
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {disableDefaultCNI: true, kubeProxyMode: none}
nodes:
- role: control-plane
- role: worker
- role: worker
";

/// What kind takes if `networking.serviceSubnet` is not given.
const SERVICE_SUBNET: &str = "10.96.0.0/16";
/// Where the audit policy lies in the control plane's node.
const POLICY_DIR: &str = "/etc/kubernetes/portolan-e2e";
/// Where the audit log lies in the control plane's node.
const LOG_DIR: &str = "/var/log/portolan-e2e";

/// Paths on the host that nodes mount.
pub(super) struct Mounts<'a> {
    /// Directory of `policy.yaml`.
    pub(super) policy: &'a Path,
    /// Directory that receives `audit.log`.
    pub(super) logs: &'a Path,
    /// Directory of static tools.
    pub(super) tools: &'a Path,
}

/// Reads a kind configuration, or takes the built-in one.
///
/// # Errors
/// If it cannot be read, or describes a cluster that portolan cannot work on.
pub(super) fn load(file: Option<&Path>) -> Result<Value> {
    let Some(file) = file else { return parse(DEFAULT) };
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    parse(&text).with_context(|| file.display().to_string())
}

fn parse(text: &str) -> Result<Value> {
    let mut config: Value = serde_yaml::from_str(text).context("no YAML")?;
    if config["kind"] != "Cluster" || config["apiVersion"] != "kind.x-k8s.io/v1alpha4" {
        bail!("this is no kind configuration: kind must be Cluster and apiVersion kind.x-k8s.io/v1alpha4");
    }
    if config["nodes"].as_array().is_none_or(Vec::is_empty) {
        config["nodes"] = json!([{"role": "control-plane"}]);
    }
    let objections = objections(&config);
    if objections.is_empty() {
        Ok(config)
    } else {
        bail!("portolan cannot work there:\n  - {}", objections.join("\n  - "))
    }
}

/// Why portolan cannot work on such a cluster; all reasons at once.
fn objections(config: &Value) -> Vec<String> {
    let networking = &config["networking"];
    let mut found = Vec::new();
    let mode = networking["kubeProxyMode"].as_str().unwrap_or("iptables, kind's default");
    if mode != "none" {
        found.push(format!(
            "kube-proxy is on ({mode}): portolan takes its place, and two of them would translate each packet twice; \
             set networking.kubeProxyMode: none"
        ));
    }
    if networking["disableDefaultCNI"] != json!(true) {
        found.push("a CNI is there already (kindnet): set networking.disableDefaultCNI: true".to_owned());
    }
    match networking["ipFamily"].as_str().unwrap_or("ipv4") {
        "ipv4" | "" => {}
        family => {
            found.push(format!("ipFamily is {family}: only IPv4 is carried for now; set networking.ipFamily: ipv4"))
        }
    }
    let empty = Vec::new();
    let role = |node: &Value| node["role"].as_str().unwrap_or("control-plane").to_owned();
    let roles: Vec<String> = config["nodes"].as_array().unwrap_or(&empty).iter().map(role).collect();
    let control_planes = roles.iter().filter(|role| *role == "control-plane").count();
    if control_planes != 1 {
        found.push(format!(
            "there are {control_planes} control planes: with several, kind puts a load balancer of its own before them, \
             which needs one more image; use one"
        ));
    }
    if control_planes == roles.len() {
        found.push("there is no worker: the outside client reaches Services by way of one".to_owned());
    }
    found
}

/// ClusterIPs of the cluster.
pub(super) fn service_cidr(config: &Value) -> String {
    config["networking"]["serviceSubnet"].as_str().unwrap_or(SERVICE_SUBNET).to_owned()
}

/// Adds what the harness needs: audit log, tools, and what the kubelet must be told on an old cgroup hierarchy.
pub(super) fn complete(mut config: Value, mounts: &Mounts<'_>, accept_cgroup_v1: bool) -> Value {
    let mount = |host: &Path, inside: &str, read_only: bool| json!({"hostPath": host.display().to_string(), "containerPath": inside, "readOnly": read_only});
    for node in config["nodes"].as_array_mut().into_iter().flatten() {
        let is_control_plane = node["role"].as_str().unwrap_or("control-plane") == "control-plane";
        let mut wanted = vec![mount(mounts.tools, TOOLS, true)];
        if is_control_plane {
            wanted.push(mount(mounts.policy, POLICY_DIR, true));
            wanted.push(mount(mounts.logs, LOG_DIR, false));
        }
        push(&mut node["extraMounts"], wanted);
    }
    let mut patches = api_server_patches();
    if accept_cgroup_v1 {
        patches.push(json!("kind: KubeletConfiguration\nfailCgroupV1: false\n"));
    }
    push(&mut config["kubeadmConfigPatches"], patches);
    config
}

fn push(list: &mut Value, more: Vec<Value>) {
    match list.as_array_mut() {
        Some(list) => list.extend(more),
        None => *list = Value::Array(more),
    }
}

/// The audit log, and no waiting for a disk (the data ends with the cluster). kubeadm's versions write arguments
/// differently, and kind chooses the version by that of Kubernetes; a patch for another version is not used.
fn api_server_patches() -> Vec<Value> {
    let audit = [
        ("audit-policy-file", format!("{POLICY_DIR}/policy.yaml")),
        ("audit-log-path", format!("{LOG_DIR}/audit.log")),
        ("audit-log-mode", "blocking".to_owned()),
    ];
    let etcd = [("unsafe-no-fsync", "true".to_owned())];
    let volume = |name: &str, path: &str, read_only: bool| json!({"name": name, "hostPath": path, "mountPath": path, "readOnly": read_only, "pathType": "Directory"});
    let volumes = [volume("portolan-audit-policy", POLICY_DIR, true), volume("portolan-audit-log", LOG_DIR, false)];
    let as_map = |args: &[(&str, String)]| -> Value {
        Value::Object(args.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect())
    };
    let as_list = |args: &[(&str, String)]| -> Value {
        args.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    };
    let patch = |version: &str, api_server: Value, etcd: Value| {
        let patch = json!({
            "apiVersion": format!("kubeadm.k8s.io/{version}"), "kind": "ClusterConfiguration",
            "apiServer": {"extraArgs": api_server, "extraVolumes": volumes},
            "etcd": {"local": {"extraArgs": etcd}},
        });
        // JSON is YAML.
        json!(patch.to_string())
    };
    vec![patch("v1beta3", as_map(&audit), as_map(&etcd)), patch("v1beta4", as_list(&audit), as_list(&etcd))]
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
