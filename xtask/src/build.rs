//! Building the workspace's binaries and knowing where they lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

/// The target that `.cargo/config.toml` names; binaries lie below it.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What goes into clusters. Always built together: Cargo unifies features over what it builds at once, and another
/// selection would compile some dependencies a second time.
pub(crate) const SHIPPED: [&str; 4] = ["portolan", "nettool", "harness", "apiserver"];

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
    let mut command = std::process::Command::from(cmd!(sh, "{cargo} build --locked --bins {selection...}"));
    let status = without_own_package(&mut command).status().context("running cargo build")?;
    if !status.success() {
        bail!("building {} failed", packages.join(", "));
    }
    bin_dir()
}

/// `cargo run` describes this package in the environment. Build scripts of others would take that for a change of
/// theirs, and compile anew whenever somebody alternates between `cargo` and `cargo xtask`.
pub(crate) fn without_own_package(command: &mut std::process::Command) -> &mut std::process::Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// The Cargo that runs us, so that a toolchain override holds for what we start.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
