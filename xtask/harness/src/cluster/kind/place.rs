//! Finding a process of a node, a pod or an outside host as this machine sees it, with its cgroup: commands are run by
//! entering both, in the same way as on a cluster of namespaces, and not by way of the engine, whose `exec` neither
//! passes signals on nor ends with its caller.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::super::enter::{self, ALL};
use super::super::journal::start_time;
use super::engine;
use super::layout::State;
use crate::sys;

/// A process and its cgroup of version 2, as the host sees them.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) pid: i32,
    pub(super) cgroup: PathBuf,
    started: u64,
}

impl Found {
    fn new(pid: i32) -> Result<Self> {
        let started = start_time(pid).with_context(|| format!("process {pid} is gone"))?;
        Ok(Self { pid, cgroup: cgroup_of(Path::new(&format!("/proc/{pid}")))?, started })
    }

    fn lives(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

/// Processes found so far; looking one up costs tens of milliseconds, and a matrix asks hundreds of times.
#[derive(Default)]
pub(super) struct Places {
    known: Mutex<BTreeMap<String, Found>>,
}

impl Places {
    fn remember(&self, key: String, find: impl FnOnce() -> Result<Found>) -> Result<Found> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key).filter(|found| found.lives()) {
            return Ok(found.clone());
        }
        let found = find()?;
        lock().insert(key, found.clone());
        Ok(found)
    }

    /// First process of a container of the engine.
    ///
    /// # Errors
    /// If it does not run.
    pub(super) fn container(&self, state: &State, name: &str) -> Result<Found> {
        self.remember(name.to_owned(), || {
            let all = engine::containers(&[name], &state.names.network)?;
            match all.first() {
                Some(container) if container.pid > 0 => Found::new(container.pid),
                _ => bail!("container {name} does not run"),
            }
        })
    }

    /// First process of a node.
    ///
    /// # Errors
    /// If there is no such node, or it does not run.
    pub(super) fn node(&self, state: &State, name: &str) -> Result<Found> {
        if !state.nodes.iter().any(|node| node.name == name) {
            let known: Vec<&str> = state.nodes.iter().map(|node| node.name.as_str()).collect();
            bail!("there is no node {name:?}; nodes are {}", known.join(", "));
        }
        self.container(state, name)
    }

    /// First process of a pod's container; of its first one if no name is given.
    ///
    /// # Errors
    /// If it runs on no node.
    pub(super) fn pod(&self, state: &State, namespace: &str, pod: &str, container: Option<&str>) -> Result<Found> {
        let key = format!("{namespace}/{pod}/{}", container.unwrap_or_default());
        self.remember(key, || {
            for node in &state.nodes {
                let Ok(host) = self.node(state, &node.name) else { continue };
                let running = running(state, &host, namespace, pod, container)
                    .with_context(|| format!("asking the container runtime of {}", node.name))?;
                if let Some(id) = running {
                    return inside(state, &host, &id);
                }
            }
            bail!(
                "{}pod {namespace}/{pod} runs on no node",
                container.map(|c| format!("container {c} of ")).unwrap_or_default()
            )
        })
    }
}

/// Id of a running container, by the node's runtime.
fn running(state: &State, node: &Found, namespace: &str, pod: &str, container: Option<&str>) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        containers: Vec<Entry>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry {
        id: String,
        created_at: String,
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
    }
    let labels = [format!("io.kubernetes.pod.namespace={namespace}"), format!("io.kubernetes.pod.name={pod}")];
    let mut args = vec!["ps", "--state", "running", "--output", "json"];
    args.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
    let mut list: List = serde_json::from_str(&crictl(state, node, &args)?).context("reading crictl ps")?;
    // The first that was made is the first of the pod's specification; names break the tie of equal times.
    list.containers.sort_by(|a, b| (a.created_at.len(), &a.created_at).cmp(&(b.created_at.len(), &b.created_at)));
    Ok(list.containers.into_iter().find(|entry| container.is_none_or(|name| entry.metadata.name == name)).map(|e| e.id))
}

/// First process of a container of a node's runtime. The runtime says the number by which the node knows it; the
/// cgroup, which both sides see, leads to the number by which the host does.
fn inside(state: &State, node: &Found, id: &str) -> Result<Found> {
    let seen: serde_json::Value = serde_json::from_str(&crictl(state, node, &["inspect", "--output", "json", id])?)
        .context("reading crictl inspect")?;
    let inner = seen["info"]["pid"].as_i64().with_context(|| format!("crictl inspect {id} tells no pid"))?;
    let cgroup = cgroup_of(Path::new(&format!("/proc/{}/root/proc/{inner}", node.pid)))?;
    let pid = sys::cgroup_pids(&cgroup)
        .into_iter()
        .find(|pid| node_pid(*pid) == Some(inner))
        .with_context(|| format!("process {inner} of the node is not in {}", cgroup.display()))?;
    Found::new(pid)
}

fn crictl(state: &State, node: &Found, args: &[&str]) -> Result<String> {
    let argv: Vec<String> = std::iter::once("crictl").chain(args.iter().copied()).map(str::to_owned).collect();
    engine::run(enter::command(&state.bin_dir.join("harness"), node.pid, Some(&node.cgroup), ALL, &argv))
}

/// The number by which the second PID namespace, the node's, knows a process (`NSpid` of proc_pid_status(5)).
fn node_pid(pid: i32) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    second_namespace(&status)
}

fn second_namespace(status: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// The cgroup of version 2 of a process, on this machine's mount.
fn cgroup_of(proc: &Path) -> Result<PathBuf> {
    let path = proc.join("cgroup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let inside = v2_path(&text).with_context(|| format!("{}: no entry of cgroup v2", path.display()))?;
    Ok(sys::cgroup2()?.join(inside))
}

/// The entry `0::/…` of proc_pid_cgroup(5), which is version 2 in a hybrid hierarchy as well.
fn v2_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::/"))
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
