//! Building the workspace's binaries and knowing where they lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

/// The target that `.cargo/config.toml` names; binaries lie below it.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Root of the repository.
pub(crate) fn repository() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.parent().context("the xtask package lies in the repository")?;
    if !root.join("Cargo.toml").is_file() {
        bail!("{} is not the repository any more; run `cargo xtask` from a checkout", root.display());
    }
    Ok(root.to_path_buf())
}

/// A shell in the root of the repository.
pub(crate) fn shell() -> Result<Shell> {
    let sh = Shell::new()?;
    sh.change_dir(repository()?);
    Ok(sh)
}

/// Where Cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let root = repository()?;
    Ok(match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    })
}

/// Directory of the built binaries.
pub(crate) fn bin_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join(TARGET).join("debug"))
}

/// Builds the packages and returns the directory of their binaries.
pub(crate) fn binaries(packages: &[&str]) -> Result<PathBuf> {
    let sh = shell()?;
    let cargo = cargo();
    let selection = packages.iter().flat_map(|package| ["--package", package]);
    cmd!(sh, "{cargo} build --locked --bins {selection...}")
        .quiet()
        .run()
        .with_context(|| format!("building {}", packages.join(", ")))?;
    bin_dir()
}

/// The Cargo that runs us, so that a toolchain override holds for what we start.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
