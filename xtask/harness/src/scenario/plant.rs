//! Planting a fault from outside (DESIGN decision 20), to see that the checks of a step find it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::json;

use super::format::Protocol;
use super::probe::{self, NETTOOL};
use crate::bpf_map::{Entry, PinnedMap};
use crate::cluster::{Cluster, Place};
use crate::sys;

/// Time for a decoy to listen.
const LISTEN: Duration = Duration::from_secs(5);
/// Time for an agent to see that a link is gone and to attach its program again.
const REPAIR: Duration = Duration::from_secs(10);

/// A fault.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Plant {
    /// In the pinned maps of all nodes, the first backend of a Service gets the address of another pod.
    EditBackend {
        /// Service in namespace `default`.
        service: String,
        /// Pod in namespace `default`.
        to: String,
    },
    /// A pinned map of a node is emptied.
    WipeMap {
        /// Name of the map.
        map: String,
        /// The node.
        node: String,
    },
    /// The ingress address of a Service is written into the status of another one.
    CopyAddress {
        /// Service in namespace `default` that has the address.
        from: String,
        /// Service in namespace `default` that gets it too.
        to: String,
    },
    /// Somebody listens on a port of a node and answers like the workload.
    Decoy {
        /// The node.
        node: String,
        /// The port.
        port: u16,
    },
    /// A packet with a wrong checksum arrives at a node.
    BadChecksum {
        /// The node.
        node: String,
    },
    /// The pinned links of a program of a node are removed, which detaches it.
    Detach {
        /// Name of the program.
        program: String,
        /// The node.
        node: String,
    },
}

/// A planted fault that can be taken away again.
pub(super) enum Planted {
    /// Maps were edited.
    Maps(Vec<Edited>),
    /// Links were removed, from these places.
    Links(Vec<PathBuf>),
    /// A process listens.
    Decoy(Child),
    /// What was done is done.
    Event,
}

/// One edited map.
pub(super) struct Edited {
    path: PathBuf,
    before: Vec<Entry>,
    after: Vec<Entry>,
}

