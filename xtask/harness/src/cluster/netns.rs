//! The netns provider: a cluster of namespaces on this machine, found by its state file and its cgroups.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::enter::{self, ALL};
use super::layout::{State, dir};
use super::supervisor::Plan;
use super::{Cluster, NodeInfo, Place, evidence, fabric, journal};
use crate::sys;

/// A running cluster.
pub(crate) struct NetnsCluster {
    state: State,
    nodes: Vec<NodeInfo>,
}

/// Time for the cluster's processes to start.
const START: Duration = Duration::from_secs(60);
/// Time for a node to end and start again.
const RESTART: Duration = Duration::from_secs(30);

impl NetnsCluster {
    /// The running cluster of that name.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let state = State::load(name)?;
        let nodes = state.nodes.iter().map(super::layout::NodeState::info).collect();
        Ok(Self { state, nodes })
    }

    /// Makes a cluster: starts its supervisor and waits until its state is written. A dead one of that name is removed.
    ///
    /// # Errors
    /// If one of that name runs, or it cannot be made.
    pub(crate) fn create(plan: &Plan) -> Result<Self> {
        if let Some(old) = journal::of(&plan.name)? {
            if old.alive() {
                bail!(
                    "a cluster {:?} runs already (pid {}); remove it with `down --name {}`",
                    plan.name,
                    old.pid,
                    plan.name
                );
            }
            old.remove()?;
        }
        let base = dir(&plan.name);
        std::fs::create_dir_all(&base).with_context(|| format!("creating {}", base.display()))?;
        let path = base.join("plan.json");
        std::fs::write(&path, serde_json::to_vec(plan)?)?;
        let log = std::fs::File::create(base.join("supervisor.log"))?;
        let mut command = Command::new(plan.bin_dir.join("harness"));
        command.arg("supervise").arg(&path).stdout(log.try_clone()?).stderr(log);
        command.stdin(std::process::Stdio::null());
        sys::own_session(&mut command);
        let mut supervisor = command.spawn().context("starting the supervisor")?;
        let deadline = Instant::now() + START;
        while !base.join("state.json").exists() {
            if let Some(status) = supervisor.try_wait()? {
                let log = std::fs::read_to_string(base.join("supervisor.log")).unwrap_or_default();
                bail!("the supervisor ended ({status}):\n{log}");
            }
            if Instant::now() > deadline {
                bail!("the cluster's processes did not start within {START:?}; see {}", base.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Self::open(&plan.name)
    }

    /// Ends a cluster and removes what it made.
    ///
    /// # Errors
    /// If there is none of that name, or something stays.
    pub(crate) fn destroy(name: &str) -> Result<()> {
        let Some(journal) = journal::of(name)? else {
            bail!("there is no cluster {name:?}");
        };
        if journal.alive() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(journal.pid), nix::sys::signal::Signal::SIGKILL)
                .context("ending the supervisor")?;
        }
        journal.remove()
    }

    fn harness(&self) -> PathBuf {
        self.state.bin_dir.join("harness")
    }

    /// PID 1 of a node, as the host sees it.
    fn node_pid(&self, node: &str) -> Result<i32> {
        let known = || self.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
        sys::init_of(&self.state.kubelet_cgroup(node))
            .with_context(|| format!("node {node:?} does not run; nodes are {}", known()))
    }

    /// The container's PID 1 and cgroup. The pod's uid is in the kubelet's record of it.
    fn container(&self, namespace: &str, pod: &str, container: Option<&str>) -> Result<(i32, PathBuf)> {
        for node in &self.nodes {
            let Ok(pid) = self.node_pid(&node.name) else { continue };
            let record = PathBuf::from(format!("/proc/{pid}/root/run/kubelet/{namespace}_{pod}"));
            let Ok(text) = std::fs::read_to_string(record) else { continue };
            let mut lines = text.lines();
            let uid = lines.next().context("an empty pod record")?;
            let name = match container {
                Some(name) => name,
                None => lines.next().context("a pod record without containers")?,
            };
            let cgroup = self.state.cgroup.join(&node.name).join(format!("kubepods/pod{uid}")).join(name);
            let pid =
                sys::init_of(&cgroup).with_context(|| format!("container {name} of {namespace}/{pod} does not run"))?;
            return Ok((pid, cgroup));
        }
        bail!("pod {namespace}/{pod} is on no node of this cluster")
    }
}

