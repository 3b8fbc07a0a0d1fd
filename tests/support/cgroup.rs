//! A cgroup of the test's own: socket LB must never be attached to the machine's.

use std::path::{Path, PathBuf};

use portolan::sys::cgroup;

/// The test's process lives in it until this is dropped.
pub struct OwnCgroup {
    dir: PathBuf,
    before: PathBuf,
}

impl OwnCgroup {
    /// Makes it below the process's own cgroup v2.
    pub fn enter() -> Self {
        let root = cgroup::v2_root(Path::new("/sys/fs/cgroup")).expect("cgroup v2 is mounted");
        let all = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = all.lines().find_map(|line| line.strip_prefix("0::/")).expect("the process is in a cgroup v2");
        let before = root.join(path);
        // Beside, not below: a cgroup that delegates controllers cannot hold processes and children.
        let dir = root.join(format!("portolan-test-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let own = Self { dir, before };
        move_into(&own.dir).unwrap();
        own
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }
}

fn move_into(dir: &Path) -> std::io::Result<()> {
    std::fs::write(dir.join("cgroup.procs"), std::process::id().to_string())
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        move_into(&self.before).unwrap();
        std::fs::remove_dir(&self.dir).unwrap();
    }
}
