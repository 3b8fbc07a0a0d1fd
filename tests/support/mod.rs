//! Fixtures of the tests that need the kernel: a BPF file system, a node with pods in network namespaces, and people who
//! talk to each other in them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod cgroup;
pub mod icmp;
pub mod offload;
pub mod talk;
pub mod world;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A BPF file system that goes with the test.
pub struct Bpffs(pub PathBuf);

impl Bpffs {
    /// `None`, with the reason on standard error, where it cannot be had.
    pub fn mount(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("portolan-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        mount(Some("bpf"), &dir, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Some(Self(dir))
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
        std::fs::remove_dir(&self.0).unwrap();
    }
}

/// Waits until `holds`, and panics with `what` if it does not within two seconds.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(2), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