/// Plants a fault.
///
/// # Errors
/// If it cannot be planted here.
pub(super) async fn plant(client: &Client, cluster: &dyn Cluster, fault: &Plant) -> Result<Planted> {
    match fault {
        Plant::EditBackend { service, to } => edit_backend(client, cluster, service, to).await,
        Plant::WipeMap { map, node } => {
            let path = map_path(cluster, node, map)?;
            edit(vec![path], |_| Some(Vec::new()))
        }
        Plant::CopyAddress { from, to } => copy_address(client, from, to).await.map(|()| Planted::Event),
        Plant::Decoy { node, port } => decoy(cluster, node, *port).map(Planted::Decoy),
        Plant::BadChecksum { node } => {
            let lan = cluster.outside().into_iter().next().context("no host outside")?;
            let target = cluster.nodes().iter().find(|known| known.name == *node).context("no such node")?.address;
            let argv = [NETTOOL, "send-bad-checksum", &format!("{target}:9")].map(str::to_owned);
            let output = cluster.command(&Place::Outside(lan), &argv)?.output()?;
            if !output.status.success() {
                bail!("{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(Planted::Event)
        }
        Plant::Detach { program, node } => detach(cluster, node, program).map(Planted::Links),
    }
}

impl Planted {
    /// Whether the fault is still there: the product may have repaired it before any check could see it.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub(super) fn is_there(&self) -> Result<bool> {
        let edited = match self {
            Self::Maps(edited) => edited,
            Self::Links(paths) => return Ok(paths.iter().any(|path| !path.exists())),
            Self::Decoy(_) | Self::Event => return Ok(true),
        };
        for map in edited {
            if sorted(PinnedMap::open(&map.path)?.entries()?) != sorted(map.after.clone()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the fault away.
    ///
    /// # Errors
    /// If something stays.
    pub(super) fn remove(self) -> Result<()> {
        match self {
            Self::Event => Ok(()),
            // Only the product can attach its programs, and must.
            Self::Links(paths) => wait_until_repaired(&paths),
            Self::Maps(edited) => edited.iter().try_for_each(|map| write(&map.path, &map.before)),
            Self::Decoy(mut child) => {
                child.kill().context("ending the decoy")?;
                child.wait().map(drop).context("waiting for the decoy's end")
            }
        }
    }
}

fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort();
    entries
}

/// A directory of pins of a node. The one in between is named by the maps' shapes, which is the product's affair.
fn pins(cluster: &dyn Cluster, node: &str, kind: &str) -> Result<PathBuf> {
    let bpffs = cluster.bpffs(node)?.context("this provider gives no way to a node's BPF file system")?;
    let dir = bpffs.join("portolan");
    let shapes = std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let found = shapes.flatten().map(|entry| entry.path().join(kind)).find(|path| path.exists());
    found.with_context(|| format!("node {node} has no pinned {kind}"))
}

fn map_path(cluster: &dyn Cluster, node: &str, map: &str) -> Result<PathBuf> {
    let path = pins(cluster, node, "maps")?.join(map);
    if !path.exists() {
        bail!("node {node} has no pinned map {map}");
    }
    Ok(path)
}

fn detach(cluster: &dyn Cluster, node: &str, program: &str) -> Result<Vec<PathBuf>> {
    let dir = pins(cluster, node, "links")?;
    let mut removed = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.split('@').next() == Some(program) {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            removed.push(path.clone());
        }
    }
    if removed.is_empty() {
        bail!("node {node} has no pinned link of program {program}");
    }
    Ok(removed)
}

fn wait_until_repaired(links: &[PathBuf]) -> Result<()> {
    let deadline = Instant::now() + REPAIR;
    while let Some(missing) = links.iter().find(|path| !path.exists()) {
        if Instant::now() > deadline {
            bail!("{} was removed, and is not there again after {REPAIR:?}", missing.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Replaces the content of maps; `change` returns the new content, or `None` to leave a map alone.
fn edit(paths: Vec<PathBuf>, change: impl Fn(&[Entry]) -> Option<Vec<Entry>>) -> Result<Planted> {
    let mut edited = Vec::new();
    for path in paths {
        let before = PinnedMap::open(&path)?.entries().with_context(|| format!("reading {}", path.display()))?;
        if let Some(after) = change(&before) {
            write(&path, &after)?;
            edited.push(Edited { path, before, after });
        }
    }
    if edited.is_empty() {
        bail!("there was nothing to edit");
    }
    Ok(Planted::Maps(edited))
}

fn write(path: &std::path::Path, entries: &[Entry]) -> Result<()> {
    let map = PinnedMap::open(path)?;
    let describe = || format!("writing {}", path.display());
    for (key, _) in map.entries().with_context(describe)? {
        if entries.iter().all(|(wanted, _)| *wanted != key) {
            map.delete(&key).with_context(describe)?;
        }
    }
    entries.iter().try_for_each(|entry| map.put(entry)).with_context(describe)
}

async fn edit_backend(client: &Client, cluster: &dyn Cluster, service: &str, to: &str) -> Result<Planted> {
    let target = probe::target(client, cluster, service, Protocol::Tcp).await?;
    let backend = target.backends.first().context("the service has no pod")?;
    let old: Ipv4Addr = backend.address.parse()?;
    let pod = Api::<Pod>::namespaced(client.clone(), "default").get(to).await?;
    let new: Ipv4Addr = pod.status.and_then(|status| status.pod_ip).context("the pod has no address")?.parse()?;
    let mut paths = Vec::new();
    for node in cluster.nodes() {
        paths.push(map_path(cluster, &node.name, "backends")?);
    }
    edit(paths, |entries| {
        let mut changed = false;
        let mut entries = entries.to_vec();
        for (_, value) in &mut entries {
            changed |= replace(value, old, new);
        }
        changed.then_some(entries)
    })
}

/// Replaces an address, in whatever field it is.
fn replace(value: &mut [u8], old: Ipv4Addr, new: Ipv4Addr) -> bool {
    let found = value.windows(4).position(|window| window == old.octets());
    if let Some(at) = found {
        value[at..at + 4].copy_from_slice(&new.octets());
    }
    found.is_some()
}

async fn copy_address(client: &Client, from: &str, to: &str) -> Result<()> {
    let services = Api::<Service>::namespaced(client.clone(), "default");
    let status = services.get(from).await?.status.context("the service has no status")?;
    let ingress = status.load_balancer.and_then(|balancer| balancer.ingress).context("the service has no address")?;
    let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    services.patch_status(to, &PatchParams::default(), &Patch::Merge(&patch)).await.context("writing the status")?;
    Ok(())
}

fn decoy(cluster: &dyn Cluster, node: &str, port: u16) -> Result<Child> {
    let place = Place::Node(node.to_owned());
    let text = port.to_string();
    let argv = [NETTOOL, "listen-decoy", &text].map(str::to_owned);
    let mut command = cluster.command(&place, &argv)?;
    command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
    sys::die_with_parent(&mut command);
    let mut child = command.spawn().context("starting the decoy")?;
    let deadline = Instant::now() + LISTEN;
    let url = format!("tcp://127.0.0.1:{port}");
    loop {
        let report = probe::json(cluster, &place, &[NETTOOL, "probe", "--timeout", "1s", &url])?;
        if report["targets"][0]["attempts"][0]["outcome"] == "ok" {
            return Ok(child);
        }
        if let Some(status) = child.try_wait()? {
            bail!("the decoy ended: {status}; is port {port} of {node} in use?");
        }
        if Instant::now() > deadline {
            child.kill()?;
            bail!("the decoy does not listen after {LISTEN:?}: {report}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_replaced_wherever_it_is() {
        let mut value = vec![0, 0, 0xff, 0xff, 10, 244, 1, 9, 0, 80];
        assert!(replace(&mut value, Ipv4Addr::new(10, 244, 1, 9), Ipv4Addr::new(10, 244, 2, 7)));
        assert_eq!(value, [0, 0, 0xff, 0xff, 10, 244, 2, 7, 0, 80]);
        assert!(!replace(&mut value, Ipv4Addr::new(10, 244, 1, 9), Ipv4Addr::new(10, 244, 2, 7)));
    }
}
