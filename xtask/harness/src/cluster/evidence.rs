//! What every provider collects in the same way when a step has failed.

use std::path::{Path, PathBuf};

use super::{Cluster, Place};

/// What the kernel tells of a namespace's network by itself.
const PROC_NET: [&str; 8] = [
    "/proc/net/dev",
    "/proc/net/fib_trie",
    "/proc/net/route",
    "/proc/net/arp",
    "/proc/net/tcp",
    "/proc/net/udp",
    "/proc/net/snmp",
    "/proc/net/netstat",
];

/// Links, addresses, routes, neighbours and sockets of each node, below `dest/nodes/NAME`.
pub(super) fn nodes(cluster: &dyn Cluster, dest: &Path, errors: &mut Vec<String>) {
    for node in cluster.nodes() {
        let out = dest.join("nodes").join(&node.name);
        if let Err(error) = std::fs::create_dir_all(&out) {
            errors.push(format!("{}: {error}", out.display()));
            continue;
        }
        for (file, argv) in [
            ("links.txt", vec!["ip", "-d", "link"]),
            ("addresses.txt", vec!["ip", "addr"]),
            ("routes.txt", vec!["ip", "route", "show", "table", "all"]),
            ("neighbours.txt", vec!["ip", "neigh"]),
            ("sockets.txt", vec!["ss", "-tuanp"]),
            // Where iproute2 is missing, and for what it does not show.
            ("proc-net.txt", [vec!["tail", "-n", "+1"], PROC_NET.to_vec()].concat()),
        ] {
            let argv: Vec<String> = argv.into_iter().map(str::to_owned).collect();
            let output = cluster.command(&Place::Node(node.name.clone()), &argv).and_then(|mut c| Ok(c.output()?));
            match output {
                Ok(output) => errors.extend(std::fs::write(out.join(file), output.stdout).err().map(|e| e.to_string())),
                Err(error) => errors.push(format!("{file} of {}: {error:#}", node.name)),
            }
        }
    }
}

/// Copies a tree of logs.
pub(super) fn copy_logs(from: &Path, to: &Path, errors: &mut Vec<String>) {
    let copy = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(to)?;
        let mut dirs = Vec::new();
        for entry in std::fs::read_dir(from)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Some(name) = path.file_name() {
                std::fs::copy(&path, to.join(name))?;
            }
        }
        Ok(dirs)
    };
    match copy() {
        Ok(dirs) => {
            for sub in dirs {
                if let Some(name) = sub.file_name() {
                    copy_logs(&sub, &to.join(name), errors);
                }
            }
        }
        Err(error) => errors.push(format!("{}: {error}", from.display())),
    }
}
