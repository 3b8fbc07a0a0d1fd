//! One run of a case: an API server, two operators and an agent in one process and in virtual time.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use apiserver::{ApiServer, Options, RuntimeClock};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use portolan::agent::{nodes, services};
use portolan::k8s::clock::Clock;
use portolan::operator::Operator;
use portolan::telemetry::health::Health;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::case::{Case, Fault, HEALED, What, Who};
use crate::ledger::{Rule, Violation};
use crate::mutant::Mutant;
use crate::network::{Life, Link, Network};
use crate::node::{self, Node, OWN};
use crate::settled;
use crate::steps;

/// When all faults are over, all is as planned within this time: a lease that runs out (15 s and a request's 5 s), a
/// watch that waits its longest (5 s), and rounds.
const SETTLES: u64 = 40_000;
/// This long nothing is written before and after a restart.
const RESTS: u64 = 8000;
/// The clock is not asked more often within one moment of virtual time, unless a loop spins.
const SPINS: u64 = 100_000;

/// What came of a run.
pub(crate) struct Report {
    pub(crate) violations: Vec<Violation>,
    /// Equal for equal histories.
    pub(crate) digest: u64,
    pub(crate) trace: Vec<String>,
    /// What went wrong.
    pub(crate) met: BTreeSet<&'static str>,
}

/// Runs a case.
pub(crate) fn run(case: &Case, mutant: Option<Mutant>, trace: bool) -> Report {
    // Where a library draws lots (the back-off of kube's watches), it does so by this.
    fastrand::seed(case.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let report = runtime.block_on(play(case, mutant, trace));
    runtime.shutdown_background();
    report
}

/// The clocks of one machine, which jump.
struct SimulatedClock {
    start: Instant,
    boot: AtomicU64,
    wall: AtomicI64,
    asked: Mutex<(Duration, u64)>,
}

fn epoch() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

impl Clock for SimulatedClock {
    fn now(&self) -> Duration {
        let now = self.start.elapsed() + Duration::from_secs(self.boot.load(Ordering::Relaxed));
        let mut asked = self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *asked = if asked.0 == now { (now, asked.1 + 1) } else { (now, 0) };
        assert!(asked.1 < SPINS, "a loop spins");
        now
    }

    fn wall(&self) -> Timestamp {
        let jumped = SignedDuration::from_secs(self.wall.load(Ordering::Relaxed));
        epoch() + SignedDuration::try_from(self.start.elapsed()).unwrap() + jumped
    }
}

/// A machine with one process on it.
struct Machine {
    who: Who,
    clock: Arc<SimulatedClock>,
    life: Mutex<Option<Arc<Life>>>,
}

impl Machine {
    fn new(who: Who) -> Arc<Self> {
        let clock = SimulatedClock {
            start: Instant::now(),
            boot: AtomicU64::new(0),
            wall: AtomicI64::new(0),
            asked: Mutex::default(),
        };
        Arc::new(Self { who, clock: Arc::new(clock), life: Mutex::default() })
    }

    fn begin(&self, life: &Arc<Life>) {
        *self.life.lock().unwrap() = Some(Arc::clone(life));
    }

    fn kill(&self, down: u64, renamed: bool) {
        if let Some(life) = &*self.life.lock().unwrap() {
            life.kill(down, renamed);
        }
    }

    /// Asks the process to end.
    fn terminate(&self, down: u64, renamed: bool) {
        if let Some(life) = &*self.life.lock().unwrap() {
            *life.next.lock().unwrap() = Some((down, renamed));
            life.told_to_end.notify_one();
        }
    }
}

/// Lets a process live until it is killed or ends, and returns how it goes on.
async fn live<T>(
    network: &Network,
    life: &Life,
    process: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> (u64, bool)
where
    T: Send + 'static,
{
    let mut tasks = JoinSet::new();
    tasks.spawn(process);
    let ended = tokio::select! {
        biased;
        () = life.killed.notified() => None,
        ended = tasks.join_next() => ended,
    };
    life.dead.store(true, Ordering::Relaxed);
    drop(tasks);
    let next = *life.next.lock().unwrap();
    let text = match ended {
        None => None,
        Some(Ok(Ok(_))) => next.is_none().then(|| "ended".to_owned()),
        // One that is told to end may be unable to give its lease back.
        Some(Ok(Err(error))) => next.is_none().then(|| format!("{error:#}")),
        Some(Err(error)) => Some(error.to_string()),
    };
    if let Some(text) = text {
        network.ledger().break_rule(Rule::Alive, network.ms(), format!("{:?}: {text}", life.who));
    }
    next.unwrap_or((1000, false))
}

async fn operator(network: Arc<Network>, machine: Arc<Machine>) {
    let mut number = 0;
    loop {
        let life = Life::new(machine.who, None);
        machine.begin(&life);
        let client = kube::Client::new(Link::new(&network, &life), "default");
        let operator = Operator::new(client, format!("{:?}-{number}", machine.who), machine.clock.clone());
        let told = Arc::clone(&life);
        let stop = async move {
            told.told_to_end.notified().await;
            Ok(())
        };
        let (down, renamed) = live(&network, &life, operator.serve(stop)).await;
        number += u64::from(renamed);
        sleep(Duration::from_millis(down)).await;
    }
}

async fn agent(network: Arc<Network>, machine: Arc<Machine>, node: Node) {
    loop {
        let life = node.life();
        machine.begin(&life);
        let client = kube::Client::new(Link::new(&network, &life), "default");
        let health = Health::default();
        let maps = Arc::new(tokio::sync::Mutex::new(node.clone()));
        let following = services::Services { client: client.clone(), maps, health: health.clone(), enabled: true };
        let (services_synced, _services_ready) = oneshot::channel();
        let (nodes_synced, _nodes_ready) = oneshot::channel();
        let neighbourhood = Arc::new(node.clone());
        let told = Arc::clone(&life);
        let process = async move {
            tokio::select! {
                biased;
                () = told.told_to_end.notified() => Ok(()),
                ended = services::run(following, services_synced) => ended,
                ended = nodes::run(client, OWN, neighbourhood, health, nodes_synced) => ended,
            }
        };
        let (down, _) = live(&network, &life, process).await;
        sleep(Duration::from_millis(down)).await;
    }
}

/// What of the installation the API server must have before a process of ours starts: CRDs, accounts and roles, each with
/// where it is created.
fn installation() -> &'static [(String, Value)] {
    static INSTALLATION: OnceLock<Vec<(String, Value)>> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let files = [
            include_str!("../../manifests/install/00-crds.yaml"),
            include_str!("../../manifests/install/10-rbac.yaml"),
        ];
        let documents = files.into_iter().flat_map(serde_yaml::Deserializer::from_str);
        let objects = documents.map(|document| Value::deserialize(document).expect("a manifest is YAML"));
        objects.filter(|object| !object.is_null()).map(|object| (collection(&object), object)).collect()
    })
}

