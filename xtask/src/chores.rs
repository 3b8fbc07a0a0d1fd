//! Small chores around generated files.

use std::process::ExitCode;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::build;

/// Rebuilds the BPF object, or checks that the committed one belongs to the sources.
pub(crate) fn ebpf(check: bool) -> Result<ExitCode> {
    let sh = build::shell()?;
    let flag = check.then_some("--check");
    let done = cmd!(sh, "bash ebpf/build.sh {flag...}").quiet().ignore_status().output();
    let output = done.context("running ebpf/build.sh")?;
    Ok(pass_on(&output))
}

/// Writes the generated manifests, or checks that they are up to date.
pub(crate) fn codegen(check: bool) -> Result<ExitCode> {
    let portolan = build::binaries(&build::SHIPPED)?.join("portolan");
    let sh = build::shell()?;
    let flag = check.then_some("--check");
    let output = cmd!(sh, "{portolan} codegen --out manifests {flag...}")
        .quiet()
        .ignore_status()
        .output()
        .context("running `portolan codegen`")?;
    Ok(pass_on(&output))
}

/// Prints a finished child's output where it belongs and turns its status into ours.
fn pass_on(output: &std::process::Output) -> ExitCode {
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    if output.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
