//! `cargo xtask test`: the tiers of proof, each named, run or skipped with its reason; but for whole scenarios, which `cargo
//! xtask e2e` plays.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::{build, prerequisites};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Tiers that must run; a skipped one of these is a failure (CI names them)
    #[arg(long, value_delimiter = ',')]
    require: Vec<u8>,
    /// Tiers to run; all if none is named
    #[arg(long, value_delimiter = ',')]
    only: Vec<u8>,
}

/// How the names of tests against a real API server end.
const LIVE: &str = "_live";

/// How the names of tests of real kind end.
const KIND: &str = "_kind";

/// Integration tests that want neither root nor a real API server: the simulation, and those of `apiserver/`.
const PURE: &[&str] = &[
    "simulation",
    "replay",
    "controllers",
    "stories",
    "kubelet_proxy",
    "kubectl",
    "certificates",
    "access",
    "audit",
    "durability",
];

/// One tier of the ladder of proof.
struct Tier {
    number: u8,
    name: &'static str,
    /// Arguments for `cargo test`.
    selection: Vec<String>,
    /// Why it cannot run here.
    skip: Option<String>,
}

/// Runs all tiers and sums up.
pub(crate) fn run(args: &TestArgs) -> Result<ExitCode> {
    let mut tiers = tiers()?;
    // Tests of whole clusters take the binaries that ship.
    build::binaries(&build::SHIPPED)?;
    let mut named = args.require.iter().chain(&args.only);
    if let Some(unknown) = named.find(|number| tiers.iter().all(|tier| tier.number != **number)) {
        bail!(
            "there is no tier {unknown}: `cargo xtask test` has the tiers 1, 2, 3 and 6; `cargo xtask e2e` plays the others"
        );
    }
    for tier in tiers.iter_mut().filter(|tier| !args.only.is_empty() && !args.only.contains(&tier.number)) {
        tier.skip = Some("--only leaves it out".to_owned());
    }
    let mut summary = Vec::new();
    let mut failed = false;
    for tier in tiers {
        let verdict = match &tier.skip {
            None => {
                eprintln!("== tier {}: {}", tier.number, tier.name);
                let passed = cargo_test(&tier.selection)?;
                failed |= !passed;
                if passed { "passed".to_owned() } else { "FAILED".to_owned() }
            }
            Some(reason) if args.require.contains(&tier.number) => {
                failed = true;
                format!("FAILED: it must run here, but {reason}")
            }
            Some(reason) => format!("skipped: {reason}"),
        };
        summary.push(format!("tier {} ({}): {verdict}", tier.number, tier.name));
    }
    for line in summary {
        println!("{line}");
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn tiers() -> Result<Vec<Tier>> {
    let needs_root = (!prerequisites::is_root()).then(|| "it needs root (namespaces, BPF)".to_owned());
    let (live, others): (Vec<_>, Vec<_>) = integration_tests()?.into_iter().partition(|name| name.ends_with(LIVE));
    let (kind, rooted): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| name.ends_with(KIND));
    let named = PURE.iter().flat_map(|name| ["--test", name]);
    Ok(vec![
        Tier {
            number: 1,
            name: "unit, property, simulation and replay",
            selection: ["--workspace", "--lib", "--bins", "--example", "controller"]
                .into_iter()
                .chain(named)
                .map(str::to_owned)
                .collect(),
            skip: None,
        },
        Tier { number: 2, name: "against a real API server", selection: one_by_one(live), skip: no_assets() },
        Tier { number: 3, name: "BPF and namespaces", selection: one_by_one(rooted), skip: needs_root.clone() },
        Tier { number: 6, name: "real kind", selection: one_by_one(kind), skip: needs_root.or_else(no_kind) },
    ])
}

/// Why tests of real kind cannot run here. The node image must be named and present: without that, a test would pull one
/// of a gigabyte.
fn no_kind() -> Option<String> {
    let says = |program: &std::ffi::OsStr, args: &[&str]| {
        std::process::Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
    };
    let kind = std::env::var_os("PORTOLAN_KIND").unwrap_or_else(|| "kind".into());
    if !says(&kind, &["version"]) {
        return Some("there is no kind: install it, or name it in PORTOLAN_KIND".to_owned());
    }
    if !says("docker".as_ref(), &["version"]) {
        return Some("no Docker engine answers (`docker version`)".to_owned());
    }
    let Some(image) = std::env::var("KIND_NODE_IMAGE").ok() else {
        return Some("KIND_NODE_IMAGE names no node image".to_owned());
    };
    let present = says("docker".as_ref(), &["image", "inspect", &image]);
    (!present).then(|| format!("the engine has no image {image} (KIND_NODE_IMAGE); `docker pull` it"))
}

/// Arguments that run these integration tests one after the other: they share the machine, and two at once would blur each
/// other's timing.
fn one_by_one(names: Vec<String>) -> Vec<String> {
    let tests = names.into_iter().flat_map(|name| ["--test".to_owned(), name]);
    let options = ["--", "--test-threads=1", "--nocapture"].map(str::to_owned);
    std::iter::once("--workspace".to_owned()).chain(tests).chain(options).collect()
}

/// Why tests against a real API server cannot run here.
fn no_assets() -> Option<String> {
    let Some(dir) = std::env::var_os("KUBEBUILDER_ASSETS").map(std::path::PathBuf::from) else {
        return Some("KUBEBUILDER_ASSETS does not name a directory with etcd, kube-apiserver and kubectl".to_owned());
    };
    let missing = ["etcd", "kube-apiserver", "kubectl"].into_iter().find(|name| !dir.join(name).is_file())?;
    Some(format!("KUBEBUILDER_ASSETS={} has no {missing}", dir.display()))
}

/// Integration tests: every `tests/*.rs` of the product and of the harness. Those whose name ends in `_live` want a real
/// API server, in `_kind` an engine with kind, the others root.
fn integration_tests() -> Result<Vec<String>> {
    let root = build::repository()?;
    let mut names = Vec::new();
    for dir in [root.join("tests"), root.join("xtask/harness/tests")] {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.with_context(|| format!("reading {}", dir.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "rs")
                && let Some(stem) = path.file_stem()
            {
                names.push(stem.to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}

fn cargo_test(selection: &[String]) -> Result<bool> {
    let sh = build::shell()?;
    let cargo = build::cargo();
    let mut command = std::process::Command::from(cmd!(sh, "{cargo} test --locked --no-fail-fast {selection...}"));
    let status = build::without_own_package(&mut command).status().context("running cargo test")?;
    Ok(status.success())
}
