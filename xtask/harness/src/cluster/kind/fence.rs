//! The fence on the host (DESIGN 17): addresses of pools are public, and containers reach whatever the machine reaches.
//! No packet to a pool may leave by another device than the cluster's own bridge; what tries is dropped and counted.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::layout::Names;
use crate::sys;

/// Addresses that belong to others on the internet: not even the host's own processes may send to them.
const PUBLIC: [&str; 2] = ["20.0.10.0/24", "30.0.10.0/24"];
/// What scenarios use besides; the host itself may have a use for it.
const TEST: &str = "198.18.0.0/15";

/// The table: `forward` sees what the nodes send by way of the host, `output` the host's own packets. Packets that stay
/// on the bridge are the cluster's own business (they pass `forward` too where bridges call netfilter).
pub(super) fn rules(names: &Names) -> String {
    let (table, bridge) = (&names.table, &names.bridge);
    let public = PUBLIC.join(", ");
    format!(
        "table inet {table} {{
    counter stopped {{
    }}
    chain forward {{
        type filter hook forward priority -300; policy accept;
        iifname \"{bridge}\" oifname != \"{bridge}\" ip daddr {{ {public}, {TEST} }} counter name \"stopped\" drop
    }}
    chain output {{
        type filter hook output priority -300; policy accept;
        oifname != \"lo\" ip daddr {{ {public} }} counter name \"stopped\" drop
    }}
}}
"
    )
}

/// Sets the fence up. One that stands already is replaced in one transaction, its counter begins again.
///
/// # Errors
/// With what nft refused.
pub(super) fn raise(names: &Names) -> Result<()> {
    let table = &names.table;
    nft(&["-f", "-"], &format!("table inet {table}\ndelete table inet {table}\n{}", rules(names))).map(|_| ())
}

/// Removes the fence, if it stands.
///
/// # Errors
/// With what nft refused.
pub(super) fn remove(names: &Names) -> Result<()> {
    let table = &names.table;
    nft(&["-f", "-"], &format!("table inet {table}\ndelete table inet {table}\n")).map(|_| ())
}

/// Packets that the fence has stopped.
///
/// # Errors
/// If the fence does not stand.
pub(super) fn stopped(names: &Names) -> Result<u64> {
    let text = nft(&["--json", "list", "counter", "inet", &names.table, "stopped"], "")
        .context("the fence on the host is gone")?;
    let seen: serde_json::Value = serde_json::from_str(&text).context("reading nft's answer")?;
    packets(&seen).with_context(|| format!("nft's answer has no counter: {seen}"))
}

fn packets(answer: &serde_json::Value) -> Option<u64> {
    answer["nftables"].as_array()?.iter().find_map(|entry| entry["counter"]["packets"].as_u64())
}

fn nft(args: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new("nft");
    let output = sys::output_of(command.args(args), input).context("running nft (install nftables)")?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{input}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;
