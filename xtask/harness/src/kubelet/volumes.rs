//! A pod's volumes, as directories of the node that are bound into its containers.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, Pod, ServiceAccount,
    ServiceAccountTokenProjection, Volume,
};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use nix::mount::MsFlags;
use nix::unistd::{Gid, chown};

use super::downward::{Addresses, field_value, nanos, resource_value};
use super::payload::{self, File, Payload};
use super::{Kubelet, PodId, spec};
use crate::sys;

/// Lifetime of a token for which the pod names none.
const TOKEN_SECONDS: i64 = 3600;
/// Mode of files for which the pod names none.
const MODE: u32 = 0o644;
/// How often volumes are compared with what they show.
const REFRESH: Duration = Duration::from_secs(60);
/// Pause after a refresh that failed.
const REFRESH_AGAIN: Duration = Duration::from_secs(10);

/// A token and when the next one is to be asked for.
struct Token {
    text: String,
    renew: Instant,
}

/// The volumes of one pod.
pub(super) struct Volumes {
    paths: BTreeMap<String, PathBuf>,
    /// By volume and path.
    tokens: HashMap<(String, String), Token>,
    written: BTreeMap<String, Payload>,
}

impl Volumes {
    /// Makes all volumes of a pod.
    ///
    /// # Errors
    /// With the volume that cannot be made.
    pub(super) async fn prepare(kubelet: &Kubelet, pod: &Pod, id: &PodId, addresses: &Addresses) -> Result<Self> {
        let mut volumes = Self { paths: BTreeMap::new(), tokens: HashMap::new(), written: BTreeMap::new() };
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let path = volumes
                .one(kubelet, pod, id, volume, addresses)
                .await
                .with_context(|| format!("volume {:?}", volume.name))?;
            volumes.paths.insert(volume.name.clone(), path);
        }
        Ok(volumes)
    }

    /// Where each volume lies.
    pub(super) fn paths(&self) -> BTreeMap<String, PathBuf> {
        self.paths.clone()
    }

    /// Writes what has changed, again and again: tokens at four fifths of their lifetime, everything else each minute.
    pub(super) async fn keep_fresh(mut self, kubelet: &Kubelet, pod: &Pod, id: &PodId, addresses: &Addresses) {
        loop {
            let soonest = self.tokens.values().map(|token| token.renew).min();
            let pause = soonest.map_or(REFRESH, |at| at.saturating_duration_since(Instant::now()).min(REFRESH));
            tokio::time::sleep(pause).await;
            let pod = kubelet.newest(&id.uid).unwrap_or_else(|| pod.clone());
            for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
                if let Err(error) = self.refresh(kubelet, &pod, id, volume, addresses).await {
                    eprintln!("volume {:?} of pod {}/{}: {error:#}", volume.name, id.namespace, id.name);
                    tokio::time::sleep(REFRESH_AGAIN).await;
                }
            }
        }
    }

    async fn one(
        &mut self,
        kubelet: &Kubelet,
        pod: &Pod,
        id: &PodId,
        volume: &Volume,
        addresses: &Addresses,
    ) -> Result<PathBuf> {
        if let Some(source) = &volume.host_path {
            return host_path(source);
        }
        let dir = directory(id, volume);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        if let Some(source) = &volume.empty_dir {
            empty_dir(&dir, source, fs_group(pod)?)?;
        } else {
            self.refresh(kubelet, pod, id, volume, addresses).await?;
        }
        Ok(dir)
    }

    /// Writes a volume that is made of objects, if it is one and its contents have changed.
    async fn refresh(
        &mut self,
        kubelet: &Kubelet,
        pod: &Pod,
        id: &PodId,
        volume: &Volume,
        addresses: &Addresses,
    ) -> Result<()> {
        let Some(payload) = self.payload(kubelet, pod, id, volume, addresses).await? else { return Ok(()) };
        if self.written.get(&volume.name) != Some(&payload) {
            payload::write(&directory(id, volume), &payload, fs_group(pod)?)?;
            self.written.insert(volume.name.clone(), payload);
        }
        Ok(())
    }

    async fn payload(
        &mut self,
        kubelet: &Kubelet,
        pod: &Pod,
        id: &PodId,
        volume: &Volume,
        addresses: &Addresses,
    ) -> Result<Option<Payload>> {
        let mut payload = Payload::new();
        if let Some(source) = &volume.config_map {
            let data = config_map(kubelet, id, &source.name, source.optional).await?;
            add(&mut payload, data, source.items.as_deref(), mode(source.default_mode)?, source.optional)?;
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let data = secret(kubelet, id, name, source.optional).await?;
            add(&mut payload, data, source.items.as_deref(), mode(source.default_mode)?, source.optional)?;
        } else if let Some(source) = &volume.downward_api {
            let default = mode(source.default_mode)?;
            downward(&mut payload, kubelet, pod, source.items.as_deref(), addresses, default)?;
        } else if let Some(source) = &volume.projected {
            let default = mode(source.default_mode)?;
            for part in source.sources.iter().flatten() {
                if let Some(token) = &part.service_account_token {
                    let text = self.token(kubelet, pod, id, &volume.name, token).await?;
                    // With a group for the volume, the token is that group's and nobody else's.
                    let mode = if fs_group(pod)?.is_some() { 0o600 } else { default };
                    payload.insert(payload::path(&token.path)?, File { content: text.into_bytes(), mode });
                } else if let Some(map) = &part.config_map {
                    let data = config_map(kubelet, id, &map.name, map.optional).await?;
                    add(&mut payload, data, map.items.as_deref(), default, map.optional)?;
                } else if let Some(from) = &part.secret {
                    let data = secret(kubelet, id, &from.name, from.optional).await?;
                    add(&mut payload, data, from.items.as_deref(), default, from.optional)?;
                } else if let Some(part) = &part.downward_api {
                    downward(&mut payload, kubelet, pod, part.items.as_deref(), addresses, default)?;
                } else {
                    bail!("this kind of projected source is not supported by the harness's kubelet");
                }
            }
        } else if volume.host_path.is_some() || volume.empty_dir.is_some() {
            return Ok(None);
        } else {
            bail!("this kind of volume is not supported by the harness's kubelet");
        }
        Ok(Some(payload))
    }

    async fn token(
        &mut self,
        kubelet: &Kubelet,
        pod: &Pod,
        id: &PodId,
        volume: &str,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String> {
        let key = (volume.to_owned(), source.path.clone());
        if let Some(token) = self.tokens.get(&key).filter(|token| Instant::now() < token.renew) {
            return Ok(token.text.clone());
        }
        let seconds = source.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let (text, lifetime) = request_token(kubelet, pod, id, source.audience.as_deref(), seconds).await?;
        self.tokens.insert(key, Token { text: text.clone(), renew: Instant::now() + renewal(lifetime) });
        Ok(text)
    }
}

