//! A node: namespaces, a root of its own, and the kubelet as PID 1.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use super::fabric::Fabric;
use super::layout::{NodeState, State, dir};
use crate::kubelet::KubeletConfig;
use crate::sys;

/// Where the harness's binaries lie in a node.
const BIN: &str = "/opt/portolan-e2e/bin";
/// Where the node's credentials lie in it.
pub(crate) const PKI: &str = "/etc/kubernetes";
/// Where images lie in it.
pub(crate) const IMAGES: &str = "/var/lib/images";
/// Tools of the harness, in nodes and in all containers.
pub(crate) const TOOLS: &str = "/.portolan-tools";

/// What `node-init` needs.
#[derive(Serialize, Deserialize)]
pub(crate) struct NodeConfig {
    name: String,
    bin_dir: PathBuf,
    images: PathBuf,
    pki: PathBuf,
    root: PathBuf,
    hosts: Vec<(String, String)>,
    kubelet: KubeletConfig,
}

/// Starts a node.
///
/// # Errors
/// If its process cannot be started.
pub(crate) fn start(state: &State, node: &NodeState, fabric: &Fabric, kubelet: KubeletConfig) -> Result<Child> {
    let base = dir(&state.name);
    let config = NodeConfig {
        name: node.name.clone(),
        bin_dir: state.bin_dir.clone(),
        images: base.join("images"),
        pki: base.join("pki").join(&node.name),
        root: base.join("root"),
        hosts: state.nodes.iter().map(|node| (node.address.to_string(), node.name.clone())).collect(),
        kubelet,
    };
    let path = base.join(format!("{}.json", node.name));
    fs::write(&path, serde_json::to_vec(&config)?).with_context(|| format!("writing {}", path.display()))?;
    let cgroup = state.cgroup.join(&node.name);
    fs::create_dir_all(&cgroup).with_context(|| format!("creating {}", cgroup.display()))?;
    let log = base.join("logs").join(format!("kubelet-{}.log", node.name));
    // A node that starts again goes on in the same log.
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("opening {}", log.display()))?;
    let mut command = Command::new(state.bin_dir.join("harness"));
    command.arg("node-init").arg(&path).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let network = fabric.get(&node.name)?.try_clone()?;
    let make = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWCGROUP;
    sys::start_within(&mut command, Some(cgroup), vec![(network, CloneFlags::CLONE_NEWNET)], make);
    command.spawn().with_context(|| format!("starting node {}", node.name))
}

/// `node-init`: starts PID 1 of the new PID namespace and waits for it.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn init(config: &Path) -> Result<i32> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("node-init-inner").arg(config);
    sys::die_with_parent(&mut command);
    let mut child = command.spawn().context("starting PID 1 of the node")?;
    Ok(sys::exit_code(child.wait()?))
}

/// `node-init-inner`: as PID 1, makes the node's root and becomes the kubelet.
///
/// # Errors
/// With what could not be mounted.
pub(crate) fn init_inner(path: &Path) -> Result<i32> {
    let config: NodeConfig = serde_json::from_slice(&fs::read(path)?)?;
    nix::unistd::sethostname(&config.name).context("setting the host name")?;
    sys::mount_at(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    let root = &config.root;
    fs::create_dir_all(root)?;
    sys::mount_at(Some(Path::new("tmpfs")), root, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    system_dirs(root)?;
    for name in ["etc", "run", "tmp", "root", "var/log/pods", "var/lib", "opt/cni/bin", "etc/cni/net.d", "mnt"] {
        fs::create_dir_all(root.join(name))?;
    }
    etc(root, &config)?;
    devices(&root.join("dev"))?;
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    sys::bind(&config.bin_dir, &inside(BIN), true)?;
    sys::bind(&config.images, &inside(IMAGES), true)?;
    sys::bind(&config.pki, &inside(PKI), true)?;
    sys::bind(&config.bin_dir.join("nettool"), &inside(TOOLS).join("nettool"), true)?;
    kernel_file_systems(root)?;
    sys::pivot(root)?;
    sys::mount_at(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_SHARED, None)?;
    fs::create_dir_all("/sys/fs/cgroup/kubelet")?;
    fs::write("/sys/fs/cgroup/kubelet/cgroup.procs", "0").context("joining the kubelet's cgroup")?;
    let kubelet = Path::new("/run/kubelet.json");
    fs::write(kubelet, serde_json::to_vec(&config.kubelet)?)?;
    let failure = Command::new(Path::new(BIN).join("harness"))
        .arg("kubelet")
        .arg("--config")
        .arg(kubelet)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .exec();
    Err(failure).context("becoming the kubelet")
}

/// `/usr` read-only, and what the machine has of its companions in the form it has them.
fn system_dirs(root: &Path) -> Result<()> {
    sys::bind(Path::new("/usr"), &root.join("usr"), true)?;
    for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
        let host = Path::new("/").join(name);
        match fs::read_link(&host) {
            Ok(target) => symlink(target, root.join(name))?,
            Err(_) if host.is_dir() => sys::bind(&host, &root.join(name), true)?,
            Err(_) => {}
        }
    }
    Ok(())
}

fn etc(root: &Path, config: &NodeConfig) -> Result<()> {
    let etc = root.join("etc");
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    for (address, name) in &config.hosts {
        hosts.push_str(&format!("{address} {name}\n"));
    }
    fs::write(etc.join("hosts"), hosts)?;
    fs::write(etc.join("hostname"), format!("{}\n", config.name))?;
    fs::write(etc.join("resolv.conf"), "")?;
    fs::write(etc.join("passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(etc.join("group"), "root:x:0:\n")?;
    match fs::read("/etc/os-release") {
        Ok(text) => fs::write(etc.join("os-release"), text).context("writing os-release"),
        Err(_) => Ok(()),
    }
}

/// A minimal `/dev` below `dev`, also for containers.
///
/// # Errors
/// If a device cannot be bound.
pub(crate) fn devices(dev: &Path) -> Result<()> {
    fs::create_dir_all(dev)?;
    sys::mount_at(Some(Path::new("tmpfs")), dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        sys::bind(&Path::new("/dev").join(name), &dev.join(name), false)?;
    }
    for (name, kind, data) in
        [("shm", "tmpfs", Some("mode=1777")), ("pts", "devpts", Some("newinstance,ptmxmode=0666"))]
    {
        let dir = dev.join(name);
        fs::create_dir_all(&dir)?;
        sys::mount_at(Some(Path::new(kind)), &dir, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, data)?;
    }
    for (name, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")]
    {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}

fn kernel_file_systems(root: &Path) -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs"), ("sys/fs/bpf", "bpf"), ("sys/fs/cgroup", "cgroup2")] {
        let dir = root.join(name);
        if !dir.exists() {
            fs::create_dir_all(&dir)?;
        }
        sys::mount_at(Some(Path::new(kind)), &dir, Some(kind), safe, None)?;
    }
    Ok(())
}
