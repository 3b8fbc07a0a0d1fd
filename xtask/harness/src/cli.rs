//! The command line of the harness, and what each command does in order.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cluster::enter::{self, EnterArgs};
use crate::cluster::install::{self, Crds, Settings};
use crate::cluster::netns::NetnsCluster;
use crate::cluster::supervisor::{self, Plan};
use crate::cluster::{Cluster, Place, journal, node};
use crate::report::Run;
use crate::{kubelet, scenario, sys};

/// Exit code: a prerequisite is missing.
const MISSING: i32 = 3;
/// Exit code: the cluster could not be made.
const NO_CLUSTER: i32 = 4;

/// Exit code: interrupted.
const INTERRUPTED: i32 = 130;

/// Clusters and scenarios. Exit codes: 0 all passed, 1 a scenario failed, 2 bad usage or input, 3 a prerequisite is
/// missing, 4 the cluster could not be made, 130 interrupted.
#[derive(Parser)]
#[command(name = "harness")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Which cluster, and where things lie.
#[derive(Args)]
struct Common {
    /// Root of the repository
    #[arg(long)]
    repo: PathBuf,
    /// Directory of portolan, nettool and harness
    #[arg(long)]
    bin_dir: PathBuf,
    /// Name of the cluster
    #[arg(long, default_value = "portolan")]
    name: String,
}

/// How a cluster is made.
#[derive(Args)]
struct Make {
    /// Directory of etcd, kube-apiserver, kube-controller-manager and kube-scheduler
    #[arg(long, env = "KUBEBUILDER_ASSETS")]
    control_plane: PathBuf,
    /// Whether sockets are load-balanced in the system call, or every packet is translated
    #[arg(long, value_enum, default_value = "full")]
    socket_lb: SocketLb,
    /// Versions of the pool CRD; the walk-through knows v2alpha1
    #[arg(long, value_enum, default_value = "v2alpha1")]
    crds: Crds,
}

/// Socket LB of a run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SocketLb {
    /// For the node and all pods.
    Full,
    /// Not at all.
    Off,
}

