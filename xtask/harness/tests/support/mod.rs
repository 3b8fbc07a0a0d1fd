//! What the tests of whole clusters share: the harness as a user runs it, and an inventory of the machine.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod attached;
pub(crate) mod inventory;
pub(crate) mod killed;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The harness's command line for clusters of this test.
pub(crate) struct Harness {
    repo: PathBuf,
    bin_dir: PathBuf,
}

impl Harness {
    /// `None`, with the reason on standard error, where clusters cannot be had.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let harness = PathBuf::from(env!("CARGO_BIN_EXE_harness"));
        let bin_dir = harness.parent().expect("a binary lies in a directory").to_path_buf();
        for name in ["portolan", "nettool", "apiserver"] {
            assert!(
                bin_dir.join(name).is_file(),
                "{name} is not built: run `cargo xtask test`, or `cargo build` first"
            );
        }
        let repo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository");
        Some(Self { repo, bin_dir })
    }

    /// A command on the cluster of that name.
    pub(crate) fn command(&self, verb: &str, name: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join("harness"));
        command.arg(verb).arg("--repo").arg(&self.repo).arg("--bin-dir").arg(&self.bin_dir).args(["--name", name]);
        command.stdin(Stdio::null());
        command
    }

    /// A scenario of the repository.
    pub(crate) fn scenario(&self, path: &str) -> PathBuf {
        self.repo.join("scenarios").join(path)
    }

    /// Runs a command to its end; it must succeed.
    pub(crate) fn run(&self, verb: &str, name: &str, args: &[&str]) -> Output {
        let output = self.command(verb, name).args(args).output().expect("the harness starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{verb} {name}: {}\n{text}", output.status);
        output
    }
}

/// A cluster that goes with the test, also with one that fails.
pub(crate) struct Cluster<'a>(pub(crate) &'a Harness, pub(crate) &'a str);

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        let down = self.0.command("down", self.1).output();
        if !std::thread::panicking() {
            assert!(down.unwrap().status.success());
        }
    }
}
