//! What a machine has that a cluster could leave behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time for what the kernel frees late (BPF programs, namespaces).
const SETTLE: Duration = Duration::from_secs(30);
/// A machine on which nothing changes for so long is taken as it is.
const STILL: Duration = Duration::from_millis(500);

/// Everything, a line an item.
#[derive(Clone, Debug)]
pub(crate) struct Inventory {
    all: BTreeSet<String>,
    more: Look,
}

/// Looks at something and adds what it sees.
pub(crate) type Look = fn(&mut BTreeSet<String>);

impl Inventory {
    /// Looks at the machine.
    pub(crate) fn take() -> Self {
        Self::take_with(|_| {})
    }

    /// Looks at the machine, and at what `more` looks at besides; so does every comparison.
    pub(crate) fn take_with(more: Look) -> Self {
        let mut all = BTreeSet::new();
        namespaces(&mut all);
        processes(&mut all);
        mounts(&mut all);
        files("link", Path::new("/sys/class/net"), 1, &mut all);
        cgroups(&mut all);
        files("state", Path::new("/run/portolan-e2e"), 1, &mut all);
        files("state", Path::new("/run/netns"), 1, &mut all);
        files("state", Path::new("/sys/fs/bpf"), 4, &mut all);
        sysctls(Path::new("/proc/sys/net"), &mut all);
        bpf(&mut all);
        more(&mut all);
        Self { all, more }
    }

    /// What there is before a test: what an earlier one has left to the kernel to free would be missed later, so it is
    /// waited for.
    pub(crate) fn settled() -> Self {
        Self::settled_with(|_| {})
    }

    /// As `settled`, with what `more` looks at besides.
    pub(crate) fn settled_with(more: Look) -> Self {
        let start = Instant::now();
        let mut last = Self::take_with(more);
        loop {
            std::thread::sleep(STILL);
            let now = Self::take_with(more);
            if now.all == last.all || start.elapsed() > SETTLE {
                return now;
            }
            last = now;
        }
    }

    /// Waits until the machine is as it was, and panics with what is more or less if it does not become so.
    pub(crate) fn assert_restored(&self) {
        self.assert_restored_by(|| {});
    }

    /// As `assert_restored`, with something done before each look.
    pub(crate) fn assert_restored_by(&self, act: impl Fn()) {
        let start = Instant::now();
        loop {
            act();
            let now = Self::take_with(self.more);
            let more: Vec<_> = now.all.difference(&self.all).filter(|item| !self.is_new_setting(item)).collect();
            let less: Vec<_> = self.all.difference(&now.all).collect();
            if more.is_empty() && less.is_empty() {
                return;
            }
            if start.elapsed() > SETTLE {
                panic!("the machine is not as it was; more: {more:#?}; less: {less:#?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A sysctl that was not there came with a module of the kernel, which stays loaded; those of devices go with them.
    fn is_new_setting(&self, item: &str) -> bool {
        let Some((key, _)) = item.split_once(" = ") else { return false };
        key.starts_with("sysctl ") && !self.all.iter().any(|known| known.split(" = ").next() == Some(key))
    }

    /// Number of items of a kind.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.all.iter().filter(|item| item.starts_with(kind)).count()
    }
}

/// A container engine's, or a service's or login's: they come and go at their own pace, and no cluster of namespaces uses them.
fn is_engines(cgroup: &str) -> bool {
    ["/docker", "/containerd", "/system.slice", "/user.slice"].iter().any(|part| cgroup.contains(part))
}

/// Groups of the unified hierarchy, the only one that clusters use; others belong to whoever runs this machine.
fn cgroups(all: &mut BTreeSet<String>) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let unified = mounts.lines().filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, at, "cgroup2", ..] => Some(at),
        _ => None,
    });
    for at in unified {
        files("cgroup", Path::new(at), 8, all);
    }
}

/// Whether a process has ended and waits for its parent to notice: for an orphan that is the machine's init, which may take
/// its time. Of its namespaces the kernel still shows the one of processes.
fn has_ended(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Namespaces that a process lives in.
fn namespaces(all: &mut BTreeSet<String>) {
    for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
        if has_ended(&process.path()) {
            continue;
        }
        if std::fs::read_to_string(process.path().join("cgroup")).is_ok_and(|cgroup| is_engines(&cgroup)) {
            continue;
        }
        let Ok(entries) = std::fs::read_dir(process.path().join("ns")) else { continue };
        let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        all.extend(links.map(|target| format!("namespace {}", target.display())));
    }
}

/// Programs that a cluster runs, ours and a control plane's.
const PROGRAMS: [&str; 8] = [
    "harness",
    "portolan",
    "nettool",
    "apiserver",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// Processes that a cluster could have left. Others of the machine come and go as they like.
fn processes(all: &mut BTreeSet<String>) {
    for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let path = process.path();
        let Ok(command) = std::fs::read(path.join("cmdline")) else { continue };
        let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
        let program = String::from_utf8_lossy(program);
        let engines = || std::fs::read_to_string(path.join("cgroup")).is_ok_and(|cgroup| is_engines(&cgroup));
        if PROGRAMS.contains(&program.rsplit('/').next().unwrap_or_default()) && !engines() {
            all.insert(format!("process {} {program}", process.file_name().display()));
        }
    }
}

/// Mount points, without ids, which change when a propagated mount comes and goes.
fn mounts(all: &mut BTreeSet<String>) {
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    all.extend(text.lines().map(|line| format!("mount {}", line.split(' ').skip(3).collect::<Vec<_>>().join(" "))));
}

fn files(kind: &str, dir: &Path, depth: usize, all: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if kind == "cgroup" && is_engines(&path.display().to_string()) {
            continue;
        }
        if kind != "cgroup" || path.is_dir() {
            all.insert(format!("{kind} {}", path.display()));
        }
        if depth > 1 && path.is_dir() && !path.is_symlink() {
            files(kind, &path, depth - 1, all);
        }
    }
}

fn sysctls(dir: &Path, all: &mut BTreeSet<String>) {
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            sysctls(&path, all);
        } else if !path.ends_with("nf_conntrack_count")
            && let Ok(value) = std::fs::read_to_string(&path)
        {
            all.insert(format!("sysctl {} = {}", path.display(), value.trim()));
        }
    }
}

/// Ids of all programs, maps and links in the kernel.
fn bpf(all: &mut BTreeSet<String>) {
    all.extend(bpf_ids("program", 11).into_iter().chain(bpf_ids("map", 12)).chain(bpf_ids("link", 31)));
}

/// Walks `BPF_*_GET_NEXT_ID`.
#[allow(unsafe_code, reason = "bpf(2)")]
fn bpf_ids(kind: &str, command: libc::c_int) -> Vec<String> {
    let mut found = Vec::new();
    let mut attr = [0_u32; 3];
    // SAFETY: the attribute is the head of `union bpf_attr` for these commands: start id, next id, flags.
    while unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), 12) } == 0 {
        found.push(format!("bpf {kind} {}", attr[1]));
        attr = [attr[1], 0, 0];
    }
    found
}
