//! Hosts outside of the cluster: `lan`, and the router between it and the nodes' network. Both are containers that only
//! hold a network namespace; the link between them is a veth pair of ours, so that `lan` has no other way than the
//! router, and the router none but the nodes' network.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use testcontainers::core::{AccessMode, Mount};
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};

use super::super::Role;
use super::super::layout::{BY_WORKER, LAN, ROUTER_LAN, SERVICE_CIDR};
use super::super::node::TOOLS;
use super::engine::{self, Container, LABEL};
use super::layout::{Names, Node, State};
use crate::image::archive::{self, Content};
use crate::sys;

/// The network of `lan`.
const LAN_NETWORK: &str = "198.18.100.0/24";

/// Starts both containers. They are not joined to each other yet.
///
/// # Errors
/// If the engine refuses.
pub(super) async fn start(names: &Names, scratch: &Path, tools: &Path) -> Result<()> {
    let path = scratch.join("outside.tar");
    archive::write(vec![Content::empty(names.image.clone())], &path)?;
    engine::load(&path)?;
    let (lan, router) = tokio::join!(
        container(names, &names.lan, "lan", "none", tools),
        container(names, &names.router, "router", &names.network, tools),
    );
    lan.and(router)
}

async fn container(names: &Names, name: &str, hostname: &str, network: &str, tools: &Path) -> Result<()> {
    let (image, tag) = names.image.split_once(':').context("an image has a tag")?;
    let tools = tools.to_str().context("the path of the tools is not UTF-8")?;
    let request = GenericImage::new(image, tag)
        .with_entrypoint(&format!("{TOOLS}/harness"))
        .with_cmd(["hold"])
        .with_container_name(name)
        .with_hostname(hostname)
        .with_network(network)
        .with_label(LABEL, &names.cluster)
        .with_mount(Mount::bind_mount(tools, TOOLS).with_access_mode(AccessMode::ReadOnly));
    let started = request.start().await.with_context(|| format!("starting container {name}"))?;
    // It belongs to the cluster, which outlives this process; the journal answers for its removal.
    std::mem::forget(started);
    Ok(())
}

/// Joins `lan`, the router and the nodes. What is there already is made anew, so this is also how a restarted container
/// finds its place again.
///
/// # Errors
/// With the commands that `ip` refused.
pub(super) fn connect(state: &State) -> Result<()> {
    let [lan, router] = containers(&state.names)?;
    let worker = state.nodes.iter().find(|node| node.role == Role::Worker).context("a cluster has a worker")?;
    for container in [&lan, &router] {
        sysctls(container)?;
    }
    let link = format!("link add eth1 type veth peer name eth0 netns {}", lan.pid);
    let mut lines = Vec::new();
    if !has_link(&router, "eth1")? {
        lines.push(link);
    }
    lines.push(format!("addr replace {ROUTER_LAN}/24 dev eth1"));
    lines.push("link set eth1 up".to_owned());
    for cidr in BY_WORKER.iter().map(|cidr| if *cidr == SERVICE_CIDR { state.service_cidr.as_str() } else { cidr }) {
        lines.push(format!("route replace {cidr} via {}", worker.address));
    }
    ip(&router, &lines)?;
    if has_default_route(&router)? {
        // The engine's gateway leads out of the machine.
        ip(&router, &["route del default".to_owned()])?;
    }
    let lines = [
        "link set lo up".to_owned(),
        format!("addr replace {LAN}/24 dev eth0"),
        "link set eth0 up".to_owned(),
        format!("route replace default via {ROUTER_LAN}"),
    ];
    ip(&lan, &lines)?;
    let gateway = router.address.context("the router has no address on the nodes' network")?;
    let nodes: Vec<&str> = state.nodes.iter().map(|node| node.name.as_str()).collect();
    for node in engine::containers(&nodes, &state.names.network)? {
        way_back(&node, gateway)?;
    }
    Ok(())
}

/// Tells a node the way to `lan`.
fn way_back(node: &Container, router: std::net::Ipv4Addr) -> Result<()> {
    ip(node, &[format!("route replace {LAN_NETWORK} via {router}")])
}

/// Tells a node that was started again the way to `lan`.
///
/// # Errors
/// If it does not run.
pub(super) fn reconnect(state: &State, node: &Node) -> Result<()> {
    let [_, router] = containers(&state.names)?;
    let gateway = router.address.context("the router has no address on the nodes' network")?;
    for container in engine::containers(&[&node.name], &state.names.network)? {
        way_back(&container, gateway)?;
    }
    Ok(())
}

/// `lan` and the router.
///
/// # Errors
/// If one of them does not run.
pub(super) fn containers(names: &Names) -> Result<[Container; 2]> {
    let all = engine::containers(&[&names.lan, &names.router], &names.network)?;
    if let Some(stopped) = all.iter().find(|container| container.pid == 0) {
        bail!("container {} does not run", stopped.name);
    }
    <[Container; 2]>::try_from(all).ok().context("the engine did not describe two containers")
}

/// Set explicitly, since an engine may have other defaults: the router forwards, and neither filters by source.
fn sysctls(container: &Container) -> Result<()> {
    sys::in_netns(namespace(container)?, || {
        for (name, value) in [("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")] {
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)?;
        }
        Ok(())
    })
    .with_context(|| format!("setting sysctls of {}", container.name))
}

fn has_link(container: &Container, device: &str) -> Result<bool> {
    let output = run_ip(container, &["-o", "link", "show"], &[])?;
    Ok(output.lines().any(|line| line.split([':', '@', ' ']).any(|word| word == device)))
}

fn has_default_route(container: &Container) -> Result<bool> {
    Ok(!run_ip(container, &["route", "show", "default"], &[])?.trim().is_empty())
}

/// Runs `ip` commands in a container's network namespace.
fn ip(container: &Container, lines: &[String]) -> Result<()> {
    run_ip(container, &["-batch", "-"], lines).map(|_| ())
}

fn run_ip(container: &Container, args: &[&str], lines: &[String]) -> Result<String> {
    let output = sys::in_netns(namespace(container)?, || {
        sys::output_of(Command::new("ip").args(args), &(lines.join("\n") + "\n"))
    })
    .with_context(|| format!("running ip in {}", container.name))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {} in {}: {}\n{}", args.join(" "), container.name, said.trim(), lines.join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn namespace(container: &Container) -> Result<std::os::fd::OwnedFd> {
    if container.pid == 0 {
        bail!("container {} does not run", container.name);
    }
    sys::namespace_of(container.pid, "net")
}
