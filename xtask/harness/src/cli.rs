//! The command line of the harness, and what each command does in order.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cluster::enter::{self, EnterArgs};
use crate::cluster::existing::{self, Access, ExistingCluster};
use crate::cluster::install::{self, Crds, Settings};
use crate::cluster::netns::NetnsCluster;
use crate::cluster::provider::{self, Provider};
use crate::cluster::supervisor::{self, Plan};
use crate::cluster::{Cluster, NodeAction, Place, kind, node};
use crate::progress::{step, timed};
use crate::report::{self, Run, StepResult};
use crate::{image, kubelet, scenario, sys};

/// Exit code: bad usage or input. Nothing was made.
const USAGE: i32 = 2;
/// Exit code: a prerequisite is missing. Nothing was made.
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
#[derive(Args, Clone)]
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
    /// Which kind of cluster; netns if one is made, the one that is there otherwise. Several, for `e2e --compare`
    #[arg(long, value_enum, value_delimiter = ',')]
    provider: Vec<Provider>,
    /// Kubeconfig of the cluster (existing)
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig; its current one if none is given (existing)
    #[arg(long)]
    context: Option<String>,
    /// Do not ask before a cluster is touched that is not marked as a test cluster (existing)
    #[arg(long)]
    yes: bool,
}

impl Common {
    /// The one provider that was named, if any.
    fn provider(&self) -> Result<Option<Provider>> {
        match self.provider.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => bail!("several providers are for `e2e --compare` only"),
        }
    }

    fn is_existing(&self) -> Result<bool> {
        Ok(self.provider()? == Some(Provider::Existing))
    }

    fn access(&self) -> Result<Access> {
        let kubeconfig = self.kubeconfig.clone().context("--provider existing needs --kubeconfig (or KUBECONFIG)")?;
        Ok(Access { kubeconfig, context: self.context.clone() })
    }

    fn open(&self) -> Result<Box<dyn Cluster>> {
        if self.is_existing()? {
            return Ok(Box::new(runtime()?.block_on(ExistingCluster::open(self.access()?, &self.bin_dir))?));
        }
        provider::open(self.provider()?, &self.name)
    }
}

/// How a cluster is made.
#[derive(Args, Clone)]
struct Make {
    /// Directory of etcd, kube-apiserver, kube-controller-manager and kube-scheduler, in place of our own API server (netns)
    #[arg(long)]
    control_plane: Option<PathBuf>,
    /// Configuration of kind (v1alpha4) that defines the nodes, networks and registry mirrors (kind)
    #[arg(long)]
    kind_config: Option<PathBuf>,
    /// Node image, and with it the version of Kubernetes; kind's own default if it is not given (kind)
    #[arg(long, env = "KIND_NODE_IMAGE")]
    node_image: Option<String>,
    /// Whether sockets are load-balanced in the system call, or every packet is translated
    #[arg(long, value_enum, default_value = "full")]
    socket_lb: SocketLb,
    /// Versions of the pool CRD; the walk-through knows v2alpha1
    #[arg(long, value_enum, default_value = "v2alpha1")]
    crds: Crds,
}

