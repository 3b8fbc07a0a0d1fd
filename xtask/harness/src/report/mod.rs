//! What a run leaves behind: lines as it goes, a table at its end, `result.json`, `junit.xml`, and for each failed step a
//! directory with WHY.md and the evidence.

pub(crate) mod compare;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::DynamicObject;
use kube::{Api, Client};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::cluster::{Cluster, install};

/// Version of `result.json`; raised when a field changes its meaning.
const VERSION: u32 = 1;

/// How a step went.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepResult {
    /// Scenario.
    pub(crate) scenario: String,
    /// Step.
    pub(crate) step: String,
    /// All of its time.
    pub(crate) seconds: f64,
    /// Of it, time in declared windows (`stable`, expected time-outs, agents kept away).
    pub(crate) window_seconds: f64,
    /// Time until all of its assertions held, if it has any and they did.
    pub(crate) converged_seconds: Option<f64>,
    /// Cells of its traffic matrix, by client and frontend, with nodes by their roles.
    pub(crate) cells: BTreeMap<String, String>,
    /// Why it failed.
    pub(crate) failure: Option<String>,
}

/// What a step has measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Time in declared windows.
    pub(crate) windows: Duration,
    /// Time until all assertions held.
    pub(crate) converged: Option<Duration>,
    /// Cells of the traffic matrix.
    pub(crate) cells: BTreeMap<String, String>,
}

/// A run and its directory.
pub(crate) struct Run {
    dir: PathBuf,
    steps: Vec<StepResult>,
    skipped: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    passed: bool,
    steps: &'a [StepResult],
    /// Scenarios that were not played, with the reason.
    skipped: &'a [(String, String)],
}

