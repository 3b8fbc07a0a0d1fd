//! From a Pod's containers to what a process needs: environment, arguments.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVarSource, Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::downward::{Addresses, field_value, resource_value};
use super::{Kubelet, services};
use crate::image::Image;

/// Environment of a container: what the pod says, below it Services, below those the image.
pub(super) struct Environment {
    image: BTreeMap<String, String>,
    services: BTreeMap<String, String>,
    own: BTreeMap<String, String>,
}

impl Environment {
    /// What `$(NAME)` means: variables of the pod and of Services, not those of the image.
    fn meaning(&self, name: &str) -> Option<&String> {
        self.own.get(name).or_else(|| self.services.get(name))
    }

    /// All of it.
    pub(super) fn merged(&self) -> BTreeMap<String, String> {
        let mut all = self.image.clone();
        all.extend(self.services.clone());
        all.extend(self.own.clone());
        all
    }
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
) -> Result<Environment> {
    let mut base = image.env.clone();
    base.entry("PATH".into()).or_insert_with(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    base.insert("HOSTNAME".into(), hostname(kubelet, pod));
    let services = of_services(kubelet, pod).await.context("environment variables of Services")?;
    let mut env = Environment { image: base, services, own: BTreeMap::new() };
    for source in container.env_from.iter().flatten() {
        let all = of_object(kubelet, pod, source)
            .await
            .with_context(|| format!("envFrom of container {}", container.name))?;
        env.own.extend(all);
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, |name| env.meaning(name))),
            (None, Some(source)) => from_source(kubelet, pod, container, source, addresses)
                .await
                .with_context(|| format!("environment variable {} of container {}", variable.name, container.name))?,
            (None, None) => Some(String::new()),
        };
        env.own.extend(value.map(|value| (variable.name.clone(), value)));
    }
    Ok(env)
}

/// Variables of the Services of the pod's namespace and of `kubernetes`, or of that one alone.
async fn of_services(kubelet: &Kubelet, pod: &Pod) -> Result<BTreeMap<String, String>> {
    let master = Api::<Service>::namespaced(kubelet.client.clone(), "default").get("kubernetes").await;
    let mut env = services::variables(&master.context("Service default/kubernetes")?);
    if pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false) {
        let namespace = pod.namespace().unwrap_or_default();
        let api = Api::<Service>::namespaced(kubelet.client.clone(), &namespace);
        for service in api.list(&ListParams::default()).await.context("listing Services")? {
            env.extend(services::variables(&service));
        }
    }
    Ok(env)
}

/// All keys of a ConfigMap or Secret.
async fn of_object(kubelet: &Kubelet, pod: &Pod, source: &EnvFromSource) -> Result<BTreeMap<String, String>> {
    let namespace = pod.namespace().unwrap_or_default();
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let data = if let Some(map) = &source.config_map_ref {
        config_map(kubelet, &namespace, &map.name, map.optional).await?.and_then(|found| found.data).unwrap_or_default()
    } else if let Some(secret) = &source.secret_ref {
        let found = self::secret(kubelet, &namespace, &secret.name, secret.optional).await?;
        found.and_then(|found| found.data).unwrap_or_default().into_iter().map(text).collect::<Result<_>>()?
    } else {
        bail!("neither configMapRef nor secretRef");
    };
    let named = data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value));
    // A name that cannot be a variable is left out, as Kubernetes does it.
    Ok(named.filter(|(name, _)| !name.contains(['=', '\0'])).collect())
}

fn text((key, value): (String, ByteString)) -> Result<(String, String)> {
    let value = String::from_utf8(value.0).with_context(|| format!("key {key} of the secret is no text"))?;
    Ok((key, value))
}

/// `None` where what it refers to is optional and missing.
async fn from_source(
    kubelet: &Kubelet,
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    addresses: &Addresses,
) -> Result<Option<String>> {
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return field_value(pod, field, addresses, &kubelet.config.node_name).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        return resource_value(pod, Some(container), field).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let map = config_map(kubelet, &namespace, &key.name, key.optional).await?;
        let value = map.and_then(|map| map.data).and_then(|mut data| data.remove(&key.key));
        return present(value, key.optional, || format!("configmap {:?} has no key {:?}", key.name, key.key));
    }
    if let Some(key) = &source.secret_key_ref {
        let found = secret(kubelet, &namespace, &key.name, key.optional).await?;
        let value = found.and_then(|secret| secret.data).and_then(|mut data| data.remove(&key.key));
        let value = value.map(|value| text((key.key.clone(), value)).map(|(_, value)| value)).transpose()?;
        return present(value, key.optional, || format!("secret {:?} has no key {:?}", key.name, key.key));
    }
    bail!("this kind of valueFrom is not supported by the harness's kubelet")
}

fn present<T>(found: Option<T>, optional: Option<bool>, missing: impl FnOnce() -> String) -> Result<Option<T>> {
    if found.is_none() && optional != Some(true) {
        bail!(missing());
    }
    Ok(found)
}

/// A ConfigMap; `None` if it is missing and optional.
///
/// # Errors
/// If it is missing and not optional, or the API server does not answer.
pub(super) async fn config_map(
    kubelet: &Kubelet,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<ConfigMap>> {
    let found = Api::<ConfigMap>::namespaced(kubelet.client.clone(), namespace).get_opt(name).await;
    present(found.with_context(|| format!("configmap {name:?}"))?, optional, || format!("configmap {name:?} not found"))
}

/// A Secret; `None` if it is missing and optional.
///
/// # Errors
/// If it is missing and not optional, or the API server does not answer.
pub(super) async fn secret(
    kubelet: &Kubelet,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<Secret>> {
    let found = Api::<Secret>::namespaced(kubelet.client.clone(), namespace).get_opt(name).await;
    present(found.with_context(|| format!("secret {name:?}"))?, optional, || format!("secret {name:?} not found"))
}

/// Program and arguments: the container's, or else the image's.
pub(super) fn argv(container: &Container, image: &Image, env: &Environment) -> Vec<String> {
    let mut argv = match &container.command {
        Some(command) if !command.is_empty() => command.clone(),
        _ => image.entrypoint.clone(),
    };
    argv.extend(container.args.clone().unwrap_or_default());
    argv.iter().map(|arg| expand(arg, |name| env.meaning(name))).collect()
}

/// The path below a volume that a mount takes.
///
/// # Errors
/// If a variable in `subPathExpr` is not set.
pub(super) fn sub_path(plain: Option<&str>, expression: Option<&str>, env: &Environment) -> Result<Option<String>> {
    if let Some(expression) = expression.filter(|text| !text.is_empty()) {
        let mut missing = None;
        let path = expand(expression, |name| {
            let found = env.meaning(name);
            if found.is_none() {
                missing = Some(name.to_owned());
            }
            found
        });
        return match missing {
            Some(name) => bail!("subPathExpr {expression:?}: no variable {name}"),
            None => Ok(Some(path)),
        };
    }
    Ok(plain.filter(|text| !text.is_empty()).map(str::to_owned))
}

/// Replaces `$(NAME)`; `$$` is a dollar sign, and unknown names stay as they are.
fn expand<'a>(text: &str, mut meaning: impl FnMut(&str) -> Option<&'a String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match meaning(name) {
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

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