impl Make {
    /// Refuses what would be ignored: options of a provider that is not the one.
    ///
    /// # Errors
    /// With the option and the provider that it is for.
    fn suits(&self, providers: &[Provider]) -> Result<()> {
        let kind = providers.contains(&Provider::Kind);
        if self.kind_config.is_some() && !kind {
            bail!("--kind-config is for --provider kind; no other provider reads it");
        }
        let netns = providers.is_empty() || providers.iter().any(|one| matches!(one, Provider::Netns | Provider::Auto));
        if self.control_plane.is_some() && !netns {
            bail!("--control-plane is for --provider netns; other clusters bring their own");
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings { crds: self.crds, socket_lb: self.socket_lb == SocketLb::Full }
    }
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
        /// Leave the cluster running afterwards; with kind, also use the one that was left, if it was made of the same
        #[arg(long)]
        keep: bool,
        /// Play on each provider that is named, one after the other, and list what differs; with --control-plane also on
        /// netns with our own API server, before the one with that control plane
        #[arg(long, conflicts_with = "keep")]
        compare: bool,
        /// Play so many times, each time on a new cluster, until a run fails
        #[arg(long, default_value_t = 1, conflicts_with_all = ["keep", "compare"], value_parser = clap::value_parser!(u32).range(1..))]
        repeat: u32,
        /// Scenario files; if none is given, all of `scenarios/` but `scenarios/harness`, where the harness tests itself
        files: Vec<PathBuf>,
    },
    /// Play scenarios on a running cluster
    Run {
        #[command(flatten)]
        common: Common,
        /// Scenario files; if none is given, all of `scenarios/` but `scenarios/harness`, where the harness tests itself
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
    /// Restart a node, or cut its link and join it again
    Node {
        #[command(flatten)]
        common: Common,
        /// Node
        node: String,
        /// What happens to it
        #[arg(value_enum)]
        action: NodeAction,
    },
    /// Capture packets of a node with this machine's tcpdump: `capture NODE -- -i eth0 port 80`
    Capture {
        #[command(flatten)]
        common: Common,
        /// Node
        node: String,
        /// Arguments of tcpdump; all devices if there are none
        #[arg(last = true)]
        args: Vec<String>,
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
    /// Write portolan's images as archives, to load into nodes or push to a registry
    Images {
        #[command(flatten)]
        common: Common,
        /// Directory to write them to
        dir: PathBuf,
    },
    #[command(hide = true)]
    PodExec(existing::PodExecArgs),
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
    let command = Cli::parse().command;
    if let Command::E2e { common, make, .. } | Command::Up { common, make } = &command
        && let Err(error) = make.suits(&common.provider)
    {
        return Ok(said((USAGE, error)));
    }
    match command {
        Command::E2e { common, make, compare: true, files, .. } => compare(&common, &make, &files),
        Command::E2e { common, make, keep, repeat, files, .. } => e2e_again(&common, &make, keep, repeat, &files),
        Command::Run { common, files } => run(&common, &files),
        Command::Up { common, make } => up(&common, &make),
        Command::Down { common } => down(&common),
        Command::Spawn { common, place, argv } => spawn(&common, &place, &argv),
        Command::Node { common, node, action } => act(common.open()?.as_ref(), &node, action).map(|()| 0),
        Command::Capture { common, node, args } => capture(common.open()?.as_ref(), &node, &args),
        Command::Kubectl { common, args } => kubectl(&common, &args),
        Command::Gc { common } => gc(&common),
        Command::Images { common, dir } => images(&common, &dir),
        Command::PodExec(args) => runtime()?.block_on(existing::pod_exec(&args)),
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

/// Decides for a provider and looks at everything that can be wrong before anything is made.
fn prepare(common: &Common, make: &Make, reuse: bool) -> Result<Provider, (i32, anyhow::Error)> {
    let wanted = common.provider().map_err(|error| (USAGE, error))?.unwrap_or(Provider::Netns);
    let check = || kind::check(&common.name, make.kind_config.as_deref()).map_err(|error| (USAGE, error));
    if wanted == Provider::Kind {
        // Before the preflight, which may take its time to pull a node image.
        check()?;
    }
    let provider =
        wanted.decide(make.control_plane.as_deref(), make.node_image.as_deref()).map_err(|error| (MISSING, error))?;
    if provider == Provider::Kind && wanted != Provider::Kind {
        check()?;
    }
    provider::refuse_running(provider, &common.name, reuse).map_err(|error| (USAGE, error))?;
    Ok(provider)
}

/// Makes a cluster with portolan on it.
fn bring_up(
    provider: Provider,
    common: &Common,
    make: &Make,
    tied: bool,
) -> Result<Box<dyn Cluster>, (i32, anyhow::Error)> {
    for name in provider::gc().map_err(|error| (NO_CLUSTER, error))? {
        eprintln!("removed what a dead run of cluster {name} had left");
    }
    let made = match provider {
        Provider::Kind => bring_up_kind(common, make, tied),
        _ => bring_up_netns(common, make, tied),
    };
    match made {
        Ok(Some(cluster)) => Ok(cluster),
        Ok(None) => Err((INTERRUPTED, anyhow::anyhow!("interrupted"))),
        Err(error) => Err((NO_CLUSTER, error)),
    }
}

fn bring_up_netns(common: &Common, make: &Make, tied: bool) -> Result<Option<Box<dyn Cluster>>> {
    let plan = Plan {
        name: common.name.clone(),
        repo: common.repo.clone(),
        bin_dir: common.bin_dir.clone(),
        control_plane: make.control_plane.clone(),
        tied,
    };
    let cluster = step("processes", || NetnsCluster::create(&plan))?;
    let work = async {
        let client = install::client(&cluster).await?;
        timed("API server", install::wait_for_api(&client)).await?;
        timed("install portolan", install::apply(&client, &cluster, &common.repo, make.settings())).await?;
        timed("label nodes", install::label_control_plane(&client, &cluster)).await?;
        timed("ready", install::wait_until_ready(&client, &cluster)).await
    };
    Ok(until_interrupt(&runtime()?, work)?.map(|()| Box::new(cluster) as Box<dyn Cluster>))
}

fn bring_up_kind(common: &Common, make: &Make, tied: bool) -> Result<Option<Box<dyn Cluster>>> {
    let plan = kind::Plan {
        name: common.name.clone(),
        repo: common.repo.clone(),
        bin_dir: common.bin_dir.clone(),
        config: make.kind_config.clone(),
        node_image: make.node_image.clone(),
        crds: make.crds,
        reuse: !tied,
    };
    let work = async {
        let kind::Made { cluster, reused } = kind::make(&plan).await?;
        let client = install::client(&cluster).await?;
        timed("API server", install::wait_for_api(&client)).await?;
        timed("install portolan", install::apply(&client, &cluster, &common.repo, make.settings())).await?;
        if reused {
            timed("restart portolan", install::restart(&client, install::PORTOLAN)).await?;
        }
        timed("ready", install::wait_until_ready(&client, &cluster)).await?;
        Ok(cluster)
    };
    let made = until_interrupt(&runtime()?, work);
    if made.is_err() && kind::exists(&common.name)? {
        let dest = common.repo.join("target/e2e").join(format!("bring-up-{}", common.name));
        match kind::export_logs(&common.name, &dest) {
            Ok(()) => eprintln!("logs of the nodes: {}", dest.display()),
            Err(error) => eprintln!("the nodes' logs could not be exported: {error:#}"),
        }
    }
    if !tied && !matches!(made, Ok(None)) {
        kind::keep(&common.name)?;
    }
    Ok(made?.map(|cluster| Box::new(cluster) as Box<dyn Cluster>))
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

/// Plays scenarios and returns the exit code. A `fresh` cluster has just been made: nothing may have gone wrong there yet.
fn play(cluster: &dyn Cluster, repo: &Path, files: &[PathBuf], fresh: bool) -> Result<(i32, Vec<StepResult>)> {
    let named = !files.is_empty();
    let files = if files.is_empty() { all_scenarios(repo)? } else { files.to_vec() };
    let mut run = Run::begin(repo)?;
    let runtime = runtime()?;
    let interrupted = until_interrupt(&runtime, async {
        let client = install::client(cluster).await?;
        scenario::run_files(&client, cluster, repo, &files, scenario::Occasion { named, fresh }, &mut run).await
    })?
    .is_none();
    // A probe that is still under way must not keep an interrupted run from ending.
    runtime.shutdown_background();
    if interrupted {
        eprintln!("interrupted");
        return Ok((INTERRUPTED, Vec::new()));
    }
    run.finish()?;
    Ok((if run.passed() { 0 } else { 1 }, run.steps().to_vec()))
}

fn all_scenarios(repo: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![repo.join("scenarios")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                // Tests of the harness itself are played when they are named.
                if !path.ends_with("scenarios/harness") {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn run(common: &Common, files: &[PathBuf]) -> Result<i32> {
    if common.is_existing()? {
        return play_on_existing(common, files).map(|(code, _)| code);
    }
    play(common.open()?.as_ref(), &common.repo, files, false).map(|(code, _)| code)
}

/// Plays on a cluster of somebody else's. What is made there is removed, whatever happens.
fn play_on_existing(common: &Common, files: &[PathBuf]) -> Result<(i32, Vec<StepResult>)> {
    let access = common.access()?;
    let opened = runtime()?.block_on(async {
        let config = install::config_for(&access.kubeconfig, access.context.as_deref()).await?;
        let server = config.cluster_url.to_string();
        let cluster = ExistingCluster::open(access, &common.bin_dir).await?;
        let client = install::client(&cluster).await?;
        Ok::<_, anyhow::Error>((server, existing::is_marked(&client).await?, cluster))
    });
    let (server, marked, mut cluster) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok((said((NO_CLUSTER, error)), Vec::new())),
    };
    if let Err(error) = existing::consent(&cluster, &server, marked, common.yes) {
        return Ok((said((USAGE, error)), Vec::new()));
    }
    let looked = runtime()?.block_on(async {
        let client = install::client(&cluster).await?;
        existing::look(&client).await?;
        existing::refuse_second(&client).await
    });
    if let Err(error) = looked {
        return Ok((said((MISSING, error)), Vec::new()));
    }
    // From here on something may be there to be removed.
    let begun = until_interrupt(&runtime()?, async {
        let client = install::client(&cluster).await?;
        timed("probe pods", existing::start_hosts(&client, &cluster)).await?;
        cluster.learn_devices(&client).await
    });
    let played = match begun {
        Ok(Some(())) => play(&cluster, &common.repo, files, false),
        Ok(None) => Ok((said((INTERRUPTED, anyhow::anyhow!("interrupted"))), Vec::new())),
        Err(error) => Ok((said((NO_CLUSTER, error)), Vec::new())),
    };
    runtime()?.block_on(timed("remove what was made", sweep(&cluster)))?;
    played
}

/// Removes what carries our label, and tells what a scenario had not removed itself.
async fn sweep(cluster: &ExistingCluster) -> Result<()> {
    let removed = existing::sweep(&install::client(cluster).await?).await?;
    eprintln!("  removed {}", if removed.is_empty() { "nothing".to_owned() } else { removed.join(", ") });
    Ok(())
}

fn e2e(common: &Common, make: &Make, keep: bool, files: &[PathBuf]) -> Result<(i32, Vec<StepResult>)> {
    // A file that cannot be understood is said before anything is made.
    for file in files {
        scenario::format::load(file)?;
    }
    match prepare(common, make, keep) {
        Ok(provider) => e2e_on(provider, common, make, keep, files),
        Err(refusal) => Ok((said(refusal), Vec::new())),
    }
}

/// The same on a provider that was looked at.
fn e2e_on(
    provider: Provider,
    common: &Common,
    make: &Make,
    keep: bool,
    files: &[PathBuf],
) -> Result<(i32, Vec<StepResult>)> {
    if provider == Provider::Existing {
        return play_on_existing(common, files);
    }
    let began = Instant::now();
    let played = match bring_up(provider, common, make, !keep) {
        Ok(cluster) => {
            eprintln!("cluster up after {:.2} s", began.elapsed().as_secs_f64());
            play(cluster.as_ref(), &common.repo, files, true)
        }
        Err(failure) => Ok((said(failure), Vec::new())),
    };
    let there = provider::find(Some(provider), &common.name)?.is_some();
    if keep && there {
        eprintln!("the cluster was left running; remove it with `cargo xtask down --name {}`", common.name);
    } else if there {
        step("remove the cluster", || provider::destroy(Some(provider), &common.name))?;
    }
    played
}

fn e2e_again(common: &Common, make: &Make, keep: bool, repeat: u32, files: &[PathBuf]) -> Result<i32> {
    for run in 1..=repeat {
        if repeat > 1 {
            eprintln!("run {run} of {repeat}");
        }
        let (code, _) = e2e(common, make, keep, files)?;
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}

/// What `--compare` plays on: a provider and, on netns, a control plane in place of our own API server.
fn compared(providers: &[Provider], control_plane: Option<&Path>) -> Vec<(String, Provider, Option<PathBuf>)> {
    let providers = if providers.is_empty() { &[Provider::Netns] } else { providers };
    let mut all = Vec::new();
    for provider in providers {
        all.push((provider.to_string(), *provider, None));
        if let (Provider::Netns, Some(dir)) = (provider, control_plane) {
            all.push((format!("{provider} with the control plane of {}", dir.display()), *provider, Some(dir.into())));
        }
    }
    all
}

/// Plays on each of them and lists what differs between the first and each other. Exit code 1 if a run failed, or verdicts
/// or cells differ; a difference of convergence is told only.
fn compare(common: &Common, make: &Make, files: &[PathBuf]) -> Result<i32> {
    let compared = compared(&common.provider, make.control_plane.as_deref());
    if compared.len() < 2 {
        eprintln!(
            "error: --compare needs two to compare: name several providers (`--provider netns,kind`), or a control plane \
             (`--control-plane DIR`) to compare our own API server with"
        );
        return Ok(USAGE);
    }
    for file in files {
        scenario::format::load(file)?;
    }
    // What one of them cannot do is said before the others have played for minutes.
    let mut prepared = Vec::new();
    for (name, provider, control_plane) in compared {
        let one = Common { provider: vec![provider], ..common.clone() };
        let make = Make { control_plane, ..make.clone() };
        match prepare(&one, &make, false) {
            Ok(chosen) => prepared.push((name, chosen, one, make)),
            Err(refusal) => return Ok(said(refusal)),
        }
    }
    let mut runs = Vec::new();
    let mut worst = 0;
    for (name, chosen, one, make) in prepared {
        eprintln!("on {name}");
        let (code, steps) = e2e_on(chosen, &one, &make, false, files)?;
        if code > 1 {
            return Ok(code);
        }
        worst = worst.max(code);
        runs.push((name, steps));
    }
    let Some(((name, first), others)) = runs.split_first() else { return Ok(USAGE) };
    for (other, steps) in others {
        let found = report::compare::compare(first, steps);
        let verdicts = found.iter().filter(|difference| difference.verdict).count();
        println!(
            "{name} and {other}: {} steps, {verdicts} differences of verdicts, {} of convergence classes",
            first.len(),
            found.len() - verdicts
        );
        for difference in found {
            println!("  {}: {name} {}, {other} {}", difference.at, difference.first, difference.second);
            worst = worst.max(i32::from(difference.verdict));
        }
    }
    Ok(worst)
}

fn up(common: &Common, make: &Make) -> Result<i32> {
    let provider = match prepare(common, make, true) {
        Ok(provider) => provider,
        Err(refusal) => return Ok(said(refusal)),
    };
    if provider == Provider::Existing {
        return Ok(said((USAGE, anyhow::anyhow!("`up` makes a cluster; on an existing one use `run`"))));
    }
    let failure = match bring_up(provider, common, make, false) {
        Ok(cluster) => {
            println!("{}", cluster.kubeconfig().display());
            return Ok(0);
        }
        Err(failure) => failure,
    };
    let code = said(failure);
    let there = provider::find(Some(provider), &common.name)?.is_some();
    if there && code == INTERRUPTED {
        provider::destroy(Some(provider), &common.name)?;
    } else if there {
        eprintln!("the cluster was left as it is; look around, then `down --name {}`", common.name);
    }
    Ok(code)
}

/// Says why a command failed and returns its exit code.
fn said((code, error): (i32, anyhow::Error)) -> i32 {
    eprintln!("error: {error:#}");
    code
}

fn spawn(common: &Common, place: &str, argv: &[String]) -> Result<i32> {
    let cluster = common.open()?;
    let place = parse_place(cluster.as_ref(), place)?;
    let status = cluster.command(&place, argv)?.status().context("starting the command")?;
    Ok(sys::exit_code(status))
}

fn act(cluster: &dyn Cluster, node: &str, action: NodeAction) -> Result<()> {
    match action {
        NodeAction::Restart => cluster.restart_node(node),
        NodeAction::Cut => cluster.set_link(node, false),
        NodeAction::Join => cluster.set_link(node, true),
    }
}

fn capture(cluster: &dyn Cluster, node: &str, args: &[String]) -> Result<i32> {
    let mut argv = vec!["tcpdump".to_owned(), "-n".into()];
    argv.extend(if args.is_empty() { vec!["-i".to_owned(), "any".into()] } else { args.to_vec() });
    let mut command = cluster.on_network_of(node, &argv)?;
    let status = command.status().context("starting tcpdump (install it on this machine)")?;
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
    let cluster = common.open()?;
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).map(|dir| dir.join("kubectl"));
    let program = assets.filter(|path| path.is_file()).unwrap_or_else(|| "kubectl".into());
    let status = std::process::Command::new(&program)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .args(cluster.context().into_iter().flat_map(|context| ["--context", context]))
        .args(args)
        .status()
        .with_context(|| {
            format!("starting {} (install kubectl, or point KUBEBUILDER_ASSETS at it)", program.display())
        })?;
    Ok(sys::exit_code(status))
}

fn down(common: &Common) -> Result<i32> {
    if common.is_existing()? {
        bail!("an existing cluster is not the harness's to remove; `gc` removes what a dead run left in it");
    }
    provider::destroy(common.provider()?, &common.name).map(|()| 0)
}

fn images(common: &Common, dir: &Path) -> Result<i32> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    for content in image::contents(&common.repo, &common.bin_dir)? {
        let path = dir.join(format!("{}.tar", content.short_name()));
        image::archive::write(vec![content], &path)?;
        println!("{}", path.display());
    }
    Ok(0)
}

fn gc(common: &Common) -> Result<i32> {
    if common.is_existing()? {
        let cluster = runtime()?.block_on(ExistingCluster::open(common.access()?, &common.bin_dir))?;
        return runtime()?.block_on(sweep(&cluster)).map(|()| 0);
    }
    for name in provider::gc()? {
        println!("removed what a dead run of cluster {name} had left");
    }
    Ok(0)
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
