//! The command line.

mod bpf;
mod cleanup;
mod codegen;
mod status;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

/// LoadBalancer IPAM, an eBPF Service datapath and a CNI for Kubernetes.
#[derive(Parser)]
#[command(name = "portolan", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Form of what is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node's agent
    Agent {
        /// Configuration document
        #[arg(long, default_value_os_t = crate::agent::default_config())]
        config: PathBuf,
    },
    /// Run the operator
    Operator(crate::operator::Args),
    /// Show the state of this node, read from the kernel and measured
    Status {
        /// Form of the output
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Remove everything that the agent put on this node
    Cleanup {
        /// Only list what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Look into the BPF maps of this node
    Bpf {
        #[command(subcommand)]
        command: bpf::Command,
    },
    /// Copy this binary as the CNI plugin `portolan-cni`
    InstallCni {
        /// Directory of the node's CNI plugins
        #[arg(long)]
        bin_dir: PathBuf,
    },
    /// Write the generated manifests (CRDs, RBAC)
    Codegen {
        /// Directory of the manifests
        #[arg(long)]
        out: PathBuf,
        /// Only check that they are up to date
        #[arg(long)]
        check: bool,
    },
}

/// Parses the command line and runs the command; returns the exit code.
///
/// # Errors
/// What the command could not do.
pub fn main() -> Result<i32> {
    match Args::parse().command {
        Command::Agent { config } => runtime()?.block_on(crate::agent::run(&config)).map(|()| 0),
        Command::Operator(args) => runtime()?.block_on(crate::operator::run(&args)).map(|()| 0),
        Command::Status { output } => status::run(output),
        Command::Cleanup { dry_run } => cleanup::run(dry_run),
        Command::Bpf { command } => bpf::run(&command),
        Command::InstallCni { bin_dir } => install_cni(&bin_dir).map(|()| 0),
        Command::Codegen { out, check } => codegen::run(&out, check),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("starting the runtime")
}

/// Copies beside and renames: a plugin that is running now is not overwritten.
fn install_cni(bin_dir: &Path) -> Result<()> {
    let path = bin_dir.join("portolan-cni");
    let temporary = bin_dir.join(".portolan-cni.tmp");
    std::fs::create_dir_all(bin_dir).with_context(|| format!("creating {}", bin_dir.display()))?;
    std::fs::copy("/proc/self/exe", &temporary)
        .and_then(|_| std::fs::rename(&temporary, &path))
        .with_context(|| format!("installing {}", path.display()))
}
