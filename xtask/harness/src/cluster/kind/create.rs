//! Making a cluster, and using one that was left: kind makes the nodes, everything else is ours.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::Value;

use super::super::Role;
use super::super::control_plane::AUDIT_POLICY;
use super::super::install::{self, Crds};
use super::engine::{self, KIND_LABEL, LABEL, docker};
use super::journal::{self, Journal};
use super::layout::{Names, Node, State, dir, write_whole};
use super::{KindCluster, config, fence, images, outside};
use crate::image::archive::{Archived, sha256};
use crate::progress::{step, timed};

/// What makes a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Name.
    pub(crate) name: String,
    /// Repository.
    pub(crate) repo: PathBuf,
    /// Directory of portolan, nettool and harness.
    pub(crate) bin_dir: PathBuf,
    /// kind's configuration; the built-in one if there is none.
    pub(crate) config: Option<PathBuf>,
    /// Node image; kind's own default if there is none.
    pub(crate) node_image: Option<String>,
    /// Versions of the pool CRD: they cannot be taken back on a running cluster.
    pub(crate) crds: Crds,
    /// Use a cluster that was left by an earlier run, if it was made of the same.
    pub(crate) reuse: bool,
}

/// How a cluster was come by.
pub(crate) struct Made {
    /// The cluster.
    pub(crate) cluster: KindCluster,
    /// It was left by an earlier run: images and settings may have changed under its pods.
    pub(crate) reused: bool,
}

/// Makes a cluster, or takes the one that was left.
///
/// # Errors
/// If one of that name is in use, or it cannot be made; what was made stays for a look, and the journal knows it.
pub(crate) async fn make(plan: &Plan) -> Result<Made> {
    let names = Names::of(&plan.name)?;
    let definition = Definition::new(plan, &names)?;
    if let Some(old) = journal::of(&plan.name)? {
        if old.alive() {
            if !(old.kept && plan.reuse) {
                bail!(
                    "a kind cluster {0:?} runs already; remove it with `down --name {0}`, or use it: `run` plays on it as it \
                     is, `e2e --keep` brings it up to date first",
                    plan.name
                );
            }
            match State::load(&plan.name) {
                Ok(state) if state.environment == definition.environment => {
                    let left = leftovers(&KindCluster::new(state.clone())).await;
                    match left {
                        Ok(left) if left.is_empty() => {
                            eprintln!("cluster {:?} was made of the same and is used again", plan.name);
                            return refresh(plan, state).await;
                        }
                        Ok(left) => eprintln!("cluster {:?} is made anew; it holds {}", plan.name, left.join(", ")),
                        Err(error) => eprintln!("cluster {:?} is made anew; it does not answer: {error:#}", plan.name),
                    }
                }
                _ => eprintln!("cluster {:?} was made of something else, or not finished; it is made anew", plan.name),
            }
        }
        old.remove()?;
    }
    journal::refuse_foreign(&plan.name)?;
    let journal = Journal::begin(names.clone())?;
    let cluster = build(plan, names, definition).await?;
    journal.made()?;
    Ok(Made { cluster, reused: false })
}

/// What an earlier run has left in the cluster: objects of its scenarios.
async fn leftovers(cluster: &KindCluster) -> Result<Vec<String>> {
    let client = install::client(cluster).await?;
    let mut left = Vec::new();
    for (api_version, kind) in [("v1", "Service"), ("v1", "Pod"), ("cilium.io/v2alpha1", "CiliumLoadBalancerIPPool")] {
        let api = install::api_of(&client, api_version, kind, None).await?;
        let listed = api.list(&ListParams::default()).await?;
        let names = listed.iter().map(ResourceExt::name_any).filter(|name| name != "kubernetes");
        left.extend(names.map(|name| format!("{kind} {name}")));
    }
    Ok(left)
}

/// What a cluster is made of.
struct Definition {
    config: Value,
    /// Hash of it.
    environment: String,
}

impl Definition {
    fn new(plan: &Plan, names: &Names) -> Result<Self> {
        let base = dir(&names.cluster);
        let (policy, logs, tools) = (base.join("audit-policy"), base.join("logs"), base.join("tools"));
        let mounts = config::Mounts { policy: &policy, logs: &logs, tools: &tools };
        let accept_cgroup_v1 = !Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let config = config::complete(config::load(plan.config.as_deref())?, &mounts, accept_cgroup_v1);
        let image = match &plan.node_image {
            Some(reference) => docker(&["image", "inspect", "--format", "{{.Id}}", reference])?,
            None => String::new(),
        };
        let mut command = engine::kind_command();
        command.arg("version");
        let version = engine::run(command)?;
        let environment = sha256(format!("{config}\n{image}\n{version}\n{AUDIT_POLICY}\n{:?}", plan.crds).as_bytes());
        Ok(Self { config, environment })
    }
}

