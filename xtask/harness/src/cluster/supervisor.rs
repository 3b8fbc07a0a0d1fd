//! The supervisor: PID 1 of the cluster's PID namespace. It holds everything, so that its end is the cluster's end.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use super::control_plane::{ControlPlane, Kind};
use super::fabric::Fabric;
use super::journal::Journal;
use super::layout::{self, NodeState, State, dir};
use super::{Role, node};
use crate::kubelet::KubeletConfig;
use crate::pki::Pki;
use crate::{image, sys};

/// What makes a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Name.
    pub(crate) name: String,
    /// Repository.
    pub(crate) repo: PathBuf,
    /// Directory of portolan, nettool, harness and apiserver.
    pub(crate) bin_dir: PathBuf,
    /// Directory of a real control plane's programs; our own API server without.
    pub(crate) control_plane: Option<PathBuf>,
    /// End with the process that started us.
    pub(crate) tied: bool,
}

/// `supervise`: writes the journal, starts PID 1 of the new namespace and waits for it.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn run(plan: &Path) -> Result<i32> {
    let text = fs::read_to_string(plan).with_context(|| format!("reading {}", plan.display()))?;
    let parsed: Plan = serde_json::from_str(&text)?;
    if parsed.tied {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    }
    let cgroup = sys::cgroup2()?.join(format!("portolan-e2e-{}", parsed.name));
    Journal::begin(&parsed.name, vec![cgroup.clone()])?;
    let own = cgroup.join("_supervisor");
    fs::create_dir_all(&own).with_context(|| format!("creating {}", own.display()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("supervise-inner").arg(plan).stdin(Stdio::null());
    sys::start_within(&mut command, Some(own), Vec::new(), CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS);
    // The process that makes the namespace is not in it; its child is PID 1.
    let mut child = command.spawn().context("starting the supervisor")?;
    Ok(sys::exit_code(child.wait()?))
}

/// `supervise-inner`: forks PID 1.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn inner(plan: &Path) -> Result<i32> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("supervise-init").arg(plan);
    sys::die_with_parent(&mut command);
    let mut child = command.spawn().context("starting PID 1 of the cluster")?;
    Ok(sys::exit_code(child.wait()?))
}

/// `supervise-init`: PID 1. Makes the cluster and tends it until it is killed.
///
/// # Errors
/// With what could not be made.
pub(crate) fn init(plan: &Path) -> Result<i32> {
    sys::mount_at(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    sys::mount_at(Some(Path::new("proc")), Path::new("/proc"), Some("proc"), MsFlags::empty(), None)?;
    let plan: Plan = serde_json::from_slice(&fs::read(plan)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(supervise(&plan)).map(|()| 0)
}

async fn supervise(plan: &Plan) -> Result<()> {
    let base = dir(&plan.name);
    fs::create_dir_all(base.join("logs"))?;
    let nodes = layout::nodes(&plan.name);
    let images = {
        let (repo, bin_dir, dest) = (plan.repo.clone(), plan.bin_dir.clone(), base.join("images"));
        tokio::task::spawn_blocking(move || image::materialize(&repo, &bin_dir, &dest))
    };
    let mut fabric = Fabric::create(&nodes)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("listening on 127.0.0.1")?;
    let port = listener.local_addr()?.port();
    let state = State {
        name: plan.name.clone(),
        repo: plan.repo.clone(),
        bin_dir: plan.bin_dir.clone(),
        cgroup: sys::cgroup2()?.join(format!("portolan-e2e-{}", plan.name)),
        nodes,
        kubeconfig: base.join("kubeconfig"),
    };
    let control_plane = state.nodes.iter().find(|node| node.role == Role::ControlPlane).context("no control plane")?;
    let server = format!("https://{}:6443", control_plane.address);
    credentials(&base, &state, &server, port)?;
    let network = fabric.get(&control_plane.name)?;
    let mut processes = ControlPlane::start(
        &base,
        &plan.control_plane.as_deref().map_or(Kind::Embedded(&plan.bin_dir), Kind::Real),
        &state.cgroup.join("_control-plane"),
        network.try_clone()?,
        control_plane.address,
    )?;
    let proxy = Arc::new(network.try_clone()?);
    tokio::spawn(forward(listener, proxy, control_plane.address));
    images.await??;
    let mut children = Vec::new();
    for name in ["fabric", "router", "lan"] {
        children.push(hold(&state, name, &fabric)?);
    }
    let mut nodes = Vec::new();
    for node in &state.nodes {
        nodes.push(node::start(&state, node, &fabric, kubelet_config(node))?);
    }
    state.save()?;
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tick.tick().await;
        processes.tend()?;
        for (number, child) in nodes.iter_mut().enumerate() {
            let node = &state.nodes[number];
            if state.restart_request(&node.name).exists() && child.try_wait()?.is_some() {
                *child = restart(&state, number, &mut fabric)?;
            }
        }
        for child in children.iter_mut().chain(&mut nodes) {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!(
                    "process {} of the cluster ended: {status}; see {}",
                    child.id(),
                    base.join("logs").display()
                );
            }
        }
    }
}

