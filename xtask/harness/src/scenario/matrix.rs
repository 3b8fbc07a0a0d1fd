//! Playing the traffic matrix: from each node, from a pod and from `lan` to every frontend of a Service. An answer must be
//! true (the pod exists, owns the address, and its namespace is the one that the harness read itself), the pod must have
//! seen the client's address or the one that replaces it, all backends must be hit, and the packets must have gone by
//! the expected hook.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::Client;
use serde_json::Value;

use super::cell::{self, Cell, Expect};
use super::format::Matrix;
use super::probe::{self, Agents, Backend, Counters, NETTOOL, claim, moved};
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
/// With `within`, first all nodes must carry as many frontends as the others. All cells are asked at once; while only answers
/// or backends are missing, again until `within` is over. A counter must have moved by what the cells that share it sent
/// together. Where one has not, its cells are asked again one after the other, to tell which of them went another way.
///
/// # Errors
/// With the first wrong cell and what was seen.
pub(super) async fn play(
    client: &Client,
    cluster: &dyn Cluster,
    matrix: &Matrix,
    verdicts: &mut BTreeMap<String, String>,
) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs_f64(matrix.within);
    until_equal(client, cluster, deadline).await;
    loop {
        verdicts.clear();
        let wrong = match once(client, cluster, matrix, verdicts).await? {
            Ok(table) => {
                eprintln!("{}", table.join("\n"));
                return Ok(());
            }
            Err(wrong) => wrong,
        };
        if !wrong.only_absence || Instant::now() > deadline {
            bail!("first wrong cell: {}\n{}", wrong.first, wrong.table.join("\n"));
        }
        eprintln!("not yet: {}", wrong.first);
    }
}

