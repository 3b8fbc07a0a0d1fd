//! `cargo xtask differential`: every script and every list of kubectl commands, played against a real kube-apiserver and
//! against ours in one run. Differences are printed; those without an explanation in `explained.txt` fail it.
//!
//! A program of its own, not a set of tests: without arguments there is nothing to do.

#![allow(clippy::unwrap_used, reason = "test code: a broken script or recording ends the test")]

#[path = "replay/compare.rs"]
mod compare;
#[path = "replay/explained.rs"]
mod explained;
#[path = "replay/listen.rs"]
mod listen;
#[path = "replay/player.rs"]
mod player;
#[path = "replay/program.rs"]
mod program;
#[path = "replay/real.rs"]
mod real;
#[path = "replay/server.rs"]
mod server;
#[path = "replay/story.rs"]
mod story;
#[path = "replay/transcript.rs"]
mod transcript;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::{Value, json};

use compare::Comparison;
use explained::{Explained, Verdict};
use real::RealServer;
use server::Server;
use transcript::Kubectl;

/// Plays requests and kubectl commands against a real kube-apiserver and against ours, and prints what differs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask differential")]
struct Args {
    /// Directory with etcd and kube-apiserver.
    #[arg(long, value_name = "DIR", env = "KUBEBUILDER_ASSETS")]
    assets: Option<PathBuf>,
    /// Another folder with `corpus/*.yaml` and `kubectl/*.cmds`; may be given several times.
    #[arg(long, value_name = "DIR")]
    corpus: Vec<PathBuf>,
    /// A kubectl; may be given several times. The one in the assets if none is.
    #[arg(long, value_name = "FILE")]
    kubectl: Vec<PathBuf>,
    /// Only scripts and lists whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Write what the real server answered into the recordings of our own corpus.
    #[arg(long)]
    record: bool,
    /// Passed by cargo; means nothing here.
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() -> ExitCode {
    if std::env::args().len() == 1 {
        println!("skipped: `cargo xtask differential --assets DIR` runs this");
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    program::to_its_end(run(&args))
}

/// Files of a folder with this extension whose name is asked for, sorted.
fn files(dir: &Path, extension: &str, only: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|found| found == extension) && stem(path).contains(only))
        .collect();
    files.sort();
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

async fn run(args: &Args) -> Result<bool> {
    let assets =
        args.assets.as_deref().context("--assets DIR (or KUBEBUILDER_ASSETS) names etcd and kube-apiserver")?;
    let assets = assets.canonicalize().with_context(|| assets.display().to_string())?;
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let explained = Explained::parse(&std::fs::read_to_string(own.join("explained.txt"))?);
    let roots: Vec<PathBuf> = std::iter::once(own).chain(args.corpus.iter().cloned()).collect();
    let named = if args.kubectl.is_empty() { vec![assets.join("kubectl")] } else { args.kubectl.clone() };
    let kubectls = named.iter().map(|path| Kubectl::at(path)).collect::<Result<Vec<_>>>()?;
    let mut verdict = Verdict::default();
    for root in &roots {
        let own = root == &roots[0];
        let scripts = files(&root.join("corpus"), "yaml", &args.only);
        if !scripts.is_empty() {
            let real = RealServer::start(&assets).await?;
            eprintln!("{}: {} scripts against {}", root.display(), scripts.len(), real.version()?);
            for script in &scripts {
                let report = play_both(script, &real.server, (own && args.record).then_some(root)).await?;
                print_count(&stem(script), &report);
                explained.judge(&report, &mut verdict);
            }
        }
        for list in files(&root.join("kubectl"), "cmds", &args.only) {
            for kubectl in &kubectls {
                let report = run_both(&list, kubectl, &assets, own && args.record).await?;
                print_count(&format!("{} with kubectl {}", stem(&list), kubectl.version), &report);
                explained.judge(&report, &mut verdict);
            }
        }
    }
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories"), "yaml", &args.only) {
        let report = tell_both(&path, &assets, args.record).await?;
        print_count(&format!("story {}", stem(&path)), &report);
        explained.judge(&report, &mut verdict);
    }
    println!("{}", verdict.text());
    anyhow::ensure!(verdict.steps > 0, "nothing was played: no script and no list is called like {:?}", args.only);
    Ok(verdict.is_good())
}

