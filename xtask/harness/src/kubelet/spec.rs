//! From a Pod's containers to what a process needs: environment, arguments.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, ObjectFieldSelector, Pod, Secret};
use kube::{Api, ResourceExt};

use super::{Kubelet, PodId};
use crate::image::Image;

/// Addresses that the downward API tells.
pub(super) struct Addresses {
    pub(super) pod: String,
    pub(super) host: String,
}

/// Environment of a container.
///
/// # Errors
/// With the variable that has no value.
pub(super) async fn environment(
    kubelet: &Kubelet,
    pod: &Pod,
    container: &Container,
    image: &Image,
    addresses: &Addresses,
) -> Result<BTreeMap<String, String>> {
    let mut env = image.env.clone();
    env.entry("PATH".into()).or_insert_with(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    env.insert("HOSTNAME".into(), hostname(kubelet, pod));
    env.insert("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into());
    env.insert("KUBERNETES_SERVICE_PORT".into(), "443".into());
    if container.env_from.as_ref().is_some_and(|list| !list.is_empty()) {
        bail!("envFrom of container {} is not supported by the harness's kubelet", container.name);
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => expand(value, &env),
            (None, Some(source)) => from_source(kubelet, pod, source, addresses)
                .await
                .with_context(|| format!("environment variable {} of container {}", variable.name, container.name))?,
            (None, None) => String::new(),
        };
        env.insert(variable.name.clone(), value);
    }
    Ok(env)
}

async fn from_source(kubelet: &Kubelet, pod: &Pod, source: &EnvVarSource, addresses: &Addresses) -> Result<String> {
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return field_value(pod, field, addresses, &kubelet.config.node_name);
    }
    if let Some(key) = &source.config_map_key_ref {
        let map = Api::<ConfigMap>::namespaced(kubelet.client.clone(), &namespace).get(&key.name).await?;
        return map.data.and_then(|mut data| data.remove(&key.key)).with_context(|| format!("no key {}", key.key));
    }
    if let Some(key) = &source.secret_key_ref {
        let secret = Api::<Secret>::namespaced(kubelet.client.clone(), &namespace).get(&key.name).await?;
        let value =
            secret.data.and_then(|mut data| data.remove(&key.key)).with_context(|| format!("no key {}", key.key))?;
        return String::from_utf8(value.0).context("the secret is no text");
    }
    bail!("this kind of valueFrom is not supported by the harness's kubelet")
}

/// A field of the pod (downward API).
///
/// # Errors
/// If the field is not one of those that exist.
pub(super) fn field_value(pod: &Pod, field: &ObjectFieldSelector, addresses: &Addresses, node: &str) -> Result<String> {
    let spec = pod.spec.as_ref();
    let keyed = |prefix: &str| {
        let rest = field.field_path.strip_prefix(prefix)?.strip_prefix("['")?;
        rest.strip_suffix("']").map(str::to_owned)
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
        "spec.nodeName" => node.to_owned(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" | "status.podIPs" => addresses.pod.clone(),
        "status.hostIP" | "status.hostIPs" => addresses.host.clone(),
        other => bail!("unknown field {other:?}"),
    })
}

/// Program and arguments: the container's, or else the image's.
pub(super) fn argv(container: &Container, image: &Image, env: &BTreeMap<String, String>) -> Vec<String> {
    let mut argv = match &container.command {
        Some(command) if !command.is_empty() => command.clone(),
        _ => image.entrypoint.clone(),
    };
    argv.extend(container.args.clone().unwrap_or_default());
    argv.iter().map(|arg| expand(arg, env)).collect()
}

/// Replaces `$(NAME)`; `$$` is a dollar sign, and unknown names stay as they are.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Host name inside the pod.
pub(super) fn hostname(kubelet: &Kubelet, pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        return kubelet.config.node_name.clone();
    }
    let mut name = spec.and_then(|spec| spec.hostname.clone()).unwrap_or_else(|| pod.name_any());
    name.truncate(63);
    name
}

/// Fields that change what a container may do and that this kubelet does not carry out: better refused than ignored.
///
/// # Errors
/// With the first such field.
pub(super) fn check_supported(pod: &Pod, id: &PodId) -> Result<()> {
    let Some(spec) = &pod.spec else { bail!("pod {}/{} has no spec", id.namespace, id.name) };
    for (name, used) in [
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("shareProcessNamespace", spec.share_process_namespace == Some(true)),
        ("runtimeClassName", spec.runtime_class_name.is_some()),
    ] {
        if used {
            bail!("{name} is not supported by the harness's kubelet");
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
