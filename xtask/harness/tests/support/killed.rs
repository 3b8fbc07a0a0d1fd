//! Runs that end early, at moments of a seed.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Harness;
use super::inventory::Inventory;

/// Ends a walk-through by each of the signals in turn, and asserts that `gc` collects what a killed one has left and that an
/// interrupted one leaves nothing. `e2e` makes a command on the cluster `killed`; moments lie within `span` ms.
pub(crate) fn end_early(
    harness: &Harness,
    before: &Inventory,
    signals: &[Signal],
    span: u64,
    e2e: impl Fn() -> Command,
) {
    let seed = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    eprintln!("seed {seed}");
    for (round, signal) in signals.iter().enumerate() {
        let moment = (seed >> (8 * round)).wrapping_mul(0x9e37_79b9) % span;
        let scenario = harness.scenario("lb-ipam/walkthrough.yaml");
        let mut child = e2e().arg(scenario).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The moment is what is tried here; there is no condition to wait for.
        std::thread::sleep(Duration::from_millis(moment));
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), *signal).unwrap();
        let status = child.wait().unwrap();
        eprintln!("{signal} after {moment} ms");
        if *signal == Signal::SIGKILL {
            // What the killed run had started ends a moment after it, and is not dead for `gc` before.
            before.assert_restored_by(|| drop(harness.run("gc", "killed", &[])));
        } else {
            assert!(!status.success(), "an interrupted run is not a success");
            before.assert_restored();
        }
    }
}
