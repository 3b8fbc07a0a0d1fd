//! `cargo xtask differential`: the API server beside a real one. The work is a program among the tests of `apiserver/`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::build;

/// Plays the corpus against both; 0 if nothing differs that is not explained, else 1.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let sh = build::shell()?;
    let cargo = build::cargo();
    let program = ["--package", "apiserver", "--test", "differential"];
    let mut command =
        std::process::Command::from(cmd!(sh, "{cargo} test --quiet --locked {program...} -- {arguments...}"));
    let status = build::without_own_package(&mut command).status().context("running cargo test")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
