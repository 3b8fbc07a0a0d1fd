//! What kind, its nodes and portolan need of the machine: one line a finding, all of them at once, with the way out.

use std::path::Path;

use super::engine::{self, docker};
use crate::sys;

/// How a finding bears on the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// As it should be.
    Fine,
    /// May do harm later.
    Warning,
    /// Nothing can start.
    Missing,
}

/// One line of the preflight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How it bears on the start.
    pub(crate) weight: Weight,
    /// What was looked at.
    pub(crate) what: &'static str,
    /// What was seen, and the way out.
    pub(crate) text: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let weight = match self.weight {
            Weight::Fine => "ok",
            Weight::Warning => "warning",
            Weight::Missing => "MISSING",
        };
        write!(f, "{weight:<8} {:<14} {}", self.what, self.text)
    }
}

fn fine(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { weight: Weight::Fine, what, text: text.into() }
}

fn warning(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { weight: Weight::Warning, what, text: text.into() }
}

fn missing(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { weight: Weight::Missing, what, text: text.into() }
}

/// Oldest engine API with private cgroup namespaces, which kind uses where it finds them (Docker 20.10).
const ENGINE_API: (u32, u32) = (1, 41);
/// inotify instances of a user: three nodes with their systemds, kubelets and containerds take about a hundred; kind's
/// documentation names 512.
const INOTIFY_INSTANCES: u64 = 512;
/// inotify watches of a user, from the same place.
const INOTIFY_WATCHES: u64 = 524_288;
/// Disk that three nodes and their images take, in bytes, and what is comfortable.
const DISK: (u64, u64) = (2 << 30, 6 << 30);
/// Oldest kernel with TCX links.
const KERNEL: (u32, u32) = (6, 6);

/// Looks at everything. The node image is pulled if it is not there, as kind would do.
pub(crate) fn look(node_image: Option<&str>) -> Vec<Finding> {
    let mut found = vec![root()];
    let (engine, reachable) = engine();
    found.push(engine);
    found.push(kind());
    if reachable {
        found.push(same_machine());
        found.push(image(node_image));
        found.push(disk());
    }
    found.push(kernel(&read("/proc/sys/kernel/osrelease")));
    found.extend(cgroups(node_image.filter(|_| reachable)));
    for (name, least) in [("max_user_instances", INOTIFY_INSTANCES), ("max_user_watches", INOTIFY_WATCHES)] {
        found.push(inotify(name, &read(&format!("/proc/sys/fs/inotify/{name}")), least));
    }
    found.push(match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => fine("BTF", "/sys/kernel/btf/vmlinux"),
        false => missing("BTF", "no /sys/kernel/btf/vmlinux: a kernel with CONFIG_DEBUG_INFO_BTF"),
    });
    found.push(bpffs(&read("/proc/filesystems")));
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        found.push(match in_path(program) {
            true => fine("program", program),
            false => {
                missing("program", format!("{program}: install {package}, for example `apt-get install {package}`"))
            }
        });
    }
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn root() -> Finding {
    if nix::unistd::geteuid().is_root() {
        fine("root", "yes: probes enter the nodes' namespaces, and the host is fenced")
    } else {
        missing("root", "run as root: probes enter the nodes' namespaces, and the host is fenced")
    }
}

fn engine() -> (Finding, bool) {
    match docker(&["version", "--format", "{{.Server.Version}} {{.Server.APIVersion}} {{.Server.Os}}"]) {
        Ok(text) => (engine_version(text.trim()), true),
        Err(error) => {
            let way = "install Docker, start it, and see that `docker version` answers";
            (missing("engine", format!("not reachable: {error:#}; {way}")), false)
        }
    }
}

fn engine_version(text: &str) -> Finding {
    let api = text.split(' ').nth(1).and_then(version_pair);
    if api.is_some_and(|api| api >= ENGINE_API) {
        fine("engine", format!("Docker {text}"))
    } else {
        missing("engine", format!("Docker {text}: needs API {}.{} (Docker 20.10)", ENGINE_API.0, ENGINE_API.1))
    }
}

/// Probes enter namespaces of the nodes, and the fence stands on the host: both need an engine on this kernel.
fn same_machine() -> Finding {
    match docker(&["info", "--format", "{{.KernelVersion}}\t{{.SecurityOptions}}"]) {
        Ok(text) => {
            let (kernel, options) = text.trim().split_once('\t').unwrap_or_default();
            local(kernel, options, read("/proc/sys/kernel/osrelease").trim())
        }
        Err(error) => missing("engine", format!("`docker info`: {error:#}")),
    }
}

fn local(kernel: &str, options: &str, ours: &str) -> Finding {
    if kernel != ours {
        return missing(
            "engine",
            format!("it runs on another machine or in a VM (kernel {kernel}, here {ours}); use a local one"),
        );
    }
    if options.contains("name=rootless") {
        return missing("engine", "it is rootless: its networks are not this machine's; use one that runs as root");
    }
    fine("engine", "on this machine")
}

