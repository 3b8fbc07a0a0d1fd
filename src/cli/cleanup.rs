//! `portolan cleanup`: what the agent put on a node goes. It carries on after an error and lists all of them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::agent::{BPFFS, CNI_CONF_NAME};
use crate::sys::netlink::{Netlink, ROUTE_PROTOCOL};

/// Directories where CNI configuration and plugins lie, on the node itself and in the agent's container.
const CNI_DIRS: [(&str, &str); 4] = [
    ("/etc/cni/net.d", CNI_CONF_NAME),
    ("/host/etc/cni/net.d", CNI_CONF_NAME),
    ("/opt/cni/bin", "portolan-cni"),
    ("/host/opt/cni/bin", "portolan-cni"),
];

pub(super) fn run(dry_run: bool) -> Result<i32> {
    let mut errors = Vec::new();
    let mut done = |what: String, act: &mut dyn FnMut() -> std::io::Result<()>| {
        let outcome = if dry_run { Ok(()) } else { act() };
        match outcome {
            Ok(()) => println!("{} {what}", if dry_run { "would remove" } else { "removed" }),
            Err(error) => errors.push(format!("{what}: {error}")),
        }
    };
    // First what makes new pods, then what carries traffic.
    for (dir, name) in CNI_DIRS {
        let path = Path::new(dir).join(name);
        if path.exists() {
            done(path.display().to_string(), &mut || std::fs::remove_file(&path));
        }
    }
    for dir in [Path::new(BPFFS).join("portolan"), PathBuf::from("/run/portolan")] {
        if dir.exists() {
            done(dir.display().to_string(), &mut || empty(&dir));
        }
    }
    let mut netlink = Netlink::open()?;
    for link in netlink.links()?.into_iter().filter(|link| link.name.starts_with("lxc")) {
        done(format!("device {}", link.name), &mut || Netlink::open()?.delete_link(&link.name));
    }
    for route in netlink.routes()?.into_iter().filter(|route| route.protocol == ROUTE_PROTOCOL) {
        let what = format!("route {}/{}", route.destination, route.prefix);
        done(what, &mut || Netlink::open()?.delete_route(&route));
    }
    for error in &errors {
        eprintln!("error: {error}");
    }
    Ok(i32::from(!errors.is_empty()))
}

/// Removes a directory; where it is a mount point, what is in it.
fn empty(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(()),
        other => other,
    }
}
