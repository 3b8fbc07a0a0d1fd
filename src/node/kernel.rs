//! What the datapath needs of the kernel's own networking.

use anyhow::{Context, Result};

use crate::sys::sysctl;

/// Sysctls of a node, below `net.`.
const WANTED: [(&str, &str); 4] = [
    // bpf_fib_lookup answers only for devices that forward.
    ("ipv4/ip_forward", "1"),
    // A node that dials its own NodePort gets the answer from its own address, by lo.
    ("ipv4/conf/lo/accept_local", "1"),
    // The kernel takes the maximum of "all" and the device's; replies of Services come by a pod's device with the
    // Service's address.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/lo/rp_filter", "0"),
];

/// Sets the sysctls of the calling thread's network namespace.
///
/// # Errors
/// With the sysctl that could not be set.
pub fn prepare() -> Result<()> {
    for (name, value) in WANTED {
        if sysctl::set(name, value).with_context(|| format!("setting net.{}", name.replace('/', ".")))? {
            tracing::info!(name, value, "set a sysctl");
        }
    }
    Ok(())
}
