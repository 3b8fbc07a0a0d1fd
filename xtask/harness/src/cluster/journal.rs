//! What outlives the processes of a cluster: its cgroup and its directory. Written before they are made, so that a run
//! that was killed at any moment can be cleaned up by what its journal says, and nothing else is touched.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::layout::{STATE_DIR, dir};
use crate::sys;

/// Within this time a run has written its journal, or it is dead.
const BEGIN: std::time::Duration = std::time::Duration::from_secs(30);

/// `journal.json` of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// The process that holds the cluster.
    pub(crate) pid: i32,
    /// Its start time in clock ticks since boot (field 22 of proc_pid_stat(5)): pids are used again.
    pub(crate) started: u64,
    /// Cgroups, as the host sees them.
    pub(crate) cgroups: Vec<PathBuf>,
}

impl Journal {
    /// Begins a journal that the calling process holds.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn begin(cluster: &str, cgroups: Vec<PathBuf>) -> Result<Self> {
        let pid = i32::try_from(std::process::id())?;
        let started = start_time(pid).context("reading our own start time")?;
        let journal = Self { cluster: cluster.to_owned(), pid, started, cgroups };
        let path = dir(cluster);
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        let path = path.join("journal.json");
        // Whole or not at all: half a journal would stop every later run, which could not tell what it may remove.
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec(&journal)?)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(journal)
    }

    /// Whether the process that holds the cluster lives.
    pub(crate) fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Removes what the journal names, then the directory with the journal.
    ///
    /// # Errors
    /// If something stays; the journal then stays too.
    pub(crate) fn remove(&self) -> Result<()> {
        for cgroup in &self.cgroups {
            sys::remove_cgroup(cgroup)?;
        }
        let path = dir(&self.cluster);
        sys::unless_gone(std::fs::remove_dir_all(&path)).with_context(|| format!("removing {}", path.display()))?;
        // Only if no other cluster is in it.
        match std::fs::remove_dir(STATE_DIR) {
            Err(error)
                if error.kind() != std::io::ErrorKind::DirectoryNotEmpty
                    && error.kind() != std::io::ErrorKind::NotFound =>
            {
                Err(error).context(STATE_DIR)
            }
            _ => Ok(()),
        }
    }
}

/// The journal of a cluster.
///
/// # Errors
/// If it cannot be understood.
pub(crate) fn of(cluster: &str) -> Result<Option<Journal>> {
    let path = dir(cluster).join("journal.json");
    match std::fs::read(&path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Removes what dead runs left; returns the names of their clusters.
///
/// # Errors
/// If something stays.
pub(crate) fn gc() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let entries = match std::fs::read_dir(Path::new(STATE_DIR)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(removed),
        Err(error) => return Err(error).context(STATE_DIR),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match of(&name)? {
            Some(journal) if !journal.alive() => {
                journal.remove()?;
                removed.push(name);
            }
            None if never_begun(&entry.path()) => {
                std::fs::remove_dir_all(entry.path())
                    .with_context(|| format!("removing {}", entry.path().display()))?;
                removed.push(name);
            }
            _ => {}
        }
    }
    Ok(removed)
}

/// What a run leaves that was killed before its journal was written: a directory with its plan, and nothing else
/// anywhere. It has no holder to be asked, so its age decides.
fn never_begun(dir: &Path) -> bool {
    let old = |path: &Path| {
        let modified = std::fs::metadata(path).and_then(|data| data.modified());
        modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > BEGIN))
    };
    let only_the_plan = std::fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().all(|entry| ["plan.json", "supervisor.log"].iter().any(|name| entry.file_name() == *name))
    });
    old(dir) && only_the_plan
}

/// Start time of a process, `None` if there is none.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may hold anything.
    let after_name = &stat[stat.rfind(')')? + 1..];
    let state = after_name.split_whitespace().next()?;
    if state == "Z" {
        return None;
    }
    after_name.split_whitespace().nth(19)?.parse().ok()
}
