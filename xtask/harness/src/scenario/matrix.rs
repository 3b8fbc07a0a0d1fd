//! The traffic matrix: from each node, from a pod and from `lan` to every frontend of a Service. An answer must be true
//! (the pod exists, owns the address, and its namespace is the one that the harness read itself), all backends must be
//! hit, and the packets must have gone by the expected hook.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use kube::Client;
use serde_json::Value;

use super::format::Matrix;
use super::probe::{self, Backend, Counters, NETTOOL, Target, claim, moved};
use crate::cluster::{Cluster, Place, Role};

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    from: String,
    place: Place,
    to: String,
    url: String,
    /// Node whose counters must move, the hook and the event.
    path: (String, &'static str, &'static str),
    /// Answers are expected; otherwise silence.
    answers: bool,
}

/// Requests that are needed so that missing one of `backends` equal backends by chance is rarer than `false_alarm`:
/// P(one is missed) <= k (1 - 1/k)^n.
pub(super) fn requests(backends: usize, false_alarm: f64) -> u32 {
    if backends < 2 {
        return 1;
    }
    let count = backends as f64;
    ((false_alarm / count).ln() / (1.0 - 1.0 / count).ln()).ceil().max(1.0) as u32
}

/// Plays the matrix; returns the table, and fails with the first wrong cell.
///
/// # Errors
/// With the first wrong cell and what was seen.
pub(super) async fn play(client: &Client, cluster: &dyn Cluster, matrix: &Matrix) -> Result<String> {
    let target = probe::target(client, cluster, &matrix.service).await?;
    let cells = cells(cluster, &target, matrix.socket_lb)?;
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
        table.push(format!("{:<28} -> {:<34} {text}", cell.from, format!("{} {}", cell.to, cell.url)));
        if let (Err(error), None) = (verdict, &first_wrong) {
            first_wrong = Some(format!("{} -> {} ({}): {error:#}", cell.from, cell.to, cell.url));
        }
    }
    match first_wrong {
        None => Ok(table.join("\n")),
        Some(wrong) => bail!("first wrong cell: {wrong}\n{}", table.join("\n")),
    }
}

fn cells(cluster: &dyn Cluster, target: &Target, socket_lb: bool) -> Result<Vec<Cell>> {
    let Some(pod) = target.backends.first() else { bail!("the service has no pod to ask from") };
    let mut sources: Vec<(String, Place, Option<String>)> = cluster
        .nodes()
        .iter()
        .map(|node| (node.name.clone(), Place::Node(node.name.clone()), Some(node.name.clone())))
        .collect();
    let place = Place::Pod { namespace: "default".into(), pod: pod.pod.clone(), container: None };
    sources.push((format!("pod {}", pod.pod), place, Some(pod.node.clone())));
    for name in cluster.outside() {
        sources.push((name.clone(), Place::Outside(name), None));
    }
    let mut cells = Vec::new();
    for (from, place, node) in sources {
        let is_pod = matches!(place, Place::Pod { .. });
        // By which hook the first packet or the connect call goes.
        let local = |hook_off: &'static str| if socket_lb { "connect4" } else { hook_off };
        if let Some(port) = target.node_port {
            for target_node in cluster.nodes() {
                let own = node.as_ref() == Some(&target_node.name);
                let path = match (&node, own) {
                    (Some(node), true) => {
                        (node.clone(), local(if is_pod { "from-pod" } else { "to-lo" }), "service-new")
                    }
                    _ => (target_node.name.clone(), "from-netdev", "service-new"),
                };
                let url = format!("http://{}:{port}/", target_node.address);
                cells.push(Cell {
                    from: from.clone(),
                    place: place.clone(),
                    to: "NodePort".into(),
                    url,
                    path,
                    answers: true,
                });
            }
        }
        let worker = cluster
            .nodes()
            .iter()
            .find(|node| node.role == Role::Worker)
            .map(|node| node.name.clone())
            .unwrap_or_default();
        let inside =
            |node: &String| (node.clone(), local(if is_pod { "from-pod" } else { "to-netdev" }), "service-new");
        if let Some(address) = &target.external_ip {
            let path = node.as_ref().map_or_else(|| (worker.clone(), "from-netdev", "service-new"), inside);
            let url = format!("http://{address}:{}/", target.port);
            cells.push(Cell {
                from: from.clone(),
                place: place.clone(),
                to: "EXTERNAL-IP".into(),
                url,
                path,
                answers: true,
            });
        }
        let path = node.as_ref().map_or_else(|| (worker.clone(), "from-netdev", "drop-clusterip-from-outside"), inside);
        let url = format!("http://{}:{}/", target.cluster_ip, target.port);
        cells.push(Cell { from: from.clone(), place, to: "ClusterIP".into(), url, path, answers: node.is_some() });
    }
    Ok(cells)
}

/// Sends the requests of one cell. A cell that expects silence needs only one, and waits for it.
fn ask(cluster: &dyn Cluster, cell: &Cell, count: u32) -> Result<Vec<Value>> {
    let (count, timeout) = if cell.answers { (count.to_string(), "2s") } else { ("1".to_owned(), "1s") };
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
    if !cell.answers {
        if let Some(other) = answers.iter().find(|answer| answer["outcome"] != "timeout") {
            bail!("expected silence, seen {other}");
        }
        if steps == 0 {
            bail!("counter {hook}/{event} of {node} did not move");
        }
        return Ok(());
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

#[cfg(test)]
#[path = "matrix_tests.rs"]
mod tests;
