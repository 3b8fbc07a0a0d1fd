//! What a kind cluster leaves in the engine and on the host, written before it is made. Only what the journal names is
//! ever removed, and of that only what carries our label or sits on our network: a user's own cluster is never touched.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};

use super::super::journal::start_time;
use super::engine::{self, KIND_LABEL, LABEL, docker};
use super::fence;
use super::layout::{Names, STATE_DIR, dir, write_whole};
use crate::sys;

/// Time for containers to go.
const GONE: Duration = Duration::from_secs(30);
/// An engine goes on with a container whose maker was killed, and tells nobody before it is there: there is nothing else to
/// wait for than that none comes for so long.
const LATE: Duration = Duration::from_secs(3);
/// Pause between two looks at what is to go.
const LOOK: Duration = Duration::from_millis(200);

/// `journal.json` of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    /// What it made, by name.
    pub(super) names: Names,
    /// The process that makes the cluster or plays on it.
    pid: i32,
    /// Its start time in clock ticks since boot: pids are used again.
    started: u64,
    /// The boot that the process belongs to: start times are used again too.
    boot: String,
    /// It was asked to stay; only `down` removes it.
    pub(super) kept: bool,
    /// Nothing more of it is being made.
    #[serde(default)]
    made: bool,
}

impl Journal {
    /// Begins a journal that this process holds.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn begin(names: Names) -> Result<Self> {
        let pid = i32::try_from(std::process::id())?;
        let started = start_time(pid).context("reading our own start time")?;
        let journal = Self { names, pid, started, boot: boot()?, kept: false, made: false };
        journal.write()?;
        Ok(journal)
    }

    /// From now on the cluster stays when this process ends.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(super) fn keep(mut self) -> Result<()> {
        self.kept = true;
        self.write()
    }

    /// From now on nothing of the cluster is on its way into the engine.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(super) fn made(mut self) -> Result<()> {
        self.made = true;
        self.write()
    }

    fn write(&self) -> Result<()> {
        let path = dir(&self.names.cluster);
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        write_whole(&path.join("journal.json"), &serde_json::to_vec_pretty(self)?)
    }

    /// Whether somebody wants the cluster still.
    pub(super) fn alive(&self) -> bool {
        self.kept || (boot().is_ok_and(|boot| boot == self.boot) && start_time(self.pid) == Some(self.started))
    }

    /// Removes what the journal names, then the directory with the journal.
    ///
    /// # Errors
    /// If something stays; the journal then stays too.
    pub(super) fn remove(&self) -> Result<()> {
        let names = &self.names;
        let deadline = Instant::now() + GONE;
        if !self.made {
            self.end_makers(deadline)?;
        }
        // A container that is being started keeps the network.
        while let Err(error) = self.remove_containers().and_then(|_| self.remove_network()) {
            if Instant::now() > deadline {
                return Err(error).with_context(|| {
                    format!("cluster {:?} is not gone after {GONE:?}; is the engine up?", names.cluster)
                });
            }
            std::thread::sleep(LOOK);
        }
        if !self.made {
            self.remove_late(deadline)?;
        }
        if engine::has_image(&names.image) {
            docker(&["image", "rm", &names.image])?;
        }
        // Last, so that nothing of the cluster is left that could send.
        fence::remove(names)?;
        let path = dir(&names.cluster);
        sys::unless_gone(std::fs::remove_dir_all(&path)).with_context(|| format!("removing {}", path.display()))?;
        match std::fs::remove_dir(STATE_DIR) {
            Err(error)
                if !matches!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::NotFound) =>
            {
                Err(error).context(STATE_DIR)
            }
            _ => Ok(()),
        }
    }

    /// Ends what a dead run had started to make the cluster: it would go on for as long as it takes.
    fn end_makers(&self, deadline: Instant) -> Result<()> {
        loop {
            let makers = engine::makers(&self.names.network);
            if makers.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "processes {makers:?} that make {:?} do not end", self.names.cluster);
            for maker in makers {
                // One that has ended in this moment is what is wanted.
                let _ = kill(maker, Signal::SIGKILL);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Removes containers that come when everything else is gone, until none has come for a while.
    fn remove_late(&self, deadline: Instant) -> Result<()> {
        let mut quiet = Instant::now();
        while quiet.elapsed() < LATE {
            match self.remove_containers() {
                Ok(false) => {}
                Ok(true) => quiet = Instant::now(),
                Err(error) if Instant::now() > deadline => return Err(error),
                // One that is only half there may not let itself be removed yet.
                Err(_) => quiet = Instant::now(),
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// What carries our label, everything on our network, and what kind has made for that network while it was there.
    fn containers(&self) -> Result<Vec<String>> {
        let network = format!("network={}", self.names.network);
        let mut ids = engine::list(&[format!("label={LABEL}={}", self.names.cluster)])?;
        ids.extend(engine::list(&[format!("label={KIND_LABEL}={}", self.names.cluster), network.clone()])?);
        if self.network()? {
            ids.extend(engine::list(&[network])?);
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// Removes the cluster's containers; whether there were any.
    fn remove_containers(&self) -> Result<bool> {
        let ids = self.containers()?;
        if ids.is_empty() {
            return Ok(false);
        }
        let mut args = vec!["rm".to_owned(), "--force".into(), "--volumes".into()];
        args.extend(ids.iter().cloned());
        docker(&args)?;
        // Probes that were running joined the container's cgroup from outside: the engine neither ends them nor can it
        // remove the cgroup then.
        ids.iter().flat_map(|id| cgroups(id)).try_for_each(|dir| sys::remove_cgroup(&sys::cgroup2()?.join(dir)))?;
        Ok(true)
    }

    fn remove_network(&self) -> Result<()> {
        if self.network()? {
            docker(&["network", "rm", &self.names.network])?;
        }
        Ok(())
    }

    /// Whether our network exists.
    fn network(&self) -> Result<bool> {
        let filters = [format!("name=^{}$", self.names.network), format!("label={LABEL}={}", self.names.cluster)];
        let mut args = vec!["network", "ls", "--quiet"];
        args.extend(filters.iter().flat_map(|filter| ["--filter", filter.as_str()]));
        Ok(!docker(&args)?.trim().is_empty())
    }
}

/// Where an engine may have put a container's cgroup, by its cgroup driver: cgroupfs or systemd.
fn cgroups(id: &str) -> [String; 2] {
    [format!("docker/{id}"), format!("system.slice/docker-{id}.scope")]
}

fn boot() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?.trim().to_owned())
}

/// The journal of a cluster.
///
/// # Errors
/// If it cannot be understood.
pub(super) fn of(cluster: &str) -> Result<Option<Journal>> {
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
pub(super) fn gc() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let entries = match std::fs::read_dir(STATE_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(removed),
        Err(error) => return Err(error).context(STATE_DIR),
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(journal) = of(&name)?
            && !journal.alive()
        {
            journal.remove()?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Refuses a name that a kind cluster has which is not ours.
///
/// # Errors
/// If there is one.
pub(super) fn refuse_foreign(cluster: &str) -> Result<()> {
    if engine::list(&[format!("label={KIND_LABEL}={cluster}")])?.is_empty() {
        return Ok(());
    }
    bail!("a kind cluster {cluster:?} exists that this harness did not make; give another --name")
}