/// The path at which an object is created.
fn collection(object: &Value) -> String {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let version = text(&object["apiVersion"]);
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let plural = format!("{}s", text(&object["kind"]).to_lowercase());
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
        None => format!("{root}/{plural}"),
    }
}

async fn install(network: &Network, mutant: Option<Mutant>) {
    for (path, object) in installation() {
        let mut object = object.clone();
        if let Some(mutant) = mutant {
            mutant.on_install(&mut object);
        }
        let (status, answer) = network.user("POST", path, &object).await;
        assert!(status.is_success(), "{path}: {answer}");
    }
}

async fn play(case: &Case, mutant: Option<Mutant>, trace: bool) -> Report {
    let clock = Arc::new(RuntimeClock::starting_at(epoch()));
    let server = ApiServer::start(Options::default().seed(case.seed).clock(clock)).unwrap();
    let network = Network::new(server, case, mutant, trace);
    install(&network, mutant).await;
    steps::prepare(&network).await;

    let machines = [Who::FirstOperator, Who::SecondOperator, Who::Agent].map(Machine::new);
    let node = Node::new(&network);
    let mut processes = JoinSet::new();
    processes.spawn(operator(Arc::clone(&network), Arc::clone(&machines[0])));
    processes.spawn(operator(Arc::clone(&network), Arc::clone(&machines[1])));
    processes.spawn(agent(Arc::clone(&network), Arc::clone(&machines[2]), node.clone()));
    for item in &case.items {
        network.until(item.at).await;
        network.ledger().tell(item.at, || format!("--- {item}"));
        match &item.what {
            What::Step(step) => steps::carry_out(&network, step).await,
            What::Fault(who, fault, _) => begin(&network, &machines[*who as usize], fault),
        }
    }
    network.until(HEALED).await;
    if settle(&network, &node).await {
        rest(&network, &machines).await;
    }
    processes.shutdown().await;
    let mut ledger = network.ledger();
    Report {
        violations: ledger.violations.clone(),
        digest: ledger.digest(),
        met: std::mem::take(&mut ledger.met),
        trace: ledger.trace.take().unwrap_or_default(),
    }
}

/// What a fault does at its beginning; the others are the network's.
fn begin(network: &Network, machine: &Machine, fault: &Fault) {
    match fault {
        Fault::Compact => network.compact(),
        Fault::Terminate { down, renamed } => machine.terminate(*down, *renamed),
        Fault::Jump { boot, wall } => {
            network.meet("clocks jump");
            machine.clock.boot.fetch_add(*boot, Ordering::Relaxed);
            machine.clock.wall.fetch_add(*wall, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// Waits until all is as planned.
async fn settle(network: &Network, node: &Node) -> bool {
    loop {
        let (mut found, of_node) = {
            let ledger = network.ledger();
            (settled::differences(&ledger), node::differences(&node.kernel.lock().unwrap(), &ledger))
        };
        let now = network.ms();
        let rule = if found.is_empty() { Rule::NodeSettles } else { Rule::Settles };
        found.extend(of_node);
        if found.is_empty() && !network.awaits_late_writes() {
            return true;
        }
        if now > HEALED + SETTLES {
            network.ledger().break_rule(rule, now, found.join("; "));
            return false;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// When nothing changes, nothing is written; nor by operators that are started anew.
async fn rest(network: &Network, machines: &[Arc<Machine>]) {
    // What is planned may still be told by an answer on its way.
    sleep(Duration::from_secs(1)).await;
    for when in ["", " after a restart"] {
        let before = network.ledger().writes;
        sleep(Duration::from_millis(RESTS)).await;
        let now = network.ms();
        let mut ledger = network.ledger();
        if ledger.writes != before {
            let text = format!("{} writes{when} though all was as planned", ledger.writes - before);
            ledger.break_rule(Rule::Rests, now, text);
            return;
        }
        drop(ledger);
        machines.iter().for_each(|machine| machine.kill(10, false));
    }
}

/// For a body that is written by hand.
pub(crate) fn object(kind: &str, api_version: &str, name: &str, rest: &Value) -> Value {
    let mut object = json!({"kind": kind, "apiVersion": api_version, "metadata": {"name": name}});
    for (field, value) in rest.as_object().into_iter().flatten() {
        if field == "metadata" {
            object["metadata"].as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        } else {
            object[field] = value.clone();
        }
    }
    object
}
