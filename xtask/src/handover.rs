//! Handing a command over to the harness: built as the calling user, run as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{build, prerequisites};

/// Environment variables that the harness reads and that `sudo` would drop.
const KEPT: [&str; 10] = [
    "KUBEBUILDER_ASSETS",
    "KIND_NODE_IMAGE",
    "PORTOLAN_KIND",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "CI",
    "NO_COLOR",
    "TERM",
    "RUST_LOG",
];

/// Builds what the harness needs and replaces this process by it.
pub(crate) fn harness(command: &str, args: &[String]) -> Result<ExitCode> {
    let wants_help = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--help" || arg == "-h");
    if !wants_help {
        let missing = prerequisites::missing(command, args);
        if !missing.is_empty() {
            eprintln!("error: `cargo xtask {command}` cannot start; missing:");
            for line in missing {
                eprintln!("  - {line}");
            }
            return Ok(ExitCode::from(3));
        }
    }
    let bin_dir = build::binaries(&build::SHIPPED)?;
    let harness = bin_dir.join("harness");
    let mut argv: Vec<OsString> = Vec::new();
    let kind = prerequisites::in_path("kind").filter(|_| std::env::var_os("PORTOLAN_KIND").is_none());
    if !prerequisites::is_root() && !wants_help && prerequisites::needs_root(command, args) {
        argv.push("sudo".into());
        argv.push(format!("--preserve-env={}", KEPT.join(",")).into());
    }
    argv.push(harness.clone().into());
    argv.push(command.into());
    argv.push("--repo".into());
    argv.push(build::repository()?.into());
    argv.push("--bin-dir".into());
    argv.push(bin_dir.into());
    argv.extend(args.iter().map(OsString::from));
    let mut program = Command::new(&argv[0]);
    program.args(&argv[1..]);
    if let Some(kind) = kind {
        // sudo has a path of its own, on which a kind in the user's home directory is not.
        program.env("PORTOLAN_KIND", kind);
    }
    let failure = program.exec();
    Err(failure).with_context(|| format!("starting {}", harness.display()))
}