/// Starts a node again that has ended because somebody wanted it to. Its network is a new one, but for the node of the
/// control plane, whose programs go on in theirs.
fn restart(state: &State, number: usize, fabric: &mut Fabric) -> Result<Child> {
    let node = &state.nodes[number];
    sys::remove_cgroup(&state.cgroup.join(&node.name))?;
    if node.role == Role::Worker {
        fabric.renew(number, node)?;
    }
    let child = node::start(state, node, fabric, kubelet_config(node))?;
    fs::remove_file(state.restart_request(&node.name)).context("taking the request to restart")?;
    Ok(child)
}

/// Certificates and kubeconfigs.
fn credentials(base: &Path, state: &State, server: &str, port: u16) -> Result<()> {
    let dir = base.join("pki");
    let pki = Pki::create(&dir)?;
    let control_plane: Vec<_> = state.nodes.iter().filter(|node| node.role == Role::ControlPlane).collect();
    let mut addresses: Vec<std::net::IpAddr> = control_plane.iter().map(|node| node.address.into()).collect();
    addresses.extend([Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::LOCALHOST].map(std::net::IpAddr::from));
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ];
    pki.issue("apiserver", "kube-apiserver", None, &addresses, &names)?;
    pki.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), &[], &[])?;
    pki.issue("admin", "kubernetes-admin", Some("system:masters"), &[], &[])?;
    pki.kubeconfig(&state.kubeconfig, &format!("https://127.0.0.1:{port}"), "admin")?;
    for (name, user) in
        [("controller-manager", "system:kube-controller-manager"), ("scheduler", "system:kube-scheduler")]
    {
        pki.issue(name, user, None, &[], &[])?;
        pki.kubeconfig(&base.join(format!("{name}.kubeconfig")), server, name)?;
    }
    for node in &state.nodes {
        let user = format!("system:node:{}", node.name);
        pki.issue(&node.name, &user, Some("system:nodes"), &[node.address.into()], &[&node.name])?;
        let own = dir.join(&node.name);
        fs::create_dir_all(&own)?;
        pki.kubeconfig(&own.join("kubeconfig"), server, &node.name)?;
        fs::copy(pki.ca(), own.join("ca.crt"))?;
        fs::copy(dir.join(format!("{}.crt", node.name)), own.join("kubelet.crt"))?;
        fs::copy(dir.join(format!("{}.key", node.name)), own.join("kubelet.key"))?;
    }
    Ok(())
}

fn kubelet_config(node: &NodeState) -> KubeletConfig {
    let pki = |name: &str| Path::new(node::PKI).join(name);
    let taints = match node.role {
        Role::ControlPlane => vec![("node-role.kubernetes.io/control-plane".to_owned(), "NoSchedule".to_owned())],
        Role::Worker => Vec::new(),
    };
    KubeletConfig {
        node_name: node.name.clone(),
        node_ip: node.address,
        kubeconfig: pki("kubeconfig"),
        client_ca: pki("ca.crt"),
        serving_cert: pki("kubelet.crt"),
        serving_key: pki("kubelet.key"),
        taints,
    }
}

/// A process that keeps a namespace of the network (a host outside of the cluster, the bridge), so that others can find it by its cgroup.
fn hold(state: &State, name: &str, fabric: &Fabric) -> Result<Child> {
    let cgroup = state.outside_cgroup(name);
    fs::create_dir_all(&cgroup)?;
    let mut command = Command::new(state.bin_dir.join("harness"));
    command.arg("hold").stdin(Stdio::null());
    let enter = vec![(fabric.get(name)?.try_clone()?, CloneFlags::CLONE_NEWNET)];
    sys::start_within(&mut command, Some(cgroup), enter, CloneFlags::CLONE_NEWUTS);
    sys::die_with_parent(&mut command);
    command.spawn().with_context(|| format!("holding {name}"))
}

/// Passes connections from the host's loopback on to the API server inside.
async fn forward(listener: tokio::net::TcpListener, network: Arc<std::os::fd::OwnedFd>, address: Ipv4Addr) {
    while let Ok((mut outer, _)) = listener.accept().await {
        let network = network.clone();
        tokio::spawn(async move {
            let connected = tokio::task::spawn_blocking(move || {
                sys::in_netns(&*network, || {
                    let target = std::net::SocketAddr::from((address, 6443));
                    let stream = std::net::TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
                    stream.set_nonblocking(true)?;
                    Ok(stream)
                })
            });
            let Ok(Ok(inner)) = connected.await else { return };
            let Ok(mut inner) = tokio::net::TcpStream::from_std(inner) else { return };
            // An end on either side is the end of the connection; there is nothing to report it to.
            let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
        });
    }
}
