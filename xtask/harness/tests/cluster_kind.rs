//! Tier 6: whole clusters of real kind by the harness's own commands. They leave nothing behind, whatever happens to them,
//! and do not see each other. Needs root, an engine, kind, and a node image that `KIND_NODE_IMAGE` names.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use nix::sys::signal::Signal;
use support::Harness;
use support::inventory::Inventory;

/// A cluster is up within about 40 s and its scenario played within 10 more; a moment in which it is killed lies before.
const MOMENTS: u64 = 45_000;

/// The tests take an inventory of the machine: two at once would see each other's clusters.
static MACHINE: Mutex<()> = Mutex::new(());

/// What the engine and the kernel only bring along when they are first asked (modules, and their settings) is not left by
/// anybody.
fn before() -> Inventory {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        docker(&["network", "create", "portolan-e2e-first"]);
        docker(&["network", "rm", "portolan-e2e-first"]);
    });
    Inventory::settled_with(engine)
}

/// The machine for one test; that another has failed is no reason not to begin.
fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `None`, with the reason on standard error, where no kind cluster can be had.
fn harness() -> Option<Harness> {
    let harness = Harness::new()?;
    if std::env::var_os("KIND_NODE_IMAGE").is_none() {
        eprintln!("skipped: KIND_NODE_IMAGE names no node image");
        return None;
    }
    Some(harness)
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("docker starts");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a kind cluster could leave in the engine and on the host, besides what any cluster could.
fn engine(all: &mut BTreeSet<String>) {
    let mut put = |kind: &str, args: &[&str]| {
        all.extend(docker(args).lines().map(|line| format!("{kind} {line}")));
    };
    put("container", &["ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]);
    put("network", &["network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"]);
    put("volume", &["volume", "ls", "--format", "{{.Name}}"]);
    put("image", &["image", "ls", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]);
    let tables = Command::new("nft").args(["list", "tables"]).output().expect("nft starts (install nftables)");
    all.extend(String::from_utf8(tables.stdout).unwrap().lines().map(|line| format!("nft {line}")));
    let states = std::fs::read_dir("/var/lib/portolan-e2e").into_iter().flatten().flatten();
    all.extend(states.map(|entry| format!("state {}", entry.path().display())));
    containers_cgroups(Path::new("/sys/fs/cgroup"), 6, all);
    processes(all);
}

/// Cgroups that the engine made for containers: their names are the containers' ids.
fn containers_cgroups(dir: &Path, depth: usize, all: &mut BTreeSet<String>) {
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if depth > 0 && path.is_dir() && !path.is_symlink() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let id = name.trim_start_matches("docker-").trim_end_matches(".scope");
            if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                all.insert(format!("container's cgroup {}", path.display()));
            } else {
                containers_cgroups(&path, depth - 1, all);
            }
        }
    }
}

/// Processes that belong to containers or to a run of ours, by what they are called: those of others come and go.
fn processes(all: &mut BTreeSet<String>) {
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(line) = std::fs::read(process.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let mut words = line.split(' ').map(|word| word.rsplit('/').next().unwrap_or_default());
        if words.next().is_some_and(|name| ["harness", "kind", "containerd-shim-runc-v2", "nettool"].contains(&name)) {
            all.insert(format!("process {} {line}", process.file_name().display()));
        }
    }
}

/// A command on a kind cluster of that name.
fn command(harness: &Harness, verb: &str, name: &str) -> Command {
    let mut command = harness.command(verb, name);
    command.args(["--provider", "kind"]);
    command
}

fn run(mut command: Command) -> String {
    let output = command.output().expect("the harness starts");
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn nodes(harness: &Harness, name: &str) -> Vec<String> {
    let mut kubectl = command(harness, "kubectl", name);
    kubectl.args(["--", "get", "nodes", "-o", "name"]);
    run(kubectl).lines().map(str::to_owned).collect()
}

/// Removes the clusters of a test that has failed, so that others find the machine as it was.
struct Remove<'a>(&'a Harness, &'static [&'static str]);

impl Drop for Remove<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.1 {
                // What was not made, or is gone already, is refused; the test has its own failure to tell.
                let _ = command(self.0, "down", name).output();
            }
        }
    }
}

#[test]
fn two_clusters_side_by_side_leave_nothing() {
    let Some(harness) = harness() else { return };
    let _machine = machine();
    let _remove = Remove(&harness, &["left", "right"]);
    let before = before();
    // Made at the same time: what they share of the engine and of the host must bear it.
    std::thread::scope(|scope| {
        for name in ["left", "right"] {
            let up = command(&harness, "up", name);
            scope.spawn(move || run(up));
        }
    });
    assert_eq!(nodes(&harness, "left"), ["node/left-control-plane", "node/left-worker", "node/left-worker2"]);
    let during = Inventory::take_with(engine);
    // The inventory would see what they left: it sees what they use now. Three nodes, `lan` and a router each.
    for (kind, least) in [("container ", 10), ("network ", 2), ("image ", 2), ("nft ", 2), ("state ", 2), ("link ", 10)]
    {
        assert!(during.count(kind) >= before.count(kind) + least, "{kind}");
    }
    for kind in ["container's cgroup ", "process ", "bpf program "] {
        assert!(during.count(kind) > before.count(kind), "{kind}");
    }
    // To remove one does not disturb the other.
    run(command(&harness, "down", "left"));
    assert_eq!(nodes(&harness, "right").len(), 3);
    run(command(&harness, "down", "right"));
    before.assert_restored();
}

#[test]
fn what_a_killed_run_leaves_is_collected_and_ctrl_c_leaves_nothing() {
    let Some(harness) = harness() else { return };
    let _machine = machine();
    let _remove = Remove(&harness, &["killed"]);
    let signals = [Signal::SIGKILL, Signal::SIGINT];
    support::killed::end_early(&harness, &before(), &signals, MOMENTS, || command(&harness, "e2e", "killed"));
}