/// When a token is renewed, from its issue on: at four fifths of its lifetime, and each day, as a real kubelet does it.
fn renewal(lifetime: Duration) -> Duration {
    (lifetime * 4 / 5).min(Duration::from_secs(86_400))
}

fn directory(id: &PodId, volume: &Volume) -> PathBuf {
    id.dir().join("volumes").join(&volume.name)
}

fn mode(value: Option<i32>) -> Result<u32> {
    value.map_or(Ok(MODE), |mode| u32::try_from(mode).with_context(|| format!("mode {mode}")))
}

fn fs_group(pod: &Pod) -> Result<Option<u32>> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let group = context.and_then(|context| context.fs_group);
    group.map(|id| u32::try_from(id).with_context(|| format!("fsGroup {id} is no id"))).transpose()
}

fn empty_dir(dir: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<()> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            // A try before this one may have mounted it.
            if !payload::is_mount(dir)? {
                let limit = source.size_limit.as_ref().map(|size| nanos(&size.0)).transpose()?;
                let size = limit.map(|nanos| format!("size={}", nanos / 1_000_000_000));
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                sys::mount_at(Some(Path::new("tmpfs")), dir, Some("tmpfs"), flags, size.as_deref())?;
            }
        }
        other => bail!("emptyDir.medium {other:?} is not supported by the harness's kubelet"),
    }
    if let Some(group) = group {
        chown(dir, None, Some(Gid::from_raw(group))).with_context(|| format!("fsGroup of {}", dir.display()))?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("permissions of {}", dir.display()))
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
        kind @ ("Socket" | "CharDevice" | "BlockDevice") => {
            let found = std::fs::metadata(&path).with_context(|| format!("hostPath {}", path.display()))?.file_type();
            let right = match kind {
                "Socket" => found.is_socket(),
                "CharDevice" => found.is_char_device(),
                _ => found.is_block_device(),
            };
            if !right {
                bail!("hostPath {} is not of type {kind}", path.display());
            }
            (true, Some(false))
        }
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

type Data = BTreeMap<String, Vec<u8>>;

async fn config_map(kubelet: &Kubelet, id: &PodId, name: &str, optional: Option<bool>) -> Result<Data> {
    let Some(map) = spec::config_map(kubelet, &id.namespace, name, optional).await? else { return Ok(Data::new()) };
    let mut data: Data = map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    data.extend(map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes())));
    Ok(data)
}

async fn secret(kubelet: &Kubelet, id: &PodId, name: &str, optional: Option<bool>) -> Result<Data> {
    let found = spec::secret(kubelet, &id.namespace, name, optional).await?;
    Ok(found.and_then(|found| found.data).unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect())
}

/// Adds the keys that are asked for, or all.
fn add(
    payload: &mut Payload,
    mut data: Data,
    items: Option<&[KeyToPath]>,
    default: u32,
    optional: Option<bool>,
) -> Result<()> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, content) in data {
            payload.insert(payload::path(&key)?, File { content, mode: default });
        }
        return Ok(());
    };
    for item in items {
        let mode = item.mode.map_or(Ok(default), |own| mode(Some(own)))?;
        match data.remove(&item.key) {
            Some(content) => drop(payload.insert(payload::path(&item.path)?, File { content, mode })),
            None if optional == Some(true) => {}
            None => bail!("there is no key {:?}", item.key),
        }
    }
    Ok(())
}

fn downward(
    payload: &mut Payload,
    kubelet: &Kubelet,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    addresses: &Addresses,
    default: u32,
) -> Result<()> {
    for item in items.unwrap_or_default() {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(pod, field, addresses, &kubelet.config.node_name)?,
            (None, Some(resource)) => resource_value(pod, None, resource)?,
            (None, None) => bail!("{:?} of a downwardAPI has neither fieldRef nor resourceFieldRef", item.path),
        };
        let mode = item.mode.map_or(Ok(default), |own| mode(Some(own)))?;
        payload.insert(payload::path(&item.path)?, File { content: value.into_bytes(), mode });
    }
    Ok(())
}

/// A new token of the pod's service account, and how long it is valid.
async fn request_token(
    kubelet: &Kubelet,
    pod: &Pod,
    id: &PodId,
    audience: Option<&str>,
    seconds: i64,
) -> Result<(String, Duration)> {
    let account =
        pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".into());
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audience.map(str::to_owned).into_iter().collect(),
            expiration_seconds: Some(seconds),
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
    let status = answer.status.context("the token request was not answered")?;
    let left = status.expiration_timestamp.0.as_second() - Timestamp::now().as_second();
    Ok((status.token, Duration::from_secs(left.max(0).unsigned_abs())))
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
