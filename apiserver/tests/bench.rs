//! `cargo xtask bench apiserver`: how fast, how large and how prompt the program `apiserver` is, beside a real
//! kube-apiserver with its etcd if there is one; the same load on both, in turns, in one run.
//!
//! A program of its own, not a set of tests: without arguments there is nothing to do.

#![allow(clippy::unwrap_used, reason = "test code: a server that cannot be asked ends the run")]

#[path = "bench/load.rs"]
mod load;
#[path = "bench/numbers.rs"]
mod numbers;
mod process;
#[path = "replay/program.rs"]
mod program;
#[path = "replay/real.rs"]
mod real;
#[path = "replay/server.rs"]
mod server;
#[path = "bench/subject.rs"]
mod subject;
#[path = "bench/watcher.rs"]
mod watcher;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use numbers::{Round, Table};
use subject::Subject;

/// Measures the API server, beside a real one if there is one.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask bench apiserver")]
pub(crate) struct Args {
    /// Directory with etcd and kube-apiserver; without one only ours is measured.
    #[arg(long, value_name = "DIR", env = "KUBEBUILDER_ASSETS")]
    assets: Option<PathBuf>,
    /// Services that are created.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Endpoints, in one EndpointSlice for each Service.
    #[arg(long, default_value_t = 30_000)]
    endpoints: usize,
    /// Clients that watch both, and later list both.
    #[arg(long, default_value_t = 10)]
    watchers: usize,
    /// Clients that create.
    #[arg(long, default_value_t = 8)]
    writers: usize,
    /// Changes after that, at a steady pace.
    #[arg(long, default_value_t = 1_000)]
    updates: usize,
    /// Changes a second.
    #[arg(long, default_value_t = 200)]
    pace: usize,
    /// How often each server is measured, always a fresh one.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Passed by cargo; means nothing here.
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() -> ExitCode {
    if std::env::args().len() == 1 {
        println!("skipped: `cargo xtask bench apiserver` runs this");
        return ExitCode::SUCCESS;
    }
    let args = Args::parse_from(std::env::args().filter(|argument| argument != "apiserver"));
    program::to_its_end(async { run(&args).await.map(|()| true) })
}

async fn run(args: &Args) -> Result<()> {
    ensure!(args.services > 0 && args.writers > 0 && args.watchers > 0 && args.rounds > 0, "nothing to measure");
    ensure!(args.pace > 0, "--pace is a number of changes a second");
    let assets = args.assets.as_deref();
    let assets = assets.map(|dir| dir.canonicalize().with_context(|| dir.display().to_string())).transpose()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut other = None;
    for number in 1..=args.rounds {
        ours.push(round(args, number, Subject::ours()).await?);
        if let Some(assets) = &assets {
            let real = Subject::real(assets).await?;
            other = Some(real.name.clone());
            theirs.push(round(args, number, real).await?);
        }
    }
    let mut table = Table::new(args);
    table.add("ours", &ours);
    if let Some(name) = other {
        table.add(&name, &theirs);
    }
    println!("{}", table.text());
    Ok(())
}

async fn round(args: &Args, number: usize, subject: Subject) -> Result<Round> {
    let round = load::run(args, &subject).await.with_context(|| format!("round {number} of {}", subject.name))?;
    eprintln!("round {number}, {}: {}", subject.name, round.brief());
    Ok(round)
}
