//! A pod's volumes, as directories of the node that are bound into its containers.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, HostPathVolumeSource, KeyToPath, Pod, ProjectedVolumeSource, Secret, ServiceAccount, Volume,
};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use super::spec::{Addresses, field_value};
use super::{Kubelet, PodId};

/// Tokens are asked for a day: the harness's clusters live for hours at most, and the API server allows it.
const TOKEN_SECONDS: i64 = 86_400;

/// Makes all volumes of a pod; returns where each lies.
///
/// # Errors
/// With the volume that cannot be made.
pub(super) async fn prepare(
    kubelet: &Kubelet,
    pod: &Pod,
    id: &PodId,
    addresses: &Addresses,
) -> Result<BTreeMap<String, PathBuf>> {
    let mut paths = BTreeMap::new();
    let volumes: Vec<Volume> = pod.spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
    for volume in &volumes {
        let path =
            one(kubelet, pod, id, volume, addresses).await.with_context(|| format!("volume {:?}", volume.name))?;
        paths.insert(volume.name.clone(), path);
    }
    Ok(paths)
}

async fn one(kubelet: &Kubelet, pod: &Pod, id: &PodId, volume: &Volume, addresses: &Addresses) -> Result<PathBuf> {
    if let Some(source) = &volume.host_path {
        return host_path(source);
    }
    let dir = id.dir().join("volumes").join(&volume.name);
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    if volume.empty_dir.is_some() {
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777))?;
    } else if let Some(source) = &volume.config_map {
        let optional = source.optional == Some(true);
        let data = config_map(kubelet, &id.namespace, &source.name, optional).await?;
        write(&dir, &data, source.items.as_deref())?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let secret = Api::<Secret>::namespaced(kubelet.client.clone(), &id.namespace).get(&name).await?;
        let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
        write(&dir, &data, source.items.as_deref())?;
    } else if let Some(source) = &volume.projected {
        projected(kubelet, pod, id, source, &dir, addresses).await?;
    } else {
        bail!("this kind of volume is not supported by the harness's kubelet");
    }
    Ok(dir)
}

fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf> {
    let path = PathBuf::from(&source.path);
    let (must, directory) = match source.type_.as_deref().unwrap_or_default() {
        "" => (false, None),
        "DirectoryOrCreate" => {
            std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
            (true, Some(true))
        }
        "Directory" => (true, Some(true)),
        "FileOrCreate" => {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .with_context(|| format!("creating {}", path.display()))?;
            (true, Some(false))
        }
        "File" => (true, Some(false)),
        other => bail!("hostPath type {other:?} is not supported by the harness's kubelet"),
    };
    if must && !path.exists() {
        bail!("hostPath {} is not there", path.display());
    }
    if directory.is_some_and(|directory| path.is_dir() != directory) {
        bail!("hostPath {} is not of type {}", path.display(), source.type_.as_deref().unwrap_or_default());
    }
    if !path.exists() {
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    }
    Ok(path)
}

async fn config_map(
    kubelet: &Kubelet,
    namespace: &str,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let found = Api::<ConfigMap>::namespaced(kubelet.client.clone(), namespace).get_opt(name).await?;
    let Some(map) = found else {
        if optional {
            return Ok(BTreeMap::new());
        }
        bail!("configmap {name:?} not found");
    };
    let mut data: BTreeMap<String, Vec<u8>> =
        map.binary_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
    data.extend(map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes())));
    Ok(data)
}

fn write(dir: &Path, data: &BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>) -> Result<()> {
    let all: Vec<(&String, PathBuf)> = match items {
        Some(items) if !items.is_empty() => items.iter().map(|item| (&item.key, PathBuf::from(&item.path))).collect(),
        _ => data.keys().map(|key| (key, PathBuf::from(key))).collect(),
    };
    for (key, path) in all {
        let value = data.get(key).with_context(|| format!("there is no key {key:?}"))?;
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, value).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

async fn projected(
    kubelet: &Kubelet,
    pod: &Pod,
    id: &PodId,
    source: &ProjectedVolumeSource,
    dir: &Path,
    addresses: &Addresses,
) -> Result<()> {
    for source in source.sources.iter().flatten() {
        if let Some(token) = &source.service_account_token {
            let text = service_account_token(kubelet, pod, id, token.audience.as_deref()).await?;
            write(dir, &BTreeMap::from([(token.path.clone(), text.into_bytes())]), None)?;
        } else if let Some(map) = &source.config_map {
            let data = config_map(kubelet, &id.namespace, &map.name, map.optional == Some(true)).await?;
            write(dir, &data, map.items.as_deref())?;
        } else if let Some(downward) = &source.downward_api {
            for item in downward.items.iter().flatten() {
                let field = item.field_ref.as_ref().context("a downwardAPI item without fieldRef")?;
                let value = field_value(pod, field, addresses, &kubelet.config.node_name)?;
                write(dir, &BTreeMap::from([(item.path.clone(), value.into_bytes())]), None)?;
            }
        } else {
            bail!("this kind of projected source is not supported by the harness's kubelet");
        }
    }
    Ok(())
}

async fn service_account_token(kubelet: &Kubelet, pod: &Pod, id: &PodId, audience: Option<&str>) -> Result<String> {
    let account =
        pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".into());
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audience.map(str::to_owned).into_iter().collect(),
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name_any()),
                uid: Some(id.uid.clone()),
            }),
        },
        ..TokenRequest::default()
    };
    let api = Api::<ServiceAccount>::namespaced(kubelet.client.clone(), &id.namespace);
    let answer = api
        .create_token_request(&account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("asking for a token of service account {account}"))?;
    Ok(answer.status.context("the token request was not answered")?.token)
}
