//! `cargo xtask`: the repository's front door. It builds what a command needs, as the calling user, and hands over to
//! the harness with root where root is needed. It stays small, because everybody compiles it first.

mod build;
mod chores;
mod handover;
mod prerequisites;
mod program;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the portolan repository", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Arguments that the harness parses; its own `--help` describes them.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct Forwarded {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Make a cluster, install portolan, play the scenarios, remove everything (the main job)
    E2e(Forwarded),
    /// Make a cluster, install portolan, leave it running and print its kubeconfig
    Up(Forwarded),
    /// Remove a cluster that `up` made
    Down(Forwarded),
    /// Play scenario files on a running cluster
    Run(Forwarded),
    /// Run a command on a node, in a pod, or on the outside host: `spawn WHERE -- CMD…`
    Spawn(Forwarded),
    /// Restart a node, or cut its link and join it again: `node NAME restart|cut|join`
    Node(Forwarded),
    /// Capture packets of a node: `capture NODE -- ARGUMENTS OF TCPDUMP`
    Capture(Forwarded),
    /// Run kubectl against a running cluster
    Kubectl(Forwarded),
    /// Remove what dead runs left behind, by their journals
    Gc(Forwarded),
    /// Write portolan's images as archives: `images DIR`
    Images(Forwarded),
    /// Run the tests: tiers 1-2 need no root, tier 2 an API server, tier 3 (BPF, namespaces) root
    Test(test::TestArgs),
    /// Play requests and kubectl commands against a real API server and ours, and list what differs: `differential
    /// --assets DIR`
    Differential(Forwarded),
    /// Measure the API server, beside a real one: `bench apiserver [--assets DIR]`
    Bench(Forwarded),
    /// Rebuild the BPF object from its sources
    Ebpf {
        /// Only check that the committed object belongs to the sources
        #[arg(long)]
        check: bool,
    },
    /// Write the generated manifests (CRDs, RBAC)
    Codegen {
        /// Only check that they are up to date
        #[arg(long)]
        check: bool,
    },
    /// Check arrows between rooms, file sizes, headers, and the licences of all dependencies
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::E2e(forwarded) => handover::harness("e2e", &forwarded.args),
        Command::Up(forwarded) => handover::harness("up", &forwarded.args),
        Command::Down(forwarded) => handover::harness("down", &forwarded.args),
        Command::Run(forwarded) => handover::harness("run", &forwarded.args),
        Command::Spawn(forwarded) => handover::harness("spawn", &forwarded.args),
        Command::Node(forwarded) => handover::harness("node", &forwarded.args),
        Command::Capture(forwarded) => handover::harness("capture", &forwarded.args),
        Command::Kubectl(forwarded) => handover::harness("kubectl", &forwarded.args),
        Command::Gc(forwarded) => handover::harness("gc", &forwarded.args),
        Command::Images(forwarded) => handover::harness("images", &forwarded.args),
        Command::Test(args) => test::run(&args),
        Command::Differential(forwarded) => program::differential(&forwarded.args),
        Command::Bench(forwarded) => program::bench(&forwarded.args),
        Command::Ebpf { check } => chores::ebpf(check),
        Command::Codegen { check } => chores::codegen(check),
        Command::Tidy => tidy::run(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
