//! Tier 2: whole clusters by the harness's own commands. They leave nothing behind, whatever happens to them, and do not
//! see each other. Needs root and a control plane (KUBEBUILDER_ASSETS).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::Harness;
use support::attached::Watch;
use support::inventory::Inventory;

/// A cluster of ours is up within some seconds, and the walk-through takes longer: a moment lies in the making, or in a step.
const MOMENTS: u64 = 9_000;

fn nodes(harness: &Harness, name: &str) -> Vec<String> {
    let output = harness.run("kubectl", name, &["--", "get", "nodes", "-o", "name"]);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn two_clusters_side_by_side_leave_nothing_and_attach_nothing_to_the_machine() {
    let Some(harness) = Harness::new() else { return };
    let before = Inventory::settled();
    let watch = Watch::start();
    harness.run("up", "left", &[]);
    harness.run("up", "right", &[]);
    assert_eq!(nodes(&harness, "left"), ["node/left-control-plane", "node/left-worker", "node/left-worker2"]);
    assert_eq!(nodes(&harness, "right").len(), 3);
    let during = Inventory::take();
    // The harness would see what it left: it sees what it uses now.
    assert!(during.count("namespace") > before.count("namespace") + 10);
    assert!(during.count("bpf program") > before.count("bpf program"));
    assert!(during.count("process") > before.count("process") + 6);
    assert_eq!(during.count("link"), before.count("link"), "no device of the machine's own network is made or taken");
    assert_eq!(during.count("mount"), before.count("mount"), "no mount is seen by the machine");
    // To remove one does not disturb the other.
    harness.run("down", "left", &[]);
    assert_eq!(nodes(&harness, "right").len(), 3);
    harness.run("down", "right", &[]);
    watch.assert_nothing();
    before.assert_restored();
}

/// Whole runs one after the other: each passes, and leaves the machine as it was. `PORTOLAN_RUNS=20` plays so many.
#[test]
fn in_a_row_whole_runs_pass_and_leave_nothing() {
    let Some(harness) = Harness::new() else { return };
    let runs: u32 = match std::env::var("PORTOLAN_RUNS") {
        Ok(text) => text.parse().expect("PORTOLAN_RUNS is a number of runs"),
        Err(_) => 1,
    };
    for number in 1..=runs {
        let (before, began) = (Inventory::settled(), Instant::now());
        let watch = Watch::start();
        harness.run("e2e", "row", &[]);
        watch.assert_nothing();
        before.assert_restored();
        eprintln!("run {number} of {runs}: passed in {:.1} s", began.elapsed().as_secs_f64());
    }
}

/// The watch must see what it watches for, or its silence says nothing.
#[test]
fn the_watch_sees_a_program_at_a_device() {
    let Some(_harness) = Harness::new() else { return };
    // In a network namespace of this thread's own, which the watch's thread inherits: the machine's devices stay as they
    // are.
    let seen = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let watch = Watch::start();
        let link = support::attached::attach_nothing(nix::net::if_::if_nametoindex("lo").unwrap());
        let seen = watch.seen();
        drop(link);
        seen
    });
    let seen = seen.join().unwrap();
    assert!(seen.iter().any(|item| item.ends_with("at \"lo\" ingress")), "{seen:?}");
}

#[test]
fn what_a_killed_run_leaves_is_collected_and_ctrl_c_leaves_nothing() {
    let Some(harness) = Harness::new() else { return };
    let signals = [Signal::SIGKILL, Signal::SIGINT, Signal::SIGKILL, Signal::SIGINT];
    support::killed::end_early(&harness, &Inventory::settled(), &signals, MOMENTS, || harness.command("e2e", "killed"));
}

/// An orphan that has ended stays in the table until the machine's init notices; the inventory must not miss it later.
#[test]
fn a_process_that_has_ended_is_not_in_the_inventory() {
    let Some(_harness) = Harness::new() else { return };
    // On a thread of its own: what it unshares is for its children.
    let ended = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).unwrap();
        let child = Command::new("true").spawn().unwrap();
        let process = format!("/proc/{}", child.id());
        let begun = Instant::now();
        while !std::fs::read_to_string(format!("{process}/stat")).unwrap().contains(") Z ") {
            assert!(begun.elapsed() < Duration::from_secs(10), "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        let namespace = std::fs::read_link(format!("{process}/ns/pid")).expect("the kernel still shows this one");
        (child, namespace)
    });
    let (mut child, namespace) = ended.join().unwrap();
    let seen = Inventory::take().count(&format!("namespace {}", namespace.display()));
    child.wait().unwrap();
    assert_eq!(seen, 0);
}
