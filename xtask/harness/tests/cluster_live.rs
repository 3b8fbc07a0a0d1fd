//! Tier 2: whole clusters by the harness's own commands. They leave nothing behind, whatever happens to them, and do not
//! see each other. Needs root and a control plane (KUBEBUILDER_ASSETS).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

#[allow(dead_code, reason = "it has what other tests need")]
mod support;

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::Harness;
use support::inventory::Inventory;

/// A cluster is up within about 10 s; a moment in which it is killed lies before.
const MOMENTS: u64 = 9_000;

fn nodes(harness: &Harness, name: &str) -> Vec<String> {
    let output = harness.run("kubectl", name, &["--", "get", "nodes", "-o", "name"]);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn two_clusters_side_by_side_leave_nothing_and_attach_nothing_to_the_machine() {
    let Some(harness) = Harness::new() else { return };
    let before = Inventory::take();
    harness.run("up", "left", &[]);
    harness.run("up", "right", &[]);
    assert_eq!(nodes(&harness, "left"), ["node/left-control-plane", "node/left-worker", "node/left-worker2"]);
    assert_eq!(nodes(&harness, "right").len(), 3);
    let during = Inventory::take();
    // The harness would see what it left: it sees what it uses now.
    assert!(during.count("namespace") > before.count("namespace") + 10);
    assert!(during.count("bpf program") > before.count("bpf program"));
    assert_eq!(during.count("link"), before.count("link"), "no device of the machine's own network is made or taken");
    assert_eq!(during.count("mount"), before.count("mount"), "no mount is seen by the machine");
    // To remove one does not disturb the other.
    harness.run("down", "left", &[]);
    assert_eq!(nodes(&harness, "right").len(), 3);
    harness.run("down", "right", &[]);
    before.assert_restored();
}

#[test]
fn what_a_killed_run_leaves_is_collected_and_ctrl_c_leaves_nothing() {
    let Some(harness) = Harness::new() else { return };
    let before = Inventory::take();
    let seed = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    eprintln!("seed {seed}");
    for (round, signal) in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGKILL, Signal::SIGINT].into_iter().enumerate() {
        let moment = (seed >> (8 * round)).wrapping_mul(0x9e37_79b9) % MOMENTS;
        let mut child = harness
            .command("e2e", "killed")
            .arg(harness.scenario("lb-ipam/walkthrough.yaml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The moment is what is tried here; there is no condition to wait for.
        std::thread::sleep(Duration::from_millis(moment));
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let status = child.wait().unwrap();
        eprintln!("{signal} after {moment} ms");
        if signal == Signal::SIGKILL {
            // What the killed run had started ends a moment after it, and is not dead for `gc` before.
            before.assert_restored_by(|| drop(harness.run("gc", "killed", &[])));
        } else {
            assert!(!status.success(), "an interrupted run is not a success");
            before.assert_restored();
        }
    }
}