fn print_count(name: &str, report: &[(String, Vec<String>)]) {
    let equal = report.iter().filter(|(_, differences)| differences.is_empty()).count();
    eprintln!("{name}: {equal} of {} steps are equal", report.len());
}

/// Plays a script against both; the real server's answers are what ours are compared with.
async fn play_both(script: &Path, real: &Server, record: Option<&PathBuf>) -> Result<Vec<(String, Vec<String>)>> {
    let (name, text) = (stem(script), std::fs::read_to_string(script)?);
    let both = tokio::join!(player::play(&text, real.clone()), player::play(&text, Server::ours()));
    let (theirs, ours) = both;
    if let Some(root) = record {
        write_recording(&root.join("recorded").join(format!("{name}.jsonl")), &theirs)?;
    }
    let mut comparison = Comparison::new(&text);
    let mut report = Vec::new();
    for (step, record) in &theirs {
        let differences = match ours.get(step) {
            Some(seen) => comparison.exchange(record, seen),
            None => vec!["was not played".into()],
        };
        report.push((format!("{name}: {step}"), differences));
    }
    Ok(report)
}

fn write_recording(path: &Path, records: &std::collections::BTreeMap<String, Value>) -> Result<()> {
    let mut text = String::new();
    for (step, record) in records {
        let mut line = record.clone();
        line["step"] = json!(step);
        text += &format!("{line}\n");
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Plays a story against a real server with kube-controller-manager and kube-scheduler, and against ours.
async fn tell_both(path: &Path, assets: &Path, record: bool) -> Result<Vec<(String, Vec<String>)>> {
    let text = std::fs::read_to_string(path)?;
    let real = RealServer::start(assets).await?;
    real.start_controllers(story::Setting::of(&text).node_grace)?;
    let played = player::play(&text, real.server.clone()).await;
    drop(real);
    let unsettled = story::unsettled(&played);
    anyhow::ensure!(unsettled.is_empty(), "{}: what is waited for did not come: {unsettled:?}", path.display());
    let theirs = story::kept(&played);
    if record {
        let lines: String = theirs.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(path.with_extension("jsonl"), lines)?;
    }
    let ours = story::play_ours(&text).await;
    Ok(story::compare(&format!("story {}", stem(path)), &text, &theirs, &ours))
}

/// Runs a list of kubectl commands against both, each on a server that nobody has used yet.
async fn run_both(list: &Path, kubectl: &Kubectl, assets: &Path, record: bool) -> Result<Vec<(String, Vec<String>)>> {
    let real = RealServer::start(assets).await?;
    let theirs = run_list(kubectl, list, &real.kubeconfig).await?;
    drop(real);
    let dir = std::env::temp_dir().join(format!("differential-ours-{:016x}", fastrand::u64(..)));
    let kubeconfig = listen::ours(&dir).await?;
    let ours = run_list(kubectl, list, &kubeconfig).await;
    std::fs::remove_dir_all(&dir)?;
    if record {
        std::fs::write(list.with_extension(format!("{}.txt", kubectl.version)), transcript::write(&theirs))?;
    }
    Ok(transcript::compare(&format!("{}.{}", stem(list), kubectl.version), &theirs, &ours?))
}

async fn run_list(kubectl: &Kubectl, list: &Path, kubeconfig: &Path) -> Result<Vec<transcript::Entry>> {
    let (kubectl, list, kubeconfig) = (kubectl.clone(), list.to_path_buf(), kubeconfig.to_path_buf());
    tokio::task::spawn_blocking(move || kubectl.run(&list, &kubeconfig)).await?
}
