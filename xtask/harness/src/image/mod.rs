//! Images: `images/NAME/image.toml` says which files. A cluster of namespaces gets them as a directory, a cluster of
//! containers as an archive.

pub(crate) mod archive;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// `image.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    names: Vec<String>,
    entrypoint: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    files: Vec<FileSource>,
}

/// A file of an image.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSource {
    /// `bin:NAME`, a built binary, or a path beside `image.toml`.
    source: String,
    dest: PathBuf,
    mode: u32,
}

impl FileSource {
    /// The file that is copied.
    fn from(&self, dir: &Path, bin_dir: &Path) -> PathBuf {
        match self.source.strip_prefix("bin:") {
            Some(name) => bin_dir.join(name),
            None => dir.join(&self.source),
        }
    }

    /// Its place, without the leading `/`.
    fn inside(&self) -> Result<&Path> {
        self.dest.strip_prefix("/").with_context(|| format!("dest {} is not absolute", self.dest.display()))
    }
}

/// Directories that every root has, for mounts.
const EMPTY_DIRS: [&str; 6] = ["proc", "sys", "dev", "tmp", "etc", "run"];

/// What a container needs to know of its image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    /// References that mean this image.
    pub(crate) names: Vec<String>,
    /// Program and arguments.
    pub(crate) entrypoint: Vec<String>,
    /// Environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Root file system; filled in when it is found.
    #[serde(default)]
    pub(crate) rootfs: PathBuf,
}

/// Makes all images of the repository below `dest`.
///
/// # Errors
/// With the file that cannot be understood or is missing.
pub(crate) fn materialize(repo: &Path, bin_dir: &Path, dest: &Path) -> Result<()> {
    for (dir, source) in sources(repo)? {
        let name = dir.file_name().context("an image directory has a name")?;
        one(&dir, source, bin_dir, &dest.join(name)).with_context(|| format!("in {}", dir.display()))?;
    }
    Ok(())
}

/// All images of the repository as the content of an archive.
///
/// # Errors
/// With the file that cannot be understood.
pub(crate) fn contents(repo: &Path, bin_dir: &Path) -> Result<Vec<archive::Content>> {
    let of = |(dir, source): (PathBuf, Source)| {
        archive::Content::of(&dir, source, bin_dir).with_context(|| format!("in {}", dir.display()))
    };
    sources(repo)?.into_iter().map(of).collect()
}

/// Each `image.toml` of the repository with its directory, in order of their names.
fn sources(repo: &Path) -> Result<Vec<(PathBuf, Source)>> {
    let images = repo.join("images");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&images).with_context(|| format!("reading {}", images.display()))? {
        let dir = entry?.path();
        let path = dir.join("image.toml");
        if path.is_file() {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let source = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
            all.push((dir, source));
        }
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(all)
}

fn one(dir: &Path, source: Source, bin_dir: &Path, dest: &Path) -> Result<()> {
    let rootfs = dest.join("rootfs");
    for file in &source.files {
        let from = file.from(dir, bin_dir);
        let to = rootfs.join(file.inside()?);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(&from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(file.mode))?;
    }
    for empty in EMPTY_DIRS {
        std::fs::create_dir_all(rootfs.join(empty))?;
    }
    let image = Image { names: source.names, entrypoint: source.entrypoint, env: source.env, rootfs: PathBuf::new() };
    std::fs::write(dest.join("config.json"), serde_json::to_vec_pretty(&image)?)?;
    Ok(())
}

/// The image that a reference means.
///
/// # Errors
/// If no image has that name, with those there are.
pub(crate) fn find(images: &Path, reference: &str) -> Result<Image> {
    let wanted = normalize(reference);
    let mut known = Vec::new();
    for entry in std::fs::read_dir(images).with_context(|| format!("reading {}", images.display()))? {
        let dir = entry?.path();
        let mut image: Image = serde_json::from_slice(&std::fs::read(dir.join("config.json"))?)?;
        if image.names.iter().any(|name| normalize(name) == wanted) {
            image.rootfs = dir.join("rootfs");
            return Ok(image);
        }
        known.append(&mut image.names);
    }
    bail!("image {reference:?} is not present; present are {}", known.join(", "))
}

/// The full form of a reference: registry and tag written out.
fn normalize(reference: &str) -> String {
    let (first, rest) = reference.split_once('/').unwrap_or(("", reference));
    let has_registry = first.contains('.') || first.contains(':') || first == "localhost";
    let full = if has_registry {
        reference.to_owned()
    } else if first.is_empty() {
        format!("docker.io/library/{rest}")
    } else {
        format!("docker.io/{reference}")
    };
    let name = full.rsplit('/').next().unwrap_or(&full);
    if name.contains(':') { full } else { format!("{full}:latest") }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
