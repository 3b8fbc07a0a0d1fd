//! `cargo xtask differential` and `cargo xtask bench`: programs among the tests of `apiserver/`, which take arguments.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::build;

/// Plays the corpus against a real API server and ours; 0 if nothing differs that is not explained, else 1.
pub(crate) fn differential(arguments: &[String]) -> Result<ExitCode> {
    run("differential", arguments)
}

/// Measures what the first argument names.
pub(crate) fn bench(arguments: &[String]) -> Result<ExitCode> {
    match arguments.first().map(String::as_str) {
        Some("apiserver") => run("bench", arguments),
        Some(other) => bail!("`cargo xtask bench {other}`: only `apiserver` can be measured"),
        None => bail!("`cargo xtask bench apiserver [--assets DIR]` measures the API server, beside a real one"),
    }
}

/// The whole workspace is named, so that dependencies are compiled with the same features as for everything else.
fn run(name: &str, arguments: &[String]) -> Result<ExitCode> {
    let sh = build::shell()?;
    let cargo = build::cargo();
    let program = ["--workspace", "--test", name];
    let mut command =
        std::process::Command::from(cmd!(sh, "{cargo} test --quiet --locked {program...} -- {arguments...}"));
    let status = build::without_own_package(&mut command).status().context("running cargo test")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
