//! Volumes whose files the kubelet writes. They change all at once: names are links to `..data/NAME`, and `..data` is a link
//! to a directory that is never changed, replaced by a rename, as a real kubelet does it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, chown};

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) content: Vec<u8>,
    /// Permission bits.
    pub(super) mode: u32,
}

/// Files by their path within the volume.
pub(super) type Payload = BTreeMap<PathBuf, File>;

/// A path within a volume.
///
/// # Errors
/// If it leads out of the volume or into what the kubelet uses itself.
pub(super) fn path(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    if !plain || text.is_empty() || text.starts_with("..") {
        bail!("{text:?} is no path within a volume");
    }
    Ok(path)
}

/// Whether something is mounted at a directory.
///
/// # Errors
/// If it cannot be looked at.
pub(super) fn is_mount(dir: &Path) -> Result<bool> {
    let device = |path: &Path| -> Result<u64> {
        Ok(fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?.dev())
    };
    let parent = dir.parent().context("the root has no parent")?;
    Ok(device(dir)? != device(parent)?)
}

/// Makes the volume hold these files and no others; they belong to the group, if one is given, which may read them.
///
/// # Errors
/// With the file that cannot be written.
pub(super) fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> Result<()> {
    let data = dir.join("..data");
    let before = fs::read_link(&data).ok();
    let number: u64 = match &before {
        Some(name) => name.to_string_lossy().trim_start_matches("..").parse::<u64>().unwrap_or(0) + 1,
        None => 1,
    };
    let fresh = dir.join(format!("..{number}"));
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("removing {}", fresh.display()))?;
    }
    fs::create_dir(&fresh).with_context(|| format!("creating {}", fresh.display()))?;
    own(&fresh, 0o755, group)?;
    for (path, file) in payload {
        let mut parent = fresh.clone();
        for name in path.parent().into_iter().flat_map(Path::components) {
            parent.push(name);
            if !parent.exists() {
                fs::create_dir(&parent).with_context(|| format!("creating {}", parent.display()))?;
                own(&parent, 0o755, group)?;
            }
        }
        let path = fresh.join(path);
        fs::write(&path, &file.content).with_context(|| format!("writing {}", path.display()))?;
        own(&path, if group.is_some() { file.mode | 0o440 } else { file.mode }, group)?;
    }
    let link = dir.join("..data_tmp");
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    symlink(format!("..{number}"), &link).with_context(|| format!("linking {}", link.display()))?;
    fs::rename(&link, &data).with_context(|| format!("renaming to {}", data.display()))?;
    links(dir, payload)?;
    match before {
        Some(old) => fs::remove_dir_all(dir.join(old)).context("removing the files of before"),
        None => Ok(()),
    }
}

/// One link for each first name in the payload.
fn links(dir: &Path, payload: &Payload) -> Result<()> {
    let names: BTreeSet<_> = payload.keys().filter_map(|path| path.components().next()).collect();
    for name in &names {
        let link = dir.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), &link).with_context(|| format!("linking {}", link.display()))?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?.file_name();
        let wanted = names.iter().any(|name| name.as_os_str() == entry) || entry.to_string_lossy().starts_with("..");
        if !wanted {
            fs::remove_file(dir.join(&entry)).with_context(|| format!("removing {}", entry.display()))?;
        }
    }
    Ok(())
}

fn own(path: &Path, mode: u32, group: Option<u32>) -> Result<()> {
    if let Some(group) = group {
        chown(path, None, Some(Gid::from_raw(group))).with_context(|| format!("group of {}", path.display()))?;
    }
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, permissions).with_context(|| format!("permissions of {}", path.display()))
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