async fn build(plan: &Plan, names: Names, definition: Definition) -> Result<KindCluster> {
    let base = dir(&names.cluster);
    for name in ["audit-policy", "logs", "tools", "scratch"] {
        let path = base.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    }
    write_whole(&base.join("audit-policy/policy.yaml"), AUDIT_POLICY.as_bytes())?;
    let path = base.join("kind-config.yaml");
    write_whole(&path, serde_yaml::to_string(&definition.config)?.as_bytes())?;
    install_tools(&plan.bin_dir, &base)?;
    fence::raise(&names)?;
    network(&names)?;
    let archives = {
        let (repo, bin_dir, scratch) = (plan.repo.clone(), plan.bin_dir.clone(), base.join("scratch"));
        tokio::task::spawn_blocking(move || images::build(&repo, &bin_dir, &scratch))
    };
    let (scratch, tools) = (base.join("scratch"), base.join("tools"));
    tokio::try_join!(
        timed("kind create cluster", create(plan, &names, &path)),
        outside::start(&names, &scratch, &tools)
    )?;
    let nodes = nodes(&names)?;
    let archives = archives.await??;
    let state = State {
        service_cidr: config::service_cidr(&definition.config),
        bin_dir: plan.bin_dir.clone(),
        environment: definition.environment,
        images: archives.iter().map(|(image, _)| image.clone()).collect(),
        names,
        nodes,
    };
    let node_names: Vec<&str> = state.nodes.iter().map(|node| node.name.as_str()).collect();
    timed("images", images::load(&state.names, &node_names, &archives)).await?;
    step("links", || outside::connect(&state))?;
    discard_scratch(&base)?;
    state.save()?;
    Ok(KindCluster::new(state))
}

/// Brings a cluster that was left up to date: tools, images, links, fence.
async fn refresh(plan: &Plan, mut state: State) -> Result<Made> {
    let base = dir(&state.names.cluster);
    let scratch = base.join("scratch");
    std::fs::create_dir_all(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
    install_tools(&plan.bin_dir, &base)?;
    if fence::stopped(&state.names).is_err() {
        fence::raise(&state.names)?;
    }
    let archives = {
        let (repo, bin_dir, scratch) = (plan.repo.clone(), plan.bin_dir.clone(), scratch.clone());
        tokio::task::spawn_blocking(move || images::build(&repo, &bin_dir, &scratch)).await??
    };
    let node_names: Vec<&str> = state.nodes.iter().map(|node| node.name.as_str()).collect();
    let loaded = timed("images", images::load(&state.names, &node_names, &archives)).await?;
    outside::connect(&state)?;
    let images: Vec<Archived> = archives.into_iter().map(|(image, _)| image).collect();
    eprintln!("  {loaded} of {} images were new", images.len());
    state.bin_dir = plan.bin_dir.clone();
    state.images = images;
    discard_scratch(&base)?;
    state.save()?;
    Ok(Made { cluster: KindCluster::new(state), reused: true })
}

/// Static tools for nodes and outside hosts. Each is replaced whole: the old one may be running.
fn install_tools(bin_dir: &Path, base: &Path) -> Result<()> {
    for name in ["nettool", "harness"] {
        let (from, to) = (bin_dir.join(name), base.join("tools").join(name));
        let temporary = to.with_extension("tmp");
        std::fs::copy(&from, &temporary)
            .and_then(|_| std::fs::rename(&temporary, &to))
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

fn discard_scratch(base: &Path) -> Result<()> {
    let path = base.join("scratch");
    std::fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))
}

/// A network of the cluster's own: its bridge is known to the fence, and it goes with the cluster.
fn network(names: &Names) -> Result<()> {
    let label = format!("{LABEL}={}", names.cluster);
    let bridge = format!("com.docker.network.bridge.name={}", names.bridge);
    docker(&["network", "create", "--driver", "bridge", "--label", &label, "--opt", &bridge, &names.network])
        .map(|_| ())
        .context("making the cluster's network")
}

async fn create(plan: &Plan, names: &Names, config: &Path) -> Result<()> {
    let kubeconfig = dir(&names.cluster).join("kubeconfig");
    let mut command = engine::kind_command();
    command.args(["create", "cluster", "--name", &names.cluster]);
    command.arg("--config").arg(config).arg("--kubeconfig").arg(kubeconfig);
    // Without a CNI kind would wait its full time for nodes that cannot become ready; and what it made before a failure
    // is needed to tell why.
    command.args(["--wait", "0s", "--retain"]);
    if let Some(image) = &plan.node_image {
        command.args(["--image", image]);
    }
    engine::run_long(command, &names.network).await.map(|_| ()).context("kind could not make the cluster")
}

/// The nodes that kind made, control planes first, then by name as kind counts them.
fn nodes(names: &Names) -> Result<Vec<Node>> {
    let ids = engine::list(&[format!("label={KIND_LABEL}={}", names.cluster)])?;
    let mut nodes = Vec::new();
    for container in engine::containers(&ids, &names.network)? {
        let role = match container.role.as_deref() {
            Some("control-plane") => Role::ControlPlane,
            Some("worker") => Role::Worker,
            _ => continue,
        };
        let address = container.address.with_context(|| format!("node {} has no address", container.name))?;
        nodes.push(Node { name: container.name, role, address });
    }
    // `worker` before `worker2` before `worker10`.
    nodes.sort_by_key(|node| (node.role == Role::Worker, node.name.len(), node.name.clone()));
    Ok(nodes)
}