impl Cluster for NetnsCluster {
    fn provider(&self) -> &'static str {
        "netns"
    }

    fn name(&self) -> &str {
        &self.state.name
    }

    fn kubeconfig(&self) -> &Path {
        &self.state.kubeconfig
    }

    fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    fn outside(&self) -> Vec<String> {
        vec!["lan".to_owned()]
    }

    fn command(&self, place: &Place, argv: &[String]) -> Result<Command> {
        let harness = self.harness();
        match place {
            Place::Node(name) => {
                let pid = self.node_pid(name)?;
                // In the node's cgroup, beside the kubelet, as a shell of an administrator would be.
                let cgroup = self.state.cgroup.join(name);
                Ok(enter::command(&harness, pid, Some(&cgroup), ALL, argv))
            }
            Place::Pod { namespace, pod, container } => {
                let (pid, cgroup) = self.container(namespace, pod, container.as_deref())?;
                Ok(enter::command(&harness, pid, Some(&cgroup), "ipc,uts,net,pid,mnt", argv))
            }
            Place::Outside(name) => {
                let cgroup = self.state.outside_cgroup(name);
                let pid = sys::cgroup_pids(&cgroup)
                    .first()
                    .copied()
                    .with_context(|| format!("there is no host {name:?} outside of the cluster"))?;
                // It has the machine's files, so the tools lie where they were built.
                let mut argv = argv.to_vec();
                if let Some(tool) = argv[0].strip_prefix("/.portolan-tools/") {
                    argv[0] = self.state.bin_dir.join(tool).display().to_string();
                }
                Ok(enter::command(&harness, pid, Some(&cgroup), "uts,net", &argv))
            }
        }
    }

    fn bpffs(&self, node: &str) -> Result<Option<PathBuf>> {
        Ok(Some(PathBuf::from(format!("/proc/{}/root/sys/fs/bpf", self.node_pid(node)?))))
    }

    fn audit_log(&self) -> Option<PathBuf> {
        Some(dir(&self.state.name).join("logs/audit.log"))
    }

    fn on_network_of(&self, node: &str, argv: &[String]) -> Result<Command> {
        Ok(enter::command(&self.harness(), self.node_pid(node)?, None, "net", argv))
    }

    fn restart_node(&self, node: &str) -> Result<()> {
        let old = self.node_pid(node)?;
        let request = self.state.restart_request(node);
        std::fs::write(&request, "").with_context(|| format!("writing {}", request.display()))?;
        // PID 1 of the node: all that runs there ends with it.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL)
            .with_context(|| format!("ending node {node}"))?;
        let deadline = Instant::now() + RESTART;
        while request.exists() || self.node_pid(node).is_ok_and(|pid| pid == old) || self.node_pid(node).is_err() {
            if Instant::now() > deadline {
                bail!("node {node} did not start again within {RESTART:?}; see {}", dir(&self.state.name).display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn set_link(&self, node: &str, up: bool) -> Result<()> {
        self.node_pid(node)?;
        let number = self.nodes.iter().position(|known| known.name == node).context("a node has a number")?;
        let cgroup = self.state.outside_cgroup("fabric");
        let pid = sys::cgroup_pids(&cgroup).first().copied().context("the cluster's bridge is gone")?;
        let namespace = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&namespace).with_context(|| format!("opening {namespace}"))?;
        fabric::set_cable(namespace, number, up)
    }

    fn dump(&self, dest: &Path) -> Result<()> {
        let mut errors = Vec::new();
        evidence::copy_logs(&dir(&self.state.name).join("logs"), &dest.join("logs"), &mut errors);
        evidence::nodes(self, dest, &mut errors);
        for node in &self.nodes {
            if let Ok(pid) = self.node_pid(&node.name) {
                let pods = dest.join("nodes").join(&node.name).join("pods");
                evidence::copy_logs(Path::new(&format!("/proc/{pid}/root/var/log/pods")), &pods, &mut errors);
            }
        }
        if errors.is_empty() { Ok(()) } else { bail!("{}", errors.join("\n")) }
    }
}
