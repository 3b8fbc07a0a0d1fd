//! Tier 1: the operators and the agent's control loops against the API server in one process and in virtual time, from a
//! seed, with everything going wrong that can between them. After any history the cluster is as `core` plans it over the
//! whole world; what must hold at every moment is checked at every write.
//!
//! `SEEDS=5000 cargo test --test simulation` plays more, from `FROM` on; `SEED=7 cargo test --test simulation` replays one
//! and prints what happened. A failure prints its seed and the fewest items that it takes; `KEEP=1,4` plays only these.
//!
//! The product's code runs as it is: clients, clocks and maps are its parameters. A frozen process is simulated by what is
//! dangerous about it, a write that arrives long after it was sent, and by a boot clock that jumps.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

mod case;
mod ledger;
mod model;
mod mutant;
mod network;
mod node;
mod run;
mod settled;
mod shrink;
mod steps;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use case::Case;
use ledger::Rule;
use run::run;

/// Seeds that are played where nothing else is said.
const SEEDS: u64 = 1000;
/// Failing seeds of one rule that are made smaller and shown.
const SHOWN: usize = 2;
/// A seed takes a fraction of a second; one that takes this long hangs.
const HANGS: Duration = Duration::from_secs(60);

/// What can go wrong; a thousand seeds meet all of it.
const FAULTS: [&str; 22] = [
    "410 in a watch",
    "address by a late write",
    "address taken back",
    "answer 504 to a write that was done",
    "clocks jump",
    "conflict",
    "connection lost",
    "crash after a write",
    "crash before a write",
    "lease released",
    "lease taken over",
    "namespace emptied",
    "no answer",
    "server error",
    "slow list",
    "slow request",
    "too many requests",
    "watch cut",
    "watch delayed",
    "watch held up",
    "write that came late",
    "write to the node refused",
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Says it also where the test passes and its output is taken away.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[test]
fn seeds() {
    if let Some(seed) = number("SEED") {
        replay(seed);
        return;
    }
    let (from, count) = (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let started = Instant::now();
    let Played { failed, met } = play_all(from..from + count);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let seconds = started.elapsed().as_secs_f64();
    say(&format!(
        "simulation: {count} seeds from {from} in {seconds:.1} s on {threads} threads, {} failed",
        failed.len()
    ));
    say(&format!("simulation: how many met what: {met:?}"));
    let mut shown = Vec::new();
    for (seed, rule) in &failed {
        // Of each rule a few are made smaller.
        if shown.iter().filter(|other| *other == rule).count() < SHOWN {
            shown.push(*rule);
            show(*seed);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
    if count >= SEEDS {
        let never: Vec<&str> = FAULTS.into_iter().filter(|what| !met.contains_key(what)).collect();
        assert!(never.is_empty(), "no seed met {never:?}: a fault in name only");
    }
}

/// What came of many seeds.
#[derive(Default)]
struct Played {
    /// Those that failed, with the rule that they broke first.
    failed: BTreeMap<u64, Rule>,
    /// How many seeds met each thing that can go wrong.
    met: BTreeMap<&'static str, u64>,
}

/// Plays seeds on all cores.
fn play_all(seeds: std::ops::Range<u64>) -> Played {
    let next = AtomicU64::new(seeds.start);
    let played = Mutex::new(Played::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let _watch = Watchdog::over(seed);
                    let report = run(&Case::drawn(seed), None, false);
                    let mut played = played.lock().unwrap();
                    played.failed.extend(report.violations.first().map(|first| (seed, first.rule)));
                    report.met.into_iter().for_each(|what| *played.met.entry(what).or_default() += 1);
                }
            });
        }
    });
    played.into_inner().unwrap()
}

/// Ends the tests if a run hangs: nothing within the run could.
struct Watchdog {
    _alive: std::sync::mpsc::Sender<()>,
}

impl Watchdog {
    fn over(seed: u64) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            if receiver.recv_timeout(HANGS) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                say(&format!("SEED={seed} hangs: a loop spins, or waits for real time"));
                std::process::exit(101);
            }
        });
        Self { _alive: sender }
    }
}

fn kept(case: Case) -> Case {
    let Ok(list) = std::env::var("KEEP") else { return case };
    let keep: Vec<usize> = list.split(',').map(|one| one.trim().parse().expect("KEEP is a list of numbers")).collect();
    case.keeping(&keep)
}

fn replay(seed: u64) {
    let case = kept(Case::drawn(seed));
    let report = run(&case, None, true);
    report.trace.iter().for_each(|line| say(line));
    assert!(report.violations.is_empty(), "SEED={seed}: {:#?}", report.violations);
}

/// Prints a failure with the least that it takes.
fn show(seed: u64) {
    let case = Case::drawn(seed);
    let report = run(&case, None, false);
    let Some(first) = report.violations.first() else {
        say(&format!("SEED={seed} failed and does not fail again: the run is not determined by its seed"));
        return;
    };
    say(&format!("\nSEED={seed} broke {:?} at {} ms: {}", first.rule, first.at, first.text));
    let keep = shrink::shrink(&case, None, first.rule);
    let list: Vec<String> = keep.iter().map(ToString::to_string).collect();
    say(&format!("the least that does it; SEED={seed} KEEP={} cargo test --test simulation", list.join(",")));
    for at in keep {
        say(&format!("  [{at:>2}] {}", case.items[at]));
    }
}

#[test]
fn a_run_is_determined_by_its_seed() {
    for seed in 0..10 {
        let case = Case::drawn(seed);
        assert_eq!(run(&case, None, false).digest, run(&case, None, false).digest, "SEED={seed}");
    }
}

/// Each rule catches a product that breaks it, and the reduction keeps what it takes.
#[test]
fn every_rule_can_be_broken() {
    for (mutant, rule) in mutant::ALL {
        let breaks = |case: &Case| run(case, Some(mutant), false).violations.iter().any(|broken| broken.rule == rule);
        let seed = (0..60).find(|seed| breaks(&Case::drawn(*seed)));
        let seed = seed.unwrap_or_else(|| panic!("{mutant:?} does not break {rule:?} in 60 seeds"));
        let case = Case::drawn(seed);
        let keep = shrink::shrink(&case, Some(mutant), rule);
        assert!(breaks(&case.keeping(&keep)), "{mutant:?}: the reduced case of seed {seed} does not fail");
        assert!(keep.len() <= 4, "{mutant:?}: seed {seed} was reduced to {} items only", keep.len());
    }
}
