//! `cargo xtask test`: the tiers of proof, each named, run or skipped with its reason; but for whole scenarios, which `cargo
//! xtask e2e` plays.

use std::path::Path;
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

/// Integration tests of the product that want neither root nor a real API server.
const PURE: [&str; 1] = ["simulation"];

/// Files in `apiserver/tests` that are no tests but programs with arguments, which commands of `cargo xtask` run.
const PROGRAMS: [&str; 2] = ["differential", "bench"];

/// Names the file in which tests note what they left out, a line each.
const SKIPS: &str = "XTASK_SKIPS";

/// One tier of the ladder of proof.
struct Tier {
    number: u8,
    name: &'static str,
    /// Arguments for each run of `cargo test`.
    selections: Vec<Vec<String>>,
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
                let mut skips = Vec::new();
                let mut passed = true;
                for selection in &tier.selections {
                    passed &= cargo_test(selection, &mut skips)?;
                }
                let verdict = verdict(passed, &skips, args.require.contains(&tier.number));
                failed |= verdict.starts_with("FAILED");
                verdict
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

/// What came of a tier that ran. What its tests left out is told; where the tier must run, nothing may be left out.
fn verdict(passed: bool, skips: &[String], required: bool) -> String {
    let skips = skips.join("; ");
    match (passed, skips.as_str()) {
        (false, "") => "FAILED".to_owned(),
        (false, skips) => format!("FAILED, and skipped: {skips}"),
        (true, "") => "passed".to_owned(),
        (true, skips) if required => format!("FAILED: it must run here, but skipped: {skips}"),
        (true, skips) => format!("passed, but skipped: {skips}"),
    }
}

fn tiers() -> Result<Vec<Tier>> {
    let needs_root = (!prerequisites::is_root()).then(|| "it needs root (namespaces, BPF)".to_owned());
    let root = build::repository()?;
    let mut product = test_names(&root.join("tests"))?;
    let pure = take(&mut product, &PURE, "tests")?;
    let mut library = test_names(&root.join("apiserver/tests"))?;
    take(&mut library, &PROGRAMS, "apiserver/tests")?;
    let others = [product, test_names(&root.join("xtask/harness/tests"))?].concat();
    let (live, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| name.ends_with(LIVE));
    let (kind, rooted): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| name.ends_with(KIND));
    let named = pure.into_iter().chain(library).flat_map(|name| ["--test".to_owned(), name]);
    let unit = ["--workspace", "--lib", "--bins", "--examples"].map(str::to_owned).into_iter().chain(named);
    let doc = ["--workspace", "--doc"].map(str::to_owned);
    Ok(vec![
        Tier {
            number: 1,
            name: "unit, property, documentation, simulation and replay",
            selections: vec![unit.collect(), doc.to_vec()],
            skip: None,
        },
        Tier { number: 2, name: "against a real API server", selections: vec![one_by_one(live)], skip: no_assets() },
        Tier { number: 3, name: "BPF and namespaces", selections: vec![one_by_one(rooted)], skip: needs_root.clone() },
        Tier { number: 6, name: "real kind", selections: vec![one_by_one(kind)], skip: needs_root.or_else(no_kind) },
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

/// The integration tests of a directory, as Cargo finds them: every `NAME.rs` and every `NAME/main.rs`. Those of the product
/// and the harness whose name ends in `_live` want a real API server, in `_kind` an engine with kind, the others root; those
/// of `apiserver/` want nothing.
fn test_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry.with_context(|| format!("reading {}", dir.display()))?.path();
        let is_test = path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
        if is_test && let Some(stem) = path.file_stem() {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Takes names that must be there out of those of a directory.
fn take(names: &mut Vec<String>, wanted: &[&str], dir: &str) -> Result<Vec<String>> {
    wanted
        .iter()
        .map(|name| {
            let at = names.iter().position(|own| own == name);
            let at = at.with_context(|| format!("there is no {dir}/{name}.rs, which xtask/src/test.rs names"))?;
            Ok(names.remove(at))
        })
        .collect()
}

/// Runs tests, and adds what they left out to `skips`.
fn cargo_test(selection: &[String], skips: &mut Vec<String>) -> Result<bool> {
    let sh = build::shell()?;
    let cargo = build::cargo();
    let noted = build::target_dir()?.join(format!("skips-{}", std::process::id()));
    let mut command = std::process::Command::from(cmd!(sh, "{cargo} test --locked --no-fail-fast {selection...}"));
    let command = build::without_own_package(&mut command).env(SKIPS, &noted);
    let status = command.status().context("running cargo test")?;
    if let Ok(text) = std::fs::read_to_string(&noted) {
        skips.extend(text.lines().map(str::to_owned));
        std::fs::remove_file(&noted).with_context(|| format!("removing {}", noted.display()))?;
    }
    Ok(status.success())
}

#[cfg(test)]
#[path = "test_tests.rs"]
mod tests;