impl Run {
    /// A new run below `target/e2e` of the repository.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub(crate) fn begin(repo: &Path) -> Result<Self> {
        let now = k8s_openapi::jiff::Timestamp::now().to_string().replace([':', '.'], "-");
        let dir = repo.join("target/e2e").join(now);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir, steps: Vec::new(), skipped: Vec::new() })
    }

    /// Notes and prints a step.
    pub(crate) fn note(&mut self, result: &StepResult) {
        let verdict = if result.failure.is_none() { "ok" } else { "FAILED" };
        eprintln!("  {:<28} {:>6.2} s  {verdict}", result.step, result.seconds);
        if let Some(failure) = &result.failure {
            eprintln!("    {}", failure.replace('\n', "\n    "));
        }
        self.steps.push(result.clone());
    }

    /// Notes and prints a scenario that is not played.
    pub(crate) fn skip(&mut self, scenario: &str, reason: &str) {
        eprintln!("scenario {scenario}: skipped: {reason}");
        self.skipped.push((scenario.to_owned(), reason.to_owned()));
    }

    /// What was played so far.
    pub(crate) fn steps(&self) -> &[StepResult] {
        &self.steps
    }

    /// Whether all steps passed, and there were any.
    pub(crate) fn passed(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.failure.is_none())
    }

    /// Writes the results and prints the table.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub(crate) fn finish(&self) -> Result<()> {
        let document = Document { version: VERSION, passed: self.passed(), steps: &self.steps, skipped: &self.skipped };
        std::fs::write(self.dir.join("result.json"), serde_json::to_vec_pretty(&document)?)?;
        std::fs::write(self.dir.join("junit.xml"), self.junit()?)?;
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY).set_header([
            "scenario",
            "step",
            "seconds",
            "in windows",
            "verdict",
        ]);
        for step in &self.steps {
            table.add_row([
                step.scenario.clone(),
                step.step.clone(),
                format!("{:.2}", step.seconds),
                format!("{:.2}", step.window_seconds),
                if step.failure.is_none() { "ok" } else { "FAILED" }.to_owned(),
            ]);
        }
        println!("{table}");
        let failed = self.steps.iter().filter(|step| step.failure.is_some()).count();
        for (scenario, reason) in &self.skipped {
            println!("scenario {scenario}: skipped: {reason}");
        }
        println!("{} passed, {failed} failed, {} skipped", self.steps.len() - failed, self.skipped.len());
        let (all, windows) = self
            .steps
            .iter()
            .fold((0.0, 0.0), |(all, windows), step| (all + step.seconds, windows + step.window_seconds));
        println!(
            "steps took {all:.1} s, {windows:.1} s of it in windows (`for`, `stable`, silence that is waited for)"
        );
        println!("results: {}", self.dir.display());
        Ok(())
    }

    fn junit(&self) -> Result<String> {
        let mut report = Report::new("portolan-e2e");
        let mut suites: Vec<TestSuite> = Vec::new();
        for step in &self.steps {
            let mut status = match &step.failure {
                None => TestCaseStatus::success(),
                Some(_) => TestCaseStatus::non_success(NonSuccessKind::Failure),
            };
            if let Some(failure) = &step.failure {
                status.set_message(failure.lines().next().unwrap_or_default()).set_description(failure.clone());
            }
            let mut case = TestCase::new(step.step.clone(), status);
            case.set_time(Duration::from_secs_f64(step.seconds));
            if suites.last().is_none_or(|suite| suite.name.as_str() != step.scenario) {
                suites.push(TestSuite::new(step.scenario.clone()));
            }
            if let Some(suite) = suites.last_mut() {
                suite.add_test_case(case);
            }
        }
        report.add_test_suites(suites);
        report.to_string().context("writing JUnit")
    }

    /// Collects the evidence of a failed step. What cannot be collected is listed; nothing is thrown away for it.
    pub(crate) async fn bundle(&self, cluster: &dyn Cluster, client: &Client, file: &Path, result: &StepResult) {
        let name: String = format!("{}-{}", result.scenario, result.step)
            .chars()
            .map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' })
            .collect();
        let dir = self.dir.join(name);
        let mut errors = Vec::new();
        if let Err(error) = std::fs::create_dir_all(&dir) {
            eprintln!("the bundle cannot be made: {error}");
            return;
        }
        if let Err(error) = cluster.dump(&dir) {
            errors.push(format!("{error:#}"));
        }
        for (api_version, kind) in [
            ("v1", "Node"),
            ("v1", "Pod"),
            ("v1", "Service"),
            ("v1", "Event"),
            ("apps/v1", "DaemonSet"),
            ("apps/v1", "Deployment"),
            ("discovery.k8s.io/v1", "EndpointSlice"),
            ("cilium.io/v2alpha1", "CiliumLoadBalancerIPPool"),
        ] {
            match list(client, api_version, kind).await {
                Ok(text) => {
                    errors.extend(std::fs::write(dir.join(format!("{kind}.yaml")), text).err().map(|e| e.to_string()))
                }
                Err(error) => errors.push(format!("{kind}: {error:#}")),
            }
        }
        for node in cluster.nodes() {
            errors.extend(
                datapath(cluster, client, &node.name, &dir)
                    .await
                    .err()
                    .map(|error| format!("{}: {error:#}", node.name)),
            );
        }
        let failure = result.failure.as_deref().unwrap_or_default();
        let again = match cluster.label() {
            None => format!("e2e --provider {} --keep", cluster.provider()),
            Some(_) => format!("run --provider {}", cluster.provider()),
        };
        let why = format!(
            "# {} / {}\n\n{failure}\n\nRun it again:\n\n    cargo xtask {again} {}\n\nNot collected:\n\n{}\n",
            result.scenario,
            result.step,
            file.display(),
            if errors.is_empty() { "(nothing)".to_owned() } else { errors.join("\n") },
        );
        if let Err(error) = std::fs::write(dir.join("WHY.md"), why) {
            eprintln!("WHY.md cannot be written: {error}");
        }
        eprintln!("    evidence: {}", dir.display());
    }
}

/// All objects of a kind. Secrets are not among the kinds; service-account tokens stand in no object.
async fn list(client: &Client, api_version: &str, kind: &str) -> Result<String> {
    let api: Api<DynamicObject> = install::api_of(client, api_version, kind, None).await?;
    let mut url = api.resource_url().to_owned();
    if let Some(at) = url.find("/namespaces/default") {
        url.replace_range(at..at + "/namespaces/default".len(), "");
    }
    let request = http::Request::get(url).body(Vec::new())?;
    let objects: kube::core::ObjectList<DynamicObject> = client.request(request).await?;
    Ok(serde_yaml::to_string(&objects.items)?)
}

/// Maps, flows, counters and links of a node.
async fn datapath(cluster: &dyn Cluster, client: &Client, node: &str, dir: &Path) -> Result<()> {
    let agent = crate::scenario::agent_of(client, node).await?;
    let out = dir.join("nodes").join(node);
    std::fs::create_dir_all(&out)?;
    for args in [["bpf", "dump"].as_slice(), &["bpf", "counters"], &["bpf", "flows"], &["status"]] {
        let argv: Vec<String> =
            std::iter::once("/usr/bin/portolan").chain(args.iter().copied()).map(str::to_owned).collect();
        let output = cluster.command(&agent, &argv)?.output()?;
        std::fs::write(out.join(format!("{}.txt", args.join("-"))), output.stdout)?;
    }
    Ok(())
}