#[derive(Subcommand)]
enum Command {
    /// Make a cluster, install portolan, play scenarios, remove everything
    E2e {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        make: Make,
        /// Leave the cluster running afterwards
        #[arg(long)]
        keep: bool,
        /// Scenario files; all of `scenarios/` if none is given
        files: Vec<PathBuf>,
    },
    /// Play scenarios on a running cluster
    Run {
        #[command(flatten)]
        common: Common,
        /// Scenario files; all of `scenarios/` if none is given
        files: Vec<PathBuf>,
    },
    /// Make a cluster, install portolan and leave it running; prints its kubeconfig
    Up {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        make: Make,
    },
    /// Remove a cluster
    Down {
        #[command(flatten)]
        common: Common,
    },
    /// Run a command on a node, in a pod (`NAMESPACE/POD[/CONTAINER]`), or on `lan`
    Spawn {
        #[command(flatten)]
        common: Common,
        /// Node, `NAMESPACE/POD[/CONTAINER]`, or `lan`
        place: String,
        /// Command
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Run kubectl against a cluster
    Kubectl {
        #[command(flatten)]
        common: Common,
        /// Arguments of kubectl
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Remove what dead runs left behind, by their journals
    Gc {
        #[command(flatten)]
        common: Common,
    },
    #[command(hide = true)]
    Supervise { plan: PathBuf },
    #[command(hide = true)]
    SuperviseInner { plan: PathBuf },
    #[command(hide = true)]
    SuperviseInit { plan: PathBuf },
    #[command(hide = true)]
    NodeInit { config: PathBuf },
    #[command(hide = true)]
    NodeInitInner { config: PathBuf },
    #[command(hide = true)]
    Kubelet {
        #[arg(long)]
        config: PathBuf,
    },
    #[command(hide = true)]
    ContainerInit { spec: PathBuf },
    #[command(hide = true)]
    ContainerInitInner { spec: PathBuf },
    #[command(hide = true)]
    Hold {
        #[arg(long)]
        hostname: Option<String>,
    },
    #[command(hide = true)]
    Enter(EnterArgs),
}

/// Parses the command line and runs the command.
///
/// # Errors
/// What the command could not do.
pub(crate) fn main() -> Result<i32> {
    match Cli::parse().command {
        Command::E2e { common, make, keep, files } => e2e(&common, &make, keep, &files),
        Command::Run { common, files } => run(&common, &files),
        Command::Up { common, make } => up(&common, &make),
        Command::Down { common } => NetnsCluster::destroy(&common.name).map(|()| 0),
        Command::Spawn { common, place, argv } => spawn(&common, &place, &argv),
        Command::Kubectl { common, args } => kubectl(&common, &args),
        Command::Gc { .. } => gc(),
        Command::Supervise { plan } => supervisor::run(&plan),
        Command::SuperviseInner { plan } => supervisor::inner(&plan),
        Command::SuperviseInit { plan } => supervisor::init(&plan),
        Command::NodeInit { config } => node::init(&config),
        Command::NodeInitInner { config } => node::init_inner(&config),
        Command::Kubelet { config } => kubelet::run(&config),
        Command::ContainerInit { spec } => kubelet::container::init(&spec),
        Command::ContainerInitInner { spec } => kubelet::container::init_inner(&spec),
        Command::Hold { hostname } => hold(hostname.as_deref()),
        Command::Enter(args) => enter::run(&args),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("starting the runtime")
}

/// Keeps namespaces until it is killed.
fn hold(hostname: Option<&str>) -> Result<i32> {
    use std::io::Write;
    if let Some(name) = hostname {
        nix::unistd::sethostname(name).context("setting the host name")?;
    }
    let mut stdout = std::io::stdout();
    stdout.write_all(b"\n").and_then(|()| stdout.flush()).context("reporting")?;
    loop {
        nix::unistd::pause();
    }
}

/// What the kernel and the machine must have; all that is missing is named at once.
fn missing() -> Vec<String> {
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
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        lines.push("/sys/kernel/btf/vmlinux: a kernel with CONFIG_DEBUG_INFO_BTF".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join("ip").is_file()) {
        lines.push("ip: install iproute2, for example `apt-get install iproute2`".to_owned());
    }
    lines
}

/// Makes a cluster with portolan on it.
fn bring_up(common: &Common, make: &Make, tied: bool) -> Result<NetnsCluster, (i32, anyhow::Error)> {
    let missing = missing();
    if !missing.is_empty() {
        return Err((MISSING, anyhow::anyhow!("missing:\n  - {}", missing.join("\n  - "))));
    }
    for name in journal::gc().map_err(|error| (NO_CLUSTER, error))? {
        eprintln!("removed what a dead run of cluster {name} had left");
    }
    let plan = Plan {
        name: common.name.clone(),
        repo: common.repo.clone(),
        bin_dir: common.bin_dir.clone(),
        control_plane: make.control_plane.clone(),
        tied,
    };
    let settings = Settings { crds: make.crds, socket_lb: make.socket_lb == SocketLb::Full };
    let made = || -> Result<Option<NetnsCluster>> {
        let cluster = step("processes", || NetnsCluster::create(&plan))?;
        let install = async {
            let client = install::client(&cluster).await?;
            timed("API server", install::wait_for_api(&client)).await?;
            timed("install portolan", install::apply(&client, &cluster, &common.repo, settings)).await?;
            timed("label nodes", install::label_control_plane(&client, &cluster)).await?;
            timed("ready", install::wait_until_ready(&client, &cluster)).await
        };
        Ok(until_interrupt(&runtime()?, install)?.map(|()| cluster))
    };
    match made() {
        Ok(Some(cluster)) => Ok(cluster),
        Ok(None) => Err((INTERRUPTED, anyhow::anyhow!("interrupted"))),
        Err(error) => Err((NO_CLUSTER, error)),
    }
}

/// Runs `work` to its end, or to the first Ctrl-C (`None`). A second Ctrl-C kills, whatever is under way then.
fn until_interrupt<T>(runtime: &tokio::runtime::Runtime, work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let done = runtime.block_on(async {
        tokio::select! {
            done = work => done.map(Some),
            signal = tokio::signal::ctrl_c() => signal.map(|()| None).context("listening for Ctrl-C"),
        }
    });
    if let Ok(None) = done {
        // tokio never gives the signal back; without this, removing a cluster could not be interrupted.
        sys::default_interrupt().context("giving Ctrl-C back")?;
    }
    done
}

fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let done = work()?;
    eprintln!("  {name:<24} {:>6.2} s", began.elapsed().as_secs_f64());
    Ok(done)
}

async fn timed<T>(name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let began = Instant::now();
    let done = work.await?;
    eprintln!("  {name:<24} {:>6.2} s", began.elapsed().as_secs_f64());
    Ok(done)
}

/// Plays scenarios and returns the exit code.
fn play(cluster: &NetnsCluster, repo: &Path, files: &[PathBuf]) -> Result<i32> {
    let named = !files.is_empty();
    let files = if files.is_empty() { all_scenarios(repo)? } else { files.to_vec() };
    let mut run = Run::begin(repo)?;
    let runtime = runtime()?;
    let interrupted = until_interrupt(&runtime, async {
        let client = install::client(cluster).await?;
        scenario::run_files(&client, cluster, repo, &files, named, &mut run).await
    })?
    .is_none();
    // A probe that is still under way must not keep an interrupted run from ending.
    runtime.shutdown_background();
    if interrupted {
        eprintln!("interrupted");
        return Ok(INTERRUPTED);
    }
    run.finish()?;
    Ok(if run.passed() { 0 } else { 1 })
}

fn all_scenarios(repo: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![repo.join("scenarios")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn run(common: &Common, files: &[PathBuf]) -> Result<i32> {
    play(&NetnsCluster::open(&common.name)?, &common.repo, files)
}

fn e2e(common: &Common, make: &Make, keep: bool, files: &[PathBuf]) -> Result<i32> {
    // A file that cannot be understood is said before anything is made.
    for file in files {
        scenario::format::load(file)?;
    }
    let began = Instant::now();
    let played = match bring_up(common, make, !keep) {
        Ok(cluster) => {
            eprintln!("cluster up after {:.2} s", began.elapsed().as_secs_f64());
            play(&cluster, &common.repo, files)
        }
        Err((code, error)) => {
            eprintln!("error: {error:#}");
            Ok(code)
        }
    };
    if keep {
        eprintln!("the cluster was left running; remove it with `cargo xtask down --name {}`", common.name);
    } else if journal::of(&common.name)?.is_some() {
        step("remove the cluster", || NetnsCluster::destroy(&common.name))?;
    }
    played
}

fn up(common: &Common, make: &Make) -> Result<i32> {
    match bring_up(common, make, false) {
        Ok(cluster) => {
            println!("{}", cluster.kubeconfig().display());
            Ok(0)
        }
        Err((code, error)) => {
            eprintln!("error: {error:#}");
            if code == INTERRUPTED {
                NetnsCluster::destroy(&common.name)?;
            } else if code == NO_CLUSTER {
                eprintln!("the cluster was left as it is; look around, then `down --name {}`", common.name);
            }
            Ok(code)
        }
    }
}

fn spawn(common: &Common, place: &str, argv: &[String]) -> Result<i32> {
    let cluster = NetnsCluster::open(&common.name)?;
    let place = parse_place(&cluster, place)?;
    let status = cluster.command(&place, argv)?.status().context("starting the command")?;
    Ok(sys::exit_code(status))
}

fn parse_place(cluster: &dyn Cluster, text: &str) -> Result<Place> {
    if cluster.outside().iter().any(|name| name == text) {
        return Ok(Place::Outside(text.to_owned()));
    }
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        [node] => Ok(Place::Node((*node).to_owned())),
        [namespace, pod] => Ok(Place::Pod { namespace: (*namespace).into(), pod: (*pod).into(), container: None }),
        [namespace, pod, container] => {
            Ok(Place::Pod { namespace: (*namespace).into(), pod: (*pod).into(), container: Some((*container).into()) })
        }
        _ => bail!("{text:?} is no place: name a node, NAMESPACE/POD[/CONTAINER], or lan"),
    }
}

fn kubectl(common: &Common, args: &[String]) -> Result<i32> {
    let cluster = NetnsCluster::open(&common.name)?;
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).map(|dir| dir.join("kubectl"));
    let program = assets.filter(|path| path.is_file()).unwrap_or_else(|| "kubectl".into());
    let status = std::process::Command::new(&program)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .args(args)
        .status()
        .with_context(|| {
            format!("starting {} (install kubectl, or point KUBEBUILDER_ASSETS at it)", program.display())
        })?;
    Ok(sys::exit_code(status))
}

fn gc() -> Result<i32> {
    for name in journal::gc()? {
        println!("removed what a dead run of cluster {name} had left");
    }
    Ok(0)
}