/// Waits until all nodes carry the same number of frontends. A node that has been away refuses what it has not heard of, or
/// leaves it to another node, and that is no fault while it catches up; what is wrong when it has is one. If the nodes do not
/// become equal, the cells tell what is missing where.
async fn until_equal(client: &Client, cluster: &dyn Cluster, deadline: Instant) {
    while Instant::now() < deadline {
        match frontends(client, cluster).await {
            Ok(counts) if all_equal(&counts) => return,
            Ok(counts) => eprintln!("not yet: frontends of the nodes: {counts:?}"),
            Err(error) => eprintln!("not yet: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn frontends(client: &Client, cluster: &dyn Cluster) -> Result<BTreeMap<String, u64>> {
    let agents = probe::agents(client, cluster).await?;
    let statuses = probe::ask_agents(cluster, &agents, &["/usr/bin/portolan", "status", "-o", "json"])?;
    let count = |(node, status): (String, Value)| {
        let frontends = status["frontends"].as_u64().with_context(|| format!("status of {node} has no frontends"))?;
        Ok((node, frontends))
    };
    statuses.into_iter().map(count).collect()
}

fn all_equal(counts: &BTreeMap<String, u64>) -> bool {
    let distinct: BTreeSet<&u64> = counts.values().collect();
    distinct.len() == 1
}

/// A matrix with a wrong cell.
struct Wrong {
    first: String,
    table: Vec<String>,
    /// All that is wrong in any cell is that nobody answered.
    only_absence: bool,
}

/// Nobody answered, or not all of those who should: the one fault that may go by itself (DESIGN decision 18).
#[derive(Debug)]
pub(super) struct Absent(String);

impl std::fmt::Display for Absent {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Absent {}

/// Asks all cells once; returns the table.
async fn once(
    client: &Client,
    cluster: &dyn Cluster,
    matrix: &Matrix,
    verdicts: &mut BTreeMap<String, String>,
) -> Result<Result<Vec<String>, Wrong>> {
    let target = probe::target(client, cluster, &matrix.service, matrix.protocol).await?;
    let cells = cell::all(cluster, &target, matrix.socket_lb)?;
    let count = requests(target.backends.len(), matrix.false_alarm);
    let agents = probe::agents(client, cluster).await?;
    let before = probe::counters(cluster, &agents)?;
    let answers = ask_all(cluster, &cells, count)?;
    let after = probe::counters(cluster, &agents)?;
    let astray = astray(&cells, count, &before, &after);
    let mut table = Vec::new();
    let mut first_wrong = None;
    let mut only_absence = true;
    for (cell, answers) in cells.iter().zip(answers) {
        let mut verdict = judge(cell, &target.backends, count, &answers);
        if let (Ok(()), Some(shortage)) = (&verdict, astray.get(&cell.path)) {
            verdict = alone(cluster, &agents, cell, &target.backends, count, shortage);
        }
        let text = match &verdict {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("WRONG: {error:#}"),
        };
        only_absence &= verdict.as_ref().err().is_none_or(|error| error.is::<Absent>());
        verdicts.insert(cell.name.clone(), if verdict.is_ok() { "ok" } else { "WRONG" }.to_owned());
        table.push(format!("{:<28} -> {:<34} {text}", cell.from, format!("{} {}", cell.to, cell.url)));
        if let (Err(error), None) = (verdict, &first_wrong) {
            first_wrong = Some(format!("{} -> {} ({}): {error:#}", cell.from, cell.to, cell.url));
        }
    }
    Ok(match (first_wrong, astray.values().next()) {
        (Some(first), _) => Err(Wrong { first, table, only_absence }),
        // Alone, each of them went the right way.
        (None, Some(shortage)) => {
            Err(Wrong { first: format!("one that shares a {shortage}"), table, only_absence: false })
        }
        (None, None) => Ok(table),
    })
}

/// Counters that moved by less than their cells must have moved them, with the shortage.
pub(super) fn astray(
    cells: &[Cell],
    count: u32,
    before: &BTreeMap<String, Counters>,
    after: &BTreeMap<String, Counters>,
) -> BTreeMap<cell::Path, String> {
    let mut expected: BTreeMap<&cell::Path, u64> = BTreeMap::new();
    for cell in cells {
        *expected.entry(&cell.path).or_default() += cell.counted(count);
    }
    let none = Counters::new();
    let mut astray = BTreeMap::new();
    for (path, expected) in expected {
        let (node, hook, events) = path;
        let (before, after) = (before.get(node).unwrap_or(&none), after.get(node).unwrap_or(&none));
        let steps: u64 = events.iter().map(|event| moved(before, after, hook, event)).sum();
        if steps < expected {
            let event = events.join("+");
            let text =
                format!("path that is wrong: counter {hook}/{event} of {node} moved by {steps}, expected {expected}");
            astray.insert(path.clone(), text);
        }
    }
    astray
}

/// Asks a cell again, with nothing else under way.
fn alone(
    cluster: &dyn Cluster,
    agents: &Agents,
    cell: &Cell,
    backends: &[Backend],
    count: u32,
    shortage: &str,
) -> Result<()> {
    let agent = agents.get(&cell.path.0).with_context(|| format!("no agent on {}", cell.path.0))?;
    let agent = Agents::from([(cell.path.0.clone(), agent.clone())]);
    let before = probe::counters(cluster, &agent)?;
    let answers = ask_all(cluster, std::slice::from_ref(cell), count)?;
    let after = probe::counters(cluster, &agent)?;
    for answers in answers {
        judge(cell, backends, count, &answers)?;
    }
    match astray(std::slice::from_ref(cell), count, &before, &after).into_values().next() {
        Some(own) => bail!("the path is wrong: {own} (with the others: {shortage})"),
        None => Ok(()),
    }
}

/// Sends the requests of all cells, from all places at the same time, and returns the answers in the order of the cells.
/// A cell that expects silence or a refusal needs only one request, and waits for it.
fn ask_all(cluster: &dyn Cluster, cells: &[Cell], count: u32) -> Result<Vec<Vec<Value>>> {
    let mut batches: Vec<(Vec<usize>, probe::Asking)> = Vec::new();
    let mut left: Vec<usize> = (0..cells.len()).collect();
    while let Some(first) = left.first() {
        let cell = &cells[*first];
        let (batch, rest): (Vec<usize>, Vec<usize>) = left.iter().partition(|at| {
            cells[**at].place == cell.place
                && (cells[**at].expect == Expect::Answers) == (cell.expect == Expect::Answers)
        });
        let (count, timeout) = match cell.expect {
            Expect::Answers => (count.to_string(), "2s"),
            Expect::Silence | Expect::Refusal => ("1".to_owned(), "1s"),
        };
        let mut argv = vec![NETTOOL, "probe", "-n", &count, "--timeout", timeout, "--give-up-after", "2"];
        argv.extend(batch.iter().map(|at| cells[*at].url.as_str()));
        batches.push((batch, probe::Asking::start(cluster, &cell.place, &argv)?));
        left = rest;
    }
    let mut answers = vec![Vec::new(); cells.len()];
    for (batch, asking) in batches {
        let report = asking.finish()?;
        for (number, at) in batch.into_iter().enumerate() {
            answers[at] = report["targets"][number]["attempts"].as_array().cloned().unwrap_or_default();
        }
    }
    Ok(answers)
}

/// Outcomes of nobody being there.
const ABSENCE: [&str; 3] = ["timeout", "refused", "no-route"];

/// Judges the answers of one cell.
pub(super) fn judge(cell: &Cell, backends: &[Backend], count: u32, answers: &[Value]) -> Result<()> {
    match cell.expect {
        Expect::Answers => {}
        Expect::Silence => {
            return match answers.iter().find(|answer| answer["outcome"] != "timeout") {
                Some(other) => bail!("expected silence, seen {other}"),
                None => Ok(()),
            };
        }
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
    let mut seen = BTreeSet::new();
    let mut absent = None;
    for answer in answers {
        if answer["outcome"] != "ok" {
            let text = format!("expected an answer, seen {} {}", answer["outcome"], answer["error"]);
            if !ABSENCE.iter().any(|outcome| answer["outcome"] == *outcome) {
                bail!(text);
            }
            absent.get_or_insert(text);
            continue;
        }
        let Some((pod, address)) = claim(answer) else { bail!("the answer is not the workload's: {answer}") };
        let Some(backend) = backends.iter().find(|backend| backend.pod == pod) else {
            bail!("pod {pod:?} answered, which is no backend of the service");
        };
        if backend.address != address {
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
    if let Some(text) = absent {
        bail!(Absent(text));
    }
    if answers.len() < count as usize {
        bail!("expected {count} answers, seen {}", serde_json::to_string(answers)?);
    }
    if let Some(missed) = backends.iter().find(|backend| !seen.contains(backend.pod.as_str())) {
        bail!(Absent(format!("{count} requests, and none was answered by {}", missed.pod)));
    }
    Ok(())
}

#[cfg(test)]
#[path = "matrix_tests.rs"]
mod tests;
