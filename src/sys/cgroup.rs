//! Finding the node's cgroup, which socket LB attaches to.

use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// The cgroup v2 directory at `mount`, or in its `unified` sub-directory where the hierarchy is hybrid.
#[must_use]
pub fn v2_root(mount: &Path) -> Option<PathBuf> {
    [mount.to_path_buf(), mount.join("unified")]
        .into_iter()
        .find(|dir| statfs(dir).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC))
}
