//! Security contexts: what a container runs as and what it may do.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use super::DEFAULT_CAPABILITIES;
use crate::sys;

/// Names of the capabilities, by number (`linux/capability.h`).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a process of a container runs as and may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Privileges {
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) groups: Vec<u32>,
    /// Numbers of the capabilities; `None` is all there are.
    pub(crate) capabilities: Option<Vec<u8>>,
    /// No program may give more than its caller has (`allowPrivilegeEscalation: false`).
    pub(crate) no_new_privileges: bool,
}

impl Privileges {
    /// Those of a container. Images here name no user, so it is root where the pod names none.
    ///
    /// # Errors
    /// With the field that cannot be meant.
    pub(super) fn of(pod: &Pod, container: &Container) -> Result<Self> {
        let nothing = (PodSecurityContext::default(), SecurityContext::default());
        let common = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()).unwrap_or(&nothing.0);
        let own = container.security_context.as_ref().unwrap_or(&nothing.1);
        let id = |field: &str, value: Option<i64>| -> Result<Option<u32>> {
            value.map(|id| u32::try_from(id).with_context(|| format!("{field} {id} is no id"))).transpose()
        };
        let user = id("runAsUser", own.run_as_user.or(common.run_as_user))?.unwrap_or(0);
        if user == 0 && own.run_as_non_root.or(common.run_as_non_root) == Some(true) {
            bail!("container has runAsNonRoot and would run as root: runAsUser of container {} is 0", container.name);
        }
        let group = id("runAsGroup", own.run_as_group.or(common.run_as_group))?.unwrap_or(0);
        let mut groups = Vec::new();
        for extra in common.supplemental_groups.iter().flatten().chain(&common.fs_group) {
            groups.extend(id("supplementalGroups", Some(*extra))?);
        }
        let capabilities = if own.privileged == Some(true) { None } else { capabilities(own)? };
        let no_new_privileges = own.allow_privilege_escalation == Some(false);
        Ok(Self { user, group, groups, capabilities, no_new_privileges })
    }

    /// Gives the calling process these for good. It must be root with all capabilities.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn take(&self) -> Result<()> {
        let (user, group, root) = (Uid::from_raw(self.user), Gid::from_raw(self.group), Uid::from_raw(0));
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups).context("setting supplementary groups")?;
        setresgid(group, group, group).context("setting the group")?;
        // The bounding set can only be changed by root, and SETUID may not be among what is kept: so the user is the real
        // one first, which allows the step to it afterwards. That step clears all capabilities of one that is not root.
        setresuid(user, root, root).context("setting the real user")?;
        if let Some(keep) = &self.capabilities {
            sys::keep_capabilities(keep).context("dropping capabilities")?;
        }
        setresuid(user, user, user).context("setting the user")?;
        if self.no_new_privileges {
            nix::sys::prctl::set_no_new_privs().context("setting no_new_privs")?;
        }
        Ok(())
    }
}

/// The defaults, or all for `add: [ALL]`, or none for `drop: [ALL]`; then what is added, then without what is dropped.
fn capabilities(context: &SecurityContext) -> Result<Option<Vec<u8>>> {
    let nothing = Vec::new();
    let (add, drop) = match &context.capabilities {
        Some(wanted) => (wanted.add.as_ref().unwrap_or(&nothing), wanted.drop.as_ref().unwrap_or(&nothing)),
        None => (&nothing, &nothing),
    };
    let all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut kept: Vec<u8> = match (all(add), all(drop)) {
        (true, _) => (0..).take(CAPABILITIES.len()).collect(),
        (false, true) => Vec::new(),
        (false, false) => DEFAULT_CAPABILITIES.to_vec(),
    };
    for name in add.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        let number = number(name)?;
        if !kept.contains(&number) {
            kept.push(number);
        }
    }
    for name in drop.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        let number = number(name)?;
        kept.retain(|other| *other != number);
    }
    kept.sort_unstable();
    Ok(Some(kept))
}

fn number(name: &str) -> Result<u8> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let at = CAPABILITIES.iter().position(|known| *known == bare);
    at.and_then(|at| u8::try_from(at).ok()).with_context(|| format!("securityContext.capabilities: unknown {name:?}"))
}

#[cfg(test)]
#[path = "security_tests.rs"]
mod tests;
