//! `portolan status`: asks the agent of this node.

use std::path::Path;

use anyhow::{Context, Result};

use super::Output;
use crate::agent::status::Status;
use crate::cni::client::{self, Request};

pub(super) fn run(output: Output) -> Result<i32> {
    let status: Status = client::ask(Path::new(crate::cni::SOCKET), &Request::Status)
        .context("asking the agent of this node for its status")?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Text => print!("{}", render(&status)),
    }
    Ok(0)
}

/// The look of the walk-through: a key, aligned, and its value.
fn render(status: &Status) -> String {
    let devices: Vec<String> = status
        .devices
        .iter()
        .enumerate()
        .map(|(number, device)| {
            let direct = if number == 0 { " (Direct Routing)" } else { "" };
            format!("{} {}{direct}", device.name, device.address)
        })
        .collect();
    let names: Vec<&str> = status.devices.iter().map(|device| device.name.as_str()).collect();
    let health = &status.cluster_health;
    let probed = health.probed.map(|at| format!("   (probed at {at} s since the epoch)")).unwrap_or_default();
    let mut lines = vec![
        ("Kubernetes", format!("Ok   {}", status.kubernetes)),
        (
            "KubeProxyReplacement",
            format!("{}   [{}]", if status.kube_proxy_replacement { "True" } else { "False" }, devices.join(", ")),
        ),
        ("Socket LB", if status.socket_lb { "Enabled" } else { "Disabled" }.to_owned()),
        ("CNI Config file", status.cni_config.clone()),
        ("Portolan", format!("Ok   {}", status.portolan)),
        ("IPAM", format!("IPv4: {}/{} allocated from {}", status.ipam_used, status.ipam_capacity, status.ipam_cidr)),
        ("Host Routing", status.host_routing.clone()),
        ("Masquerading", format!("{}   [{}]   {}", status.masquerading, names.join(", "), status.native_routing_cidr)),
        ("Attach Mode", status.attach_mode.clone()),
        ("Service frontends", status.frontends.to_string()),
        ("Controller Status", format!("{}/{} healthy", status.controllers_healthy, status.controllers_total)),
        ("Cluster health", format!("{}/{} reachable{probed}", health.reachable, health.total)),
    ];
    lines.extend(status.missing_links.iter().map(|link| ("  not attached", link.clone())));
    lines.extend(status.controllers_failing.iter().map(|line| ("  failing", line.clone())));
    lines.extend(health.failures.iter().map(|(node, reason)| ("  unreachable", format!("{node}: {reason}"))));
    lines.into_iter().map(|(key, value)| format!("{:<24} {value}\n", format!("{key}:"))).collect()
}
