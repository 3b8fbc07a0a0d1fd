//! Which provider makes a cluster, and which one made it.

use std::path::Path;

use anyhow::{Result, bail};

use super::kind::preflight::{self, Weight};
use super::netns::NetnsCluster;
use super::{Cluster, journal, kind};
use crate::sys;

/// A way to come by a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Provider {
    /// Namespaces of this machine with our own API server, or with a real control plane: needs root.
    Netns,
    /// Containers made by kind: needs root, Docker, kind and a node image.
    Kind,
    /// A cluster that somebody else made, by its kubeconfig.
    Existing,
    /// netns or kind, the first of the two that can start; says which and why.
    Auto,
}

impl std::fmt::Display for Provider {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Netns => "netns",
            Self::Kind => "kind",
            Self::Existing => "existing",
            Self::Auto => "auto",
        })
    }
}

/// Programs of a real control plane.
const CONTROL_PLANE: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

impl Provider {
    /// Decides, before anything is started, and prints what was decided and why if there was a choice.
    ///
    /// # Errors
    /// What is missing, for each provider that was considered.
    pub(crate) fn decide(self, control_plane: Option<&Path>, node_image: Option<&str>) -> Result<Self> {
        match self {
            Self::Netns => match netns_lacks(control_plane) {
                lacks if lacks.is_empty() => Ok(Self::Netns),
                lacks => bail!("missing:\n  - {}", lacks.join("\n  - ")),
            },
            Self::Kind => {
                let findings = preflight::look(node_image);
                for finding in &findings {
                    eprintln!("  {finding}");
                }
                match findings.iter().filter(|finding| finding.weight == Weight::Missing).count() {
                    0 => Ok(Self::Kind),
                    count => bail!("{count} of the things that kind needs are missing, see above"),
                }
            }
            // The cluster itself is looked at when it has been opened.
            Self::Existing => Ok(Self::Existing),
            Self::Auto => auto(&netns_lacks(control_plane), || preflight::look(node_image)),
        }
    }
}

/// netns where it can start, since it is the faster one; otherwise kind.
fn auto(netns_lacks: &[String], look: impl FnOnce() -> Vec<preflight::Finding>) -> Result<Provider> {
    if netns_lacks.is_empty() {
        eprintln!("provider netns: nothing that it needs is missing, and it is the faster one");
        return Ok(Provider::Netns);
    }
    let kind_lacks: Vec<String> = look()
        .into_iter()
        .filter(|finding| finding.weight == Weight::Missing)
        .map(|finding| finding.to_string())
        .collect();
    if kind_lacks.is_empty() {
        eprintln!("provider kind: nothing that it needs is missing; netns cannot start: {}", netns_lacks.join("; "));
        return Ok(Provider::Kind);
    }
    bail!("no provider can start\nnetns:\n  - {}\nkind:\n  - {}", netns_lacks.join("\n  - "), kind_lacks.join("\n  - "))
}

/// What the kernel and the machine must have for netns; all that is missing is named at once.
fn netns_lacks(control_plane: Option<&Path>) -> Vec<String> {
    let mut lines = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        lines.push("root: namespaces and BPF need it".to_owned());
    }
    if let Err(error) = sys::cgroup2() {
        lines.push(format!("{error:#}"));
    }
    let file_systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for name in ["overlay", "bpf", "tmpfs"] {
        if !file_systems.lines().any(|line| line.split_whitespace().last() == Some(name)) {
            lines.push(format!("file system {name}: a kernel with it (or `modprobe {name}`)"));
        }
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        lines.push("/sys/kernel/btf/vmlinux: a kernel with CONFIG_DEBUG_INFO_BTF".to_owned());
    }
    if let Some(dir) = control_plane {
        let absent: Vec<&str> = CONTROL_PLANE.into_iter().filter(|name| !dir.join(name).is_file()).collect();
        if !absent.is_empty() {
            lines.push(format!("{} in {} (from --control-plane)", absent.join(", "), dir.display()));
        }
    }
    lines
}

/// Refuses to make a cluster under a name that is in use: what would be removed at the end, or after a failure, would be
/// somebody else's. A kind cluster that was kept may be used again with `reuse`.
///
/// # Errors
/// If a cluster of that name runs.
pub(crate) fn refuse_running(provider: Provider, name: &str, reuse: bool) -> Result<()> {
    if provider == Provider::Kind {
        kind::refuse_foreign(name)?;
    }
    let (runs, way) = match provider {
        Provider::Existing => return Ok(()),
        Provider::Kind if reuse => (false, ""),
        Provider::Kind => {
            (kind::runs(name)?, ", or use it: `run` plays on it as it is, `e2e --keep` brings it up to date first")
        }
        _ => (journal::of(name)?.is_some_and(|journal| journal.alive()), ", or use it: `run` plays on it as it is"),
    };
    if runs { bail!("a cluster {name:?} runs already; remove it with `down --name {name}`{way}") } else { Ok(()) }
}

/// The provider that made the cluster of that name, if there is one or what is left of one.
///
/// # Errors
/// If both did and it is not said which is meant, or a journal cannot be understood.
pub(crate) fn find(wanted: Option<Provider>, name: &str) -> Result<Option<Provider>> {
    let here = |provider| matches!(wanted, None | Some(Provider::Auto)) || wanted == Some(provider);
    let netns = here(Provider::Netns) && journal::of(name)?.is_some();
    let kind = here(Provider::Kind) && kind::exists(name)?;
    match (netns, kind) {
        (true, true) => bail!("two clusters have the name {name:?}; say which with --provider"),
        (true, false) => Ok(Some(Provider::Netns)),
        (false, true) => Ok(Some(Provider::Kind)),
        (false, false) => Ok(None),
    }
}

/// The running cluster of that name.
///
/// # Errors
/// If there is none.
pub(crate) fn open(wanted: Option<Provider>, name: &str) -> Result<Box<dyn Cluster>> {
    match find(wanted, name)? {
        Some(Provider::Kind) => Ok(Box::new(kind::KindCluster::open(name)?)),
        Some(_) => Ok(Box::new(NetnsCluster::open(name)?)),
        None => bail!("there is no running cluster {name:?}; make one with `up`"),
    }
}

/// Removes a cluster.
///
/// # Errors
/// If there is none of that name, or something stays.
pub(crate) fn destroy(wanted: Option<Provider>, name: &str) -> Result<()> {
    match find(wanted, name)? {
        Some(Provider::Kind) => kind::destroy(name),
        Some(_) => NetnsCluster::destroy(name),
        None => bail!("there is no cluster {name:?}"),
    }
}

/// Removes what dead runs of any provider left, and says so.
///
/// # Errors
/// If something stays.
pub(crate) fn gc() -> Result<Vec<String>> {
    let mut removed = journal::gc()?;
    removed.extend(kind::gc()?);
    Ok(removed)
}

#[cfg(test)]
#[path = "provider_tests.rs"]
mod tests;
