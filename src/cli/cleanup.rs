//! `portolan cleanup`: what the agent put on a node goes, and nothing else. It carries on after an error and lists all of
//! them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::agent::{BPFFS, CNI_CONF_NAME, ENDPOINTS};
use crate::cni::{self, client};
use crate::sys::netlink::{Link, Netlink, ROUTE_PROTOCOL, Route};

/// Directories where CNI configuration and plugins lie, on the node itself and in the agent's container.
const CNI_DIRS: [(&str, &str); 4] = [
    ("/etc/cni/net.d", CNI_CONF_NAME),
    ("/host/etc/cni/net.d", CNI_CONF_NAME),
    ("/opt/cni/bin", "portolan-cni"),
    ("/host/opt/cni/bin", "portolan-cni"),
];

pub(super) fn run(dry_run: bool) -> Result<i32> {
    if !dry_run && client::ask::<serde_json::Value>(Path::new(cni::SOCKET), &client::Request::Ping).is_ok() {
        bail!(
            "the agent of this node is running and would put everything back; delete its DaemonSet first \
             (`kubectl -n kube-system delete ds portolan`)"
        );
    }
    let mut errors = Vec::new();
    let mut done = |what: String, act: &mut dyn FnMut() -> std::io::Result<()>| {
        let outcome = if dry_run { Ok(()) } else { act() };
        match outcome {
            Ok(()) => println!("{} {what}", if dry_run { "would remove" } else { "removed" }),
            Err(error) => errors.push(format!("{what}: {error}")),
        }
    };
    // What tells whose a device is goes last.
    let mut netlink = Netlink::open()?;
    let routes: Vec<Route> = netlink.routes()?.into_iter().filter(|route| route.protocol == ROUTE_PROTOCOL).collect();
    let devices = pod_devices(&netlink.links()?, &routes, &endpoint_devices(Path::new(ENDPOINTS)));
    // First what makes new pods, then what carries traffic.
    for (dir, name) in CNI_DIRS {
        let path = Path::new(dir).join(name);
        if path.exists() {
            done(path.display().to_string(), &mut || std::fs::remove_file(&path));
        }
    }
    for device in devices {
        done(format!("device {device}"), &mut || Netlink::open()?.delete_link(&device));
    }
    for route in routes {
        let what = format!("route {}/{}", route.destination, route.prefix);
        done(what, &mut || Netlink::open()?.delete_route(&route));
    }
    for dir in [Path::new(BPFFS).join("portolan"), PathBuf::from("/run/portolan")] {
        if dir.exists() {
            done(dir.display().to_string(), &mut || empty(&dir));
        }
    }
    for error in &errors {
        eprintln!("error: {error}");
    }
    Ok(i32::from(!errors.is_empty()))
}

/// Names of the devices that the agent has noted as pods'.
fn endpoint_devices(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect()
}

/// The pods' devices: noted by the agent, or with one of its routes. Other CNIs use names like ours.
fn pod_devices(links: &[Link], routes: &[Route], noted: &BTreeSet<String>) -> Vec<String> {
    let routed = |link: &Link| {
        routes.iter().any(|route| route.prefix == 32 && route.gateway.is_none() && route.device == link.index)
    };
    let ours = links.iter().filter(|link| link.name.starts_with("lxc"));
    ours.filter(|link| noted.contains(&link.name) || routed(link)).map(|link| link.name.clone()).collect()
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

#[cfg(test)]
#[path = "cleanup_tests.rs"]
mod tests;
