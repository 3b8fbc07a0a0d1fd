//! Playing scenarios on a running cluster.

mod assertion;
mod audit;
mod cell;
mod claim;
pub(crate) mod format;
mod forward_policy;
mod holders;
mod invariant;
mod matrix;
mod needs;
mod node;
mod plant;
mod privilege;
mod probe;
mod role;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::DeleteParams;
use kube::{Client, ResourceExt};

use crate::cluster::Cluster;
use crate::cluster::install::{api_of, apply_one, documents};
use crate::report::{Measured, Run, StepResult};
use format::{ObjectRef, Scenario, Step};
pub(crate) use probe::agent as agent_of;

/// Time for what a scenario made to go away afterwards.
const CLEANUP: Duration = Duration::from_secs(60);

/// What a scenario leaves behind until it is cleaned up.
#[derive(Default)]
struct Traces {
    made: Vec<ObjectRef>,
    forward_policy: bool,
    socket_lb_off: bool,
    /// Nodes whose links are cut.
    cut: BTreeSet<String>,
}

/// How it comes that scenarios are played.
#[derive(Clone, Copy)]
pub(crate) struct Occasion {
    /// Their files were named: quarantine does not hold.
    pub(crate) named: bool,
    /// The cluster was made for them. Elsewhere portolan may have been started again before, which is not this run's.
    pub(crate) fresh: bool,
}

/// Plays the files, one after the other, and notes every step in `run`.
///
/// # Errors
/// If a file cannot be understood: nothing is played then. A failed step is no error but a result.
pub(crate) async fn run_files(
    client: &Client,
    cluster: &dyn Cluster,
    repo: &Path,
    files: &[PathBuf],
    occasion: Occasion,
    run: &mut Run,
) -> Result<()> {
    let scenarios: Vec<(PathBuf, Scenario)> =
        files.iter().map(|file| Ok((file.clone(), format::load(file)?))).collect::<Result<_>>()?;
    let mut mark = invariant::Watermark::start(client, cluster)?;
    if cluster.label().is_some() {
        // Portolan ran there before: what it logged then is not this run's.
        invariant::violations(client, cluster, &mut mark, &BTreeSet::new()).await?;
    }
    if !occasion.fresh {
        mark.know_restarts(client).await?;
    }
    for (file, scenario) in scenarios {
        if let (Some(reason), false) = (&scenario.metadata.quarantine, occasion.named) {
            run.skip(&scenario.metadata.name, reason);
            continue;
        }
        if let Some(reason) = needs::unmet(&scenario, cluster, repo)? {
            run.skip(&scenario.metadata.name, &reason);
            continue;
        }
        let scenario = format::load_for(&file, cluster.nodes())?;
        eprintln!("scenario {}", scenario.metadata.name);
        let mut traces = Traces::default();
        let strangers = pods(client, cluster).await?;
        for step in &scenario.spec.steps {
            let began = Instant::now();
            let mut measured = Measured::default();
            let outcome = play(client, cluster, repo, step, &mut traces, &mut mark, &mut measured).await;
            let failure = outcome.err().map(|error| format!("{error:#}"));
            let failed = failure.is_some();
            let result = StepResult {
                scenario: scenario.metadata.name.clone(),
                step: step.id.clone(),
                seconds: began.elapsed().as_secs_f64(),
                window_seconds: measured.windows.as_secs_f64(),
                converged_seconds: measured.converged.filter(|_| !failed).map(|time| time.as_secs_f64()),
                cells: measured.cells,
                failure,
            };
            run.note(&result);
            if failed {
                run.bundle(cluster, client, &file, &result).await;
                break;
            }
        }
        let began = Instant::now();
        let cleaned = clean_up(client, cluster, &traces, &strangers).await;
        run.note(&StepResult {
            scenario: scenario.metadata.name.clone(),
            step: "(clean up)".to_owned(),
            seconds: began.elapsed().as_secs_f64(),
            window_seconds: 0.0,
            converged_seconds: None,
            cells: BTreeMap::new(),
            failure: cleaned.err().map(|error| format!("{error:#}")),
        });
    }
    Ok(())
}

/// Times that a fault is planted again which the product has repaired before any check could see it.
const PLANTINGS: usize = 3;

/// One step: changes, the planted fault if there is one, then the checks.
async fn play(
    client: &Client,
    cluster: &dyn Cluster,
    repo: &Path,
    step: &Step,
    traces: &mut Traces,
    mark: &mut invariant::Watermark,
    measured: &mut Measured,
) -> Result<()> {
    if let Some(action) = &step.node {
        node::act(client, cluster, action, &mut traces.cut, mark).await?;
    }
    change(client, cluster, repo, step, traces).await?;
    if step.least_privilege {
        let proven = privilege::prove(client, cluster).await;
        *mark = invariant::Watermark::afresh(client, cluster)?;
        proven?;
    }
    let (Some(fault), Some(message)) = (&step.plant, &step.caught_by) else {
        return check(client, cluster, step, mark, &traces.cut, measured).await;
    };
    for _ in 0..PLANTINGS {
        let planted = plant::plant(client, cluster, fault).await.context("planting the fault")?;
        // What a fault makes of the cells is not the cluster's.
        let outcome = check(client, cluster, step, mark, &traces.cut, &mut Measured::default()).await;
        let stayed = planted.is_there();
        planted.remove().context("taking the fault away")?;
        match outcome {
            Err(error) if format!("{error:#}").contains(message) => {
                let said: Vec<String> =
                    format!("{error:#}").lines().take(2).map(|line| line.trim().to_owned()).collect();
                eprintln!("caught: {}", said.join(" "));
                return Ok(());
            }
            Err(error) => bail!("the planted fault should have been caught by {message:?}, but: {error:#}"),
            Ok(_) if stayed? => bail!("the planted fault was not caught: {fault:?}"),
            Ok(_) => {}
        }
    }
    bail!("the planted fault was repaired before it could be seen, {PLANTINGS} times: {fault:?}")
}

