//! A case: what users and other controllers do and what goes wrong, each at its moment, all drawn from one seed. It is a
//! plain list, so that a failing case can be made smaller by leaving things out.

use std::fmt;

use serde_json::{Value, json};

/// Steps and faults happen within this time, in milliseconds.
pub(crate) const HORIZON: u64 = 30_000;
/// No fault lasts beyond this moment, in milliseconds.
pub(crate) const HEALED: u64 = 50_000;

/// A client of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    FirstOperator,
    SecondOperator,
    Agent,
}

/// Requests that a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    Reads,
    Writes,
}

/// How the answer to a write that was done is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// The connection ends.
    Reset,
    /// 504, though the write was done.
    Timeout,
    /// No answer at all.
    Silence,
}

/// What a user or another controller does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    PutPool(u8, Value),
    DeletePool(u8),
    PutService(u8, Value),
    DeleteService(u8),
    /// All Services of namespace `team`.
    EmptyNamespace,
    /// Another controller writes addresses into the status.
    Foreign(u8, Vec<String>),
    /// Another controller writes a condition of its own.
    Condition(u8),
    PutSlice(u8, Vec<Value>),
    DeleteSlice(u8),
    /// A Node with an address and a podCIDR.
    PutNode(u8, u8),
    DeleteNode(u8),
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Every `every`-th request is answered with `code` and not carried out.
    Refuse { which: Which, code: u16, retry_after: Option<u64>, every: u32 },
    /// Requests are on their way for longer, in ms. A write arrives even if its sender has given up or is dead: so it is
    /// with a frozen leader that wakes up.
    Slow { which: Which, delay: u64 },
    /// Every `every`-th write is done and its answer lost.
    Lose { how: Loss, every: u32 },
    /// Each line of a watch comes later, in ms.
    DelayWatches(u64),
    /// Nothing comes by a watch until the end; then the connection ends, or all comes at once.
    HoldWatches { cut: bool },
    /// All watches end at the beginning.
    CutWatches,
    /// History is forgotten at the beginning.
    Compact,
    /// The process is killed at its `nth` write from now on, before or after it is done.
    Crash { nth: u32, after: bool, down: u64, renamed: bool },
    /// The process is told to end.
    Terminate { down: u64, renamed: bool },
    /// Its clocks jump, in seconds: the boot clock forward (the machine slept), the time of day either way.
    Jump { boot: u64, wall: i64 },
    /// A write to the maps, or to the routes, fails; the `nth` from now on.
    Node { nth: u32 },
}

/// A step, or a fault with its victim and its length in ms.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Step(Step),
    Fault(Who, Fault, u64),
}

/// Something at its moment, in ms from the start.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) at: u64,
    pub(crate) what: What,
}

/// All that happens.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    /// By time.
    pub(crate) items: Vec<Item>,
}

impl fmt::Display for Item {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:>6} ms  ", self.at)?;
        match &self.what {
            What::Step(Step::PutPool(number, spec)) => write!(out, "PutPool p{number} {spec}"),
            What::Step(Step::PutService(number, body)) => write!(out, "PutService s{number} {body}"),
            What::Step(Step::PutSlice(number, endpoints)) => write!(out, "PutSlice s{number} {}", json!(endpoints)),
            What::Step(step) => write!(out, "{step:?}"),
            What::Fault(who, fault, lasts) => write!(out, "{who:?}: {fault:?} for {lasts} ms"),
        }
    }
}

impl Case {
    /// The case of a seed.
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut items = Vec::new();
        for pool in 0..rng.u8(1..=2) {
            items.push(Item { at: rng.u64(..1000), what: What::Step(Step::PutPool(pool, pool_spec(&mut rng))) });
        }
        for _ in 0..rng.u8(8..=22) {
            items.push(Item { at: rng.u64(..HORIZON), what: What::Step(step(&mut rng)) });
        }
        for _ in 0..rng.u8(0..=5) {
            let at = rng.u64(..HORIZON - 5000);
            let lasts = rng.u64(500..(HEALED - at).min(25_000));
            let who = match rng.u8(..8) {
                0..=3 => Who::FirstOperator,
                4 | 5 => Who::SecondOperator,
                _ => Who::Agent,
            };
            items.push(Item { at, what: What::Fault(who, fault(&mut rng, who), lasts) });
        }
        items.sort_by_key(|item| item.at);
        Self { seed, items }
    }

    /// Only these of the items.
    pub(crate) fn keeping(&self, keep: &[usize]) -> Self {
        let items = keep.iter().filter_map(|at| self.items.get(*at)).cloned().collect();
        Self { seed: self.seed, items }
    }
}

fn pick<T: Clone>(rng: &mut fastrand::Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())].clone()
}