fn kind() -> Finding {
    let mut command = engine::kind_command();
    command.arg("version");
    match command.output() {
        Ok(output) if output.status.success() => kind_version(String::from_utf8_lossy(&output.stdout).trim()),
        Ok(output) => missing("kind", format!("`kind version`: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => {
            missing("kind", format!("{error}: install kind (https://kind.sigs.k8s.io), or name it in PORTOLAN_KIND"))
        }
    }
}

fn kind_version(text: &str) -> Finding {
    let version = text.split_whitespace().find_map(|word| version_pair(word.trim_start_matches('v')));
    match version {
        // The first with `kubeProxyMode: none` and several archives in one `load`.
        Some(version) if version >= (0, 14) => fine("kind", text),
        Some(_) => missing("kind", format!("{text}: needs 0.14 or newer")),
        None => warning("kind", format!("{text:?} tells no version")),
    }
}

fn image(reference: Option<&str>) -> Finding {
    let Some(reference) = reference else {
        return fine("node image", "kind's own default; kind pulls it if it is not there (--node-image names another)");
    };
    if engine::has_image(reference) {
        return fine("node image", format!("{reference} is present"));
    }
    match docker(&["pull", "--quiet", reference]) {
        Ok(_) => fine("node image", format!("{reference} was pulled")),
        Err(error) => missing("node image", format!("{reference} is not present and cannot be pulled: {error:#}")),
    }
}

fn disk() -> Finding {
    let dir = docker(&["info", "--format", "{{.DockerRootDir}}"]).unwrap_or_default();
    let dir = dir.trim();
    match nix::sys::statvfs::statvfs(dir) {
        Ok(seen) => disk_room(dir, seen.blocks_available() * seen.fragment_size()),
        Err(error) => warning("disk", format!("{dir:?}: {error}")),
    }
}

fn disk_room(dir: &str, free: u64) -> Finding {
    let text = format!("{:.1} GiB free in {dir}", free as f64 / f64::from(1 << 30));
    match free {
        free if free < DISK.0 => missing("disk", format!("{text}: three nodes need 2 GiB")),
        free if free < DISK.1 => {
            warning("disk", format!("{text}: tight, since a kubelet evicts pods from a full disk"))
        }
        _ => fine("disk", text),
    }
}

fn kernel(release: &str) -> Finding {
    let release = release.trim();
    match version_pair(release) {
        Some(version) if version >= KERNEL => fine("kernel", release),
        _ => missing("kernel", format!("{release}: needs {}.{} or newer for TCX links", KERNEL.0, KERNEL.1)),
    }
}

fn cgroups(node_image: Option<&str>) -> Vec<Finding> {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let mut found = vec![match (unified, sys::cgroup2()) {
        (true, _) => fine("cgroup", "version 2 alone"),
        (false, Ok(path)) => {
            fine("cgroup", format!("hybrid, version 2 at {}; socket LB attaches there", path.display()))
        }
        (false, Err(error)) => missing("cgroup", format!("version 1 alone: {error:#}")),
    }];
    if !unified {
        let version = node_image.and_then(kubernetes_version);
        found.push(kubelet_on_v1(version.as_deref()));
    }
    found
}

/// What the kubelet of a version does on a machine whose controllers are of cgroup v1 (KEP-4569, KEP-5573).
fn kubelet_on_v1(version: Option<&str>) -> Finding {
    let what = "kubelet";
    match version.and_then(|text| Some((text, version_pair(text.trim_start_matches('v'))?))) {
        None => {
            warning(what, "the node image tells no Kubernetes version; failCgroupV1: false is set in case it is needed")
        }
        Some((text, version)) if version < (1, 31) => fine(what, format!("{text} supports cgroup v1")),
        Some((text, version)) if version < (1, 35) => {
            fine(what, format!("{text} takes cgroup v1; failCgroupV1: false is set"))
        }
        Some((text, _)) => {
            warning(what, format!("{text} refuses cgroup v1 by itself; failCgroupV1: false is set for it"))
        }
    }
}

/// The Kubernetes version of a node image: each says it in one file.
fn kubernetes_version(image: &str) -> Option<String> {
    let args = ["run", "--rm", "--network", "none", "--entrypoint", "cat", image, "/kind/version"];
    docker(&args).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn inotify(name: &'static str, text: &str, least: u64) -> Finding {
    match text.trim().parse::<u64>() {
        Ok(limit) if limit >= least => fine("inotify", format!("fs.inotify.{name} = {limit}")),
        seen => warning(
            "inotify",
            format!(
                "fs.inotify.{name} = {}: \"too many open files\" may come of it; `sysctl fs.inotify.{name}={least}`",
                seen.map_or_else(|_| "?".to_owned(), |limit| limit.to_string())
            ),
        ),
    }
}

fn bpffs(file_systems: &str) -> Finding {
    match file_systems.lines().any(|line| line.split_whitespace().last() == Some("bpf")) {
        true => fine("bpffs", "the kernel has it"),
        false => missing("bpffs", "the kernel has no file system bpf: one with CONFIG_BPF_SYSCALL"),
    }
}

/// `1.41…` as a pair.
fn version_pair(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