/// What a step changes.
async fn change(client: &Client, cluster: &dyn Cluster, repo: &Path, step: &Step, traces: &mut Traces) -> Result<()> {
    if step.forward_policy_drop {
        traces.forward_policy = true;
        forward_policy::install(cluster)?;
    }
    if let Some(enabled) = step.socket_lb {
        traces.socket_lb_off = !enabled;
        steps::socket_lb(client, cluster, enabled).await?;
    }
    let mut objects = step.create.clone();
    for file in &step.apply {
        objects.extend(documents(&repo.join(file))?);
    }
    for object in &objects {
        let applied = apply_one(client, &claim::label(client, cluster, object).await?).await?;
        let types = applied.types.clone().context("an object has a type")?;
        traces.made.push(ObjectRef {
            api_version: types.api_version,
            kind: types.kind,
            name: applied.name_any(),
            namespace: applied.namespace(),
        });
    }
    for reference in &step.delete {
        claim::refuse_foreign(client, cluster, reference).await?;
        delete(client, reference).await?;
    }
    Ok(())
}

/// What a step looks at, then the invariants.
async fn check(
    client: &Client,
    cluster: &dyn Cluster,
    step: &Step,
    mark: &mut invariant::Watermark,
    cut: &BTreeSet<String>,
    measured: &mut Measured,
) -> Result<()> {
    let mut looked = look(client, cluster, step, measured).await;
    if step.forward_policy_drop
        && let Err(dropped) = forward_policy::nothing_dropped(cluster)
    {
        // It explains what else went wrong.
        looked = Err(match looked {
            Ok(()) => dropped,
            Err(error) => error.context(format!("{dropped:#}")),
        });
    }
    // Also after a failure: what it left behind must not be taken for the next step's.
    let violations = invariant::violations(client, cluster, mark, cut).await?;
    looked?;
    if !violations.is_empty() {
        bail!("an invariant is broken:\n  {}", violations.join("\n  "));
    }
    Ok(())
}

async fn look(client: &Client, cluster: &dyn Cluster, step: &Step, measured: &mut Measured) -> Result<()> {
    let began = Instant::now();
    for assertion in &step.assert {
        measured.windows += assertion::hold(client, assertion).await?;
        measured.converged = Some(began.elapsed().saturating_sub(measured.windows));
    }
    if let Some(row) = &step.api_resource {
        steps::api_resource(client, row).await?;
    }
    if let Some(expected) = &step.status {
        steps::status(client, cluster, expected).await?;
    }
    if let Some(matrix) = &step.matrix {
        matrix::play(client, cluster, matrix, &mut measured.cells).await?;
        // The cell that expects silence waits a second for it.
        measured.windows += Duration::from_secs(1);
    }
    if let Some(service) = &step.not_announced {
        measured.windows += steps::not_announced(client, cluster, service).await?;
    }
    if let Some(service) = &step.source_port_reuse {
        steps::source_port_reuse(client, cluster, service).await?;
    }
    if let Some(service) = &step.refused {
        steps::refused(client, cluster, service, "cni").await?;
    }
    if let Some(restart) = &step.agent_restart {
        measured.windows += steps::agent_restart(client, cluster, restart).await?;
    }
    Ok(())
}

async fn delete(client: &Client, reference: &ObjectRef) -> Result<()> {
    let api = api_of(client, &reference.api_version, &reference.kind, reference.namespace.as_deref()).await?;
    match api.delete(&reference.name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("deleting {} {}", reference.kind, reference.name)),
    }
}

/// Names of the pods in `default`; on a cluster of somebody else's, of ours.
async fn pods(client: &Client, cluster: &dyn Cluster) -> Result<BTreeSet<String>> {
    let api = kube::Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client.clone(), "default");
    let params = kube::api::ListParams { label_selector: cluster.label().map(str::to_owned), ..Default::default() };
    Ok(api.list(&params).await?.iter().map(kube::ResourceExt::name_any).collect())
}

/// Deletes what a scenario made, in reverse order, and waits until it is gone, its pods too. Pods that were
/// there before (`strangers`) are somebody else's.
async fn clean_up(client: &Client, cluster: &dyn Cluster, traces: &Traces, strangers: &BTreeSet<String>) -> Result<()> {
    for node in &traces.cut {
        // Before anything else: the others are waited for on all nodes.
        cluster.set_link(node, true)?;
    }
    if traces.socket_lb_off {
        // A step failed before the one that would have done this.
        steps::socket_lb(client, cluster, true).await?;
    }
    let policy = if traces.forward_policy { forward_policy::remove(cluster) } else { Ok(()) };
    for reference in traces.made.iter().rev() {
        delete(client, reference).await?;
    }
    let deadline = Instant::now() + CLEANUP;
    loop {
        let mut left = Vec::new();
        for reference in &traces.made {
            if assertion::read(client, reference).await?.is_some() {
                left.push(format!("{} {}", reference.kind, reference.name));
            }
        }
        left.extend(pods(client, cluster).await?.difference(strangers).map(|pod| format!("pod {pod}")));
        if left.is_empty() {
            return policy;
        }
        if Instant::now() > deadline {
            bail!("still there after {CLEANUP:?}: {}", left.join(", "));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