/// Small pools, so that they run out and overlap.
fn pool_spec(rng: &mut fastrand::Rng) -> Value {
    let block = |rng: &mut fastrand::Rng| {
        pick(
            rng,
            &[
                json!({"cidr": "198.18.0.0/30"}),
                json!({"cidr": "198.18.0.0/29"}),
                json!({"cidr": "198.18.0.4/30"}),
                json!({"cidr": "198.18.0.8/29"}),
                json!({"cidr": "198.18.1.0/31"}),
                json!({"start": "198.18.2.1", "stop": "198.18.2.3"}),
                json!({"start": "198.18.2.2"}),
                json!({"start": "198.18.2.9", "stop": "198.18.2.7"}),
                json!({"cidr": "2001:db8::/126"}),
            ],
        )
    };
    let mut spec = json!({});
    let blocks: Vec<Value> = (0..rng.u8(1..=2)).map(|_| block(rng)).collect();
    spec[if rng.u8(..5) == 0 { "cidrs" } else { "blocks" }] = json!(blocks);
    match rng.u8(..4) {
        0 => spec["allowFirstLastIPs"] = json!("Yes"),
        1 => spec["allowFirstLastIPs"] = json!("No"),
        _ => {}
    }
    match rng.u8(..8) {
        0 | 1 => spec["serviceSelector"] = json!({"matchLabels": {"color": "red"}}),
        2 => {
            let values = json!([{"key": "color", "operator": "NotIn", "values": ["red"]}]);
            spec["serviceSelector"] = json!({"matchExpressions": values});
        }
        3 => spec["serviceSelector"] = json!({"matchLabels": {"io.kubernetes.service.namespace": "team"}}),
        _ => {}
    }
    if rng.u8(..6) == 0 {
        spec["disabled"] = json!(true);
    }
    spec
}

fn address(rng: &mut fastrand::Rng) -> String {
    pick(
        rng,
        &[
            "198.18.0.0",
            "198.18.0.1",
            "198.18.0.2",
            "198.18.0.5",
            "198.18.0.9",
            "198.18.1.0",
            "198.18.2.2",
            "203.0.113.9",
        ],
    )
    .to_owned()
}

fn service_body(rng: &mut fastrand::Rng) -> Value {
    let kind = pick(rng, &["LoadBalancer", "LoadBalancer", "LoadBalancer", "LoadBalancer", "ClusterIP", "NodePort"]);
    let mut spec = json!({"type": kind});
    let color = pick(rng, &[json!("red"), json!("blue"), Value::Null]);
    let requested = match rng.u8(..8) {
        0 | 1 => json!(address(rng)),
        2 => json!(format!("{}, {}", address(rng), address(rng))),
        3 => json!("nonsense"),
        _ => Value::Null,
    };
    if rng.u8(..8) == 0 {
        spec["externalIPs"] = json!(["198.19.0.1"]);
    }
    if rng.u8(..10) == 0 && kind == "LoadBalancer" {
        spec["loadBalancerIP"] = json!(address(rng));
    }
    if rng.u8(..12) == 0 && kind == "LoadBalancer" {
        spec["loadBalancerClass"] = json!("example.com/other");
    }
    json!({"metadata": {"labels": {"color": color}, "annotations": {"lbipam.cilium.io/ips": requested}}, "spec": spec})
}

fn step(rng: &mut fastrand::Rng) -> Step {
    let service = rng.u8(..5);
    let pool = rng.u8(..3);
    match rng.u8(..24) {
        0..=2 => Step::PutPool(pool, pool_spec(rng)),
        3 => Step::DeletePool(pool),
        4..=11 => Step::PutService(service, service_body(rng)),
        12 => Step::DeleteService(service),
        13 if rng.bool() => Step::EmptyNamespace,
        13 => Step::DeleteService(service),
        14 => Step::Foreign(service, (0..rng.u8(0..=2)).map(|_| address(rng)).collect()),
        15 => Step::Condition(service),
        16..=19 => {
            let endpoint = |number: u8, rng: &mut fastrand::Rng| {
                let ready = rng.u8(..4) != 0;
                let (serving, terminating) = (ready || rng.bool(), !ready && rng.bool());
                json!({"addresses": [format!("10.244.1.{number}")],
                    "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
            };
            let from = rng.u8(1..4);
            Step::PutSlice(service, (from..from + rng.u8(0..4)).map(|number| endpoint(number, rng)).collect())
        }
        20 => Step::DeleteSlice(service),
        21 | 22 => Step::PutNode(rng.u8(..3), rng.u8(1..5)),
        _ => Step::DeleteNode(rng.u8(1..3)),
    }
}

fn fault(rng: &mut fastrand::Rng, who: Who) -> Fault {
    if who == Who::Agent && rng.u8(..3) == 0 {
        return Fault::Node { nth: rng.u32(1..8) };
    }
    let which = pick(rng, &[Which::All, Which::Reads, Which::Writes]);
    match rng.u8(..16) {
        0 => Fault::Refuse { which: Which::Writes, code: 409, retry_after: None, every: rng.u32(1..3) },
        1 => Fault::Refuse { which, code: 429, retry_after: Some(rng.u64(1..4)), every: rng.u32(1..4) },
        2 => Fault::Refuse { which, code: pick(rng, &[500, 503]), retry_after: None, every: rng.u32(1..4) },
        3 => Fault::Slow { which, delay: rng.u64(50..4000) },
        4 => Fault::Slow { which: Which::Writes, delay: rng.u64(4000..30_000) },
        5 | 6 => Fault::Lose { how: pick(rng, &[Loss::Reset, Loss::Timeout, Loss::Silence]), every: rng.u32(1..4) },
        7 | 8 => Fault::DelayWatches(rng.u64(20..8000)),
        9 => Fault::HoldWatches { cut: rng.bool() },
        10 => Fault::CutWatches,
        11 => Fault::Compact,
        12 | 13 => {
            let nth = rng.u32(1..6);
            Fault::Crash { nth, after: rng.bool(), down: rng.u64(10..5000), renamed: rng.bool() }
        }
        14 => Fault::Terminate { down: rng.u64(10..5000), renamed: rng.bool() },
        _ => Fault::Jump { boot: rng.u64(0..40), wall: rng.i64(-4000..4000) },
    }
}
