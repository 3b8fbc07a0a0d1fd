//! What must be there before anything is built or started. All that is missing is named at once, with the way out; the
//! harness looks at the kernel itself, since that may need root.

use std::path::{Path, PathBuf};

/// Programs of a real control plane.
const CONTROL_PLANE: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Commands that make a cluster, and so may be told to take a real control plane.
const MAKES_A_CLUSTER: [&str; 2] = ["e2e", "up"];

/// True if this process runs as root.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_uid(&status) == Some(0))
}

/// Whether the harness must run as root for a command: what it does with a cluster of somebody else's, by a kubeconfig of
/// the user's, it does as the user.
pub(crate) fn needs_root(command: &str, args: &[String]) -> bool {
    command != "images" && value_of(args, "--provider") != Some("existing")
}

/// The effective uid in the text of `/proc/PID/status` (second number of the `Uid:` line, proc(5)).
fn effective_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// Everything that `command` needs and that is not there, one line each.
pub(crate) fn missing(command: &str, args: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    if !cfg!(target_os = "linux") {
        lines.push("Linux: clusters are made of namespaces of its kernel".to_owned());
    }
    if in_path("cc").is_none() {
        lines.push("a C compiler (`cc`): install gcc, for example `apt-get install gcc libc6-dev`".to_owned());
    }
    if !is_root() && needs_root(command, args) && in_path("sudo").is_none() {
        lines.push("root: run as root, or install sudo".to_owned());
    }
    // kind brings its own control plane, and `auto` decides by what is there; the harness looks at what they need.
    if MAKES_A_CLUSTER.contains(&command) && value_of(args, "--provider").is_none_or(|provider| provider == "netns") {
        lines.extend(missing_control_plane(args));
    }
    lines
}

/// Programs that are absent from the directory that `--control-plane` names. Without it nothing is needed: the API server
/// is our own, whatever KUBEBUILDER_ASSETS says.
fn missing_control_plane(args: &[String]) -> Vec<String> {
    let Some(dir) = value_of(args, "--control-plane").map(Path::new) else { return Vec::new() };
    let absent: Vec<&str> = CONTROL_PLANE.iter().copied().filter(|name| !dir.join(name).is_file()).collect();
    if absent.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "{} in {} (from --control-plane); `setup-envtest use -p path` brings etcd and kube-apiserver, a Kubernetes server \
         release the other two",
        absent.join(", "),
        dir.display()
    )]
}

/// The value of an option, as `--name value` or `--name=value`.
fn value_of<'a>(args: &'a [String], option: &str) -> Option<&'a str> {
    let mut rest = args.iter().take_while(|arg| *arg != "--");
    while let Some(arg) = rest.next() {
        if arg == option {
            return rest.next().map(String::as_str);
        }
        if let Some(value) = arg.strip_prefix(option).and_then(|tail| tail.strip_prefix('=')) {
            return Some(value);
        }
    }
    None
}

/// The program's path, if it is in `PATH`.
pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| is_file(candidate))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
#[path = "prerequisites_tests.rs"]
mod tests;
