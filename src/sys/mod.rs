//! The kernel: netlink, namespaces, bpf(2), cgroups. Blocking, without tokio, and the only room with `unsafe`.
#![allow(unsafe_code, reason = "system calls that no safe wrapper of our dependencies covers")]

pub mod abi;
pub mod bpf;
pub mod cgroup;
pub mod netlink;
pub mod netns;
pub mod sysctl;
