//! Playing the traffic matrix: from each node, from a pod and from `lan` to every frontend of a Service. An answer must be
//! true (the pod exists, owns the address, and its namespace is the one that the harness read itself), the pod must have
//! seen the client's address or the one that replaces it, all backends must be hit, and the packets must have gone by
//! the expected hook.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use kube::Client;
use serde_json::Value;

use super::cell::{self, Cell, Expect};
use super::format::Matrix;
use super::probe::{self, Backend, Counters, NETTOOL, claim, moved};
use crate::cluster::Cluster;

/// Requests that are needed so that missing one of `backends` equal backends by chance is rarer than `false_alarm`:
/// P(one is missed) <= k (1 - 1/k)^n.
pub(super) fn requests(backends: usize, false_alarm: f64) -> u32 {
    if backends < 2 {
        return 1;
    }
    let count = backends as f64;
    ((false_alarm / count).ln() / (1.0 - 1.0 / count).ln()).ceil().max(1.0) as u32
}

/// Plays the matrix; prints the table, notes each cell in `verdicts`, and fails with the first wrong one.
///
/// # Errors
/// With the first wrong cell and what was seen.
pub(super) async fn play(
    client: &Client,
    cluster: &dyn Cluster,
    matrix: &Matrix,
    verdicts: &mut BTreeMap<String, String>,
) -> Result<()> {
    let target = probe::target(client, cluster, &matrix.service).await?;
    let cells = cell::all(cluster, &target, matrix.socket_lb)?;
    let count = requests(target.backends.len(), matrix.false_alarm);
    let mut table = Vec::new();
    let mut first_wrong = None;
    for cell in &cells {
        let agent = probe::agent(client, &cell.path.0).await?;
        let before = probe::counters(cluster, &agent)?;
        let answers = ask(cluster, cell, count)?;
        let after = probe::counters(cluster, &agent)?;
        let verdict = judge(cell, &target.backends, count, &answers, &before, &after);
        let text = match &verdict {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("WRONG: {error:#}"),
        };
        verdicts.insert(cell.name.clone(), if verdict.is_ok() { "ok" } else { "WRONG" }.to_owned());
        table.push(format!("{:<28} -> {:<34} {text}", cell.from, format!("{} {}", cell.to, cell.url)));
        if let (Err(error), None) = (verdict, &first_wrong) {
            first_wrong = Some(format!("{} -> {} ({}): {error:#}", cell.from, cell.to, cell.url));
        }
    }
    match first_wrong {
        None => {
            eprintln!("{}", table.join("\n"));
            Ok(())
        }
        Some(wrong) => bail!("first wrong cell: {wrong}\n{}", table.join("\n")),
    }
}

/// Sends the requests of one cell. A cell that expects silence needs only one, and waits for it.
fn ask(cluster: &dyn Cluster, cell: &Cell, count: u32) -> Result<Vec<Value>> {
    let (count, timeout) = match cell.expect {
        Expect::Answers => (count.to_string(), "2s"),
        Expect::Silence | Expect::Refusal => ("1".to_owned(), "1s"),
    };
    let argv = [NETTOOL, "probe", "-n", &count, "--timeout", timeout, "--give-up-after", "2", &cell.url];
    let report = probe::json(cluster, &cell.place, &argv)?;
    Ok(report["targets"][0]["attempts"].as_array().cloned().unwrap_or_default())
}

/// Judges one cell.
pub(super) fn judge(
    cell: &Cell,
    backends: &[Backend],
    count: u32,
    answers: &[Value],
    before: &Counters,
    after: &Counters,
) -> Result<()> {
    let (node, hook, event) = &cell.path;
    let steps = moved(before, after, hook, event);
    match cell.expect {
        Expect::Answers => {}
        Expect::Silence => return judge_silence(answers, steps, &cell.path),
        Expect::Refusal => {
            return match answers {
                [answer] if answer["outcome"] == "refused" => Ok(()),
                seen => bail!(
                    "expected a refusal: the port of the service is not served at a node's own address, and whoever \
                     answers there could be taken for it; seen {}",
                    serde_json::to_string(seen)?
                ),
            };
        }
    }
    if answers.len() < count as usize {
        bail!("expected {count} answers, seen {}", serde_json::to_string(answers)?);
    }
    let mut seen = BTreeSet::new();
    for answer in answers {
        if answer["outcome"] != "ok" {
            bail!("expected an answer, seen {} {}", answer["outcome"], answer["error"]);
        }
        let body = answer["body"].as_str().unwrap_or_default();
        let Some((pod, address)) = claim(body) else { bail!("the answer is not the workload's: {body:?}") };
        let Some(backend) = backends.iter().find(|backend| backend.pod == pod) else {
            bail!("pod {pod:?} answered, which is no backend of the service");
        };
        if backend.address != address.to_string() {
            bail!("pod {pod} says it has {address}; the API server says {}", backend.address);
        }
        if answer["whoami"]["netns_cookie"].as_u64() != Some(backend.cookie) {
            bail!("the answer in the name of {pod} came from another network namespace: {}", answer["whoami"]);
        }
        let from = answer["whoami"]["peer_address"].as_str().unwrap_or_default();
        if let Err(expected) = cell.client.admits(from, backend) {
            bail!("pod {pod} on {} saw the request come from {from}, expected {expected}", backend.node);
        }
        seen.insert(pod);
    }
    if let Some(missed) = backends.iter().find(|backend| !seen.contains(backend.pod.as_str())) {
        bail!("{count} requests, and none was answered by {}", missed.pod);
    }
    if steps < u64::from(count) {
        bail!("the path is wrong: counter {hook}/{event} of {node} moved by {steps}, expected {count}");
    }
    Ok(())
}

fn judge_silence(answers: &[Value], steps: u64, path: &(String, &str, &str)) -> Result<()> {
    if let Some(other) = answers.iter().find(|answer| answer["outcome"] != "timeout") {
        bail!("expected silence, seen {other}");
    }
    if steps == 0 {
        bail!("counter {}/{} of {} did not move", path.1, path.2, path.0);
    }
    Ok(())
}

#[cfg(test)]
#[path = "matrix_tests.rs"]
mod tests;
