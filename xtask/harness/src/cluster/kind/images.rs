//! Images in the nodes: made from `images/`, one archive an image, and loaded only where a node has not that digest.

use std::path::Path;

use anyhow::{Context, Result};

use super::engine::{self, docker};
use super::layout::Names;
use crate::image;
use crate::image::archive::{self, Archived};

/// Makes the archives below `scratch`; returns each with its path.
///
/// # Errors
/// With the image that cannot be made.
pub(super) fn build(repo: &Path, bin_dir: &Path, scratch: &Path) -> Result<Vec<(Archived, std::path::PathBuf)>> {
    let mut all = Vec::new();
    for (number, content) in image::contents(repo, bin_dir)?.into_iter().enumerate() {
        let path = scratch.join(format!("image{number}.tar"));
        for image in archive::write(vec![content], &path)? {
            all.push((image, path.clone()));
        }
    }
    Ok(all)
}

/// Loads what the nodes lack, and says how many images that were.
///
/// # Errors
/// If a node cannot be asked, or refuses an image.
pub(super) async fn load(names: &Names, nodes: &[&str], images: &[(Archived, std::path::PathBuf)]) -> Result<usize> {
    let mut missing = Vec::new();
    for node in nodes {
        let listing = docker(&["exec", node, "ctr", "--namespace", "k8s.io", "images", "ls"])
            .with_context(|| format!("asking for the images of {node}"))?;
        missing.extend(images.iter().filter(|(image, _)| !present(&listing, image)).map(|(_, path)| path));
    }
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        return Ok(0);
    }
    let mut command = engine::kind_command();
    command.args(["load", "image-archive"]).args(&missing).args(["--name", &names.cluster]);
    engine::run_long(command, &names.network).await.context("loading images into the nodes")?;
    Ok(missing.len())
}

/// Whether a node's list (`REF TYPE DIGEST …`) has the image under all its names with this digest.
fn present(listing: &str, image: &Archived) -> bool {
    image.names.iter().all(|name| {
        listing.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(name.as_str()) && words.any(|word| word == image.digest)
        })
    })
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
