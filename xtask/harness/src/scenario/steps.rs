//! Steps other than assertions and the matrix.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::assertion::differs;
use super::format::{AgentRestart, ApiResourceRow, Protocol};
use super::probe::{self, NETTOOL, claim};
use crate::cluster::{Cluster, Place};
use crate::sys;

/// Time for agents to go or to come.
const AGENTS: Duration = Duration::from_secs(60);
/// Longest time that one connection may take while agents come and go.
const CONNECT_MAX_US: u64 = 500_000;

/// The row of a resource in discovery.
///
/// # Errors
/// With what differs.
pub(super) async fn api_resource(client: &Client, row: &ApiResourceRow) -> Result<()> {
    let (group, _) = row.api_version.split_once('/').context("apiVersion needs a group here")?;
    let group = kube::discovery::group(client, group).await.context("reading discovery")?;
    let preferred = group.preferred_version_or_latest().to_owned();
    let Some((found, capabilities)) =
        group.resources_by_stability().into_iter().find(|(found, _)| found.plural == row.name)
    else {
        bail!("no resource {}", row.name);
    };
    let lists = client.list_api_group_resources(&format!("{}/{preferred}", group.name())).await?;
    let listed = lists
        .resources
        .into_iter()
        .find(|resource| resource.name == row.name)
        .context("not in the preferred version")?;
    let namespaced = capabilities.scope == kube::discovery::Scope::Namespaced;
    let seen = json!({"apiVersion": format!("{}/{preferred}", group.name()), "kind": found.kind,
                      "shortNames": listed.short_names.unwrap_or_default(), "namespaced": namespaced});
    let expected = json!({"apiVersion": row.api_version, "kind": row.kind, "shortNames": row.short_names, "namespaced": row.namespaced});
    if seen != expected {
        bail!("expected {expected}, seen {seen}");
    }
    Ok(())
}

/// `portolan status` of every node.
///
/// # Errors
/// With the node and the field.
pub(super) async fn status(client: &Client, cluster: &dyn Cluster, expected: &Value) -> Result<()> {
    let agents = probe::agents(client, cluster).await?;
    for (node, seen) in probe::ask_agents(cluster, &agents, &["/usr/bin/portolan", "status", "-o", "json"])? {
        differs(expected, &seen, "").with_context(|| format!("status of {node}"))?;
        let healthy =
            seen["controllersHealthy"] == seen["controllersTotal"] && seen["controllersTotal"].as_u64() > Some(0);
        let health = &seen["clusterHealth"];
        if !healthy
            || health["reachable"] != json!(cluster.nodes().len())
            || health["total"] != json!(cluster.nodes().len())
        {
            bail!("status of {node}: not all healthy: {seen}");
        }
    }
    Ok(())
}

/// Switches socket LB and starts all agents anew.
///
/// # Errors
/// If they do not become ready.
pub(super) async fn socket_lb(client: &Client, cluster: &dyn Cluster, enabled: bool) -> Result<()> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "kube-system");
    let map = maps.get("portolan-config").await?;
    let text =
        map.data.as_ref().and_then(|data| data.get("config.yaml")).context("the ConfigMap has no config.yaml")?;
    let mut config: Value = serde_yaml::from_str(text)?;
    config["socketLB"] = json!({"enabled": enabled});
    let patch = json!({"data": {"config.yaml": serde_yaml::to_string(&config)?}});
    maps.patch("portolan-config", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    send_agents_away(client).await?;
    bring_agents_back(client, cluster).await
}

async fn send_agents_away(client: &Client) -> Result<()> {
    select_nodes(client, json!({"portolan.io/nowhere": "true"})).await?;
    let deadline = Instant::now() + AGENTS;
    loop {
        let params = ListParams::default().labels("app.kubernetes.io/name=portolan-agent");
        let pods = Api::<Pod>::namespaced(client.clone(), "kube-system").list(&params).await?;
        if pods.items.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} agents are still there after {AGENTS:?}", pods.items.len());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn bring_agents_back(client: &Client, cluster: &dyn Cluster) -> Result<()> {
    select_nodes(client, json!({"portolan.io/nowhere": null})).await?;
    let sets = Api::<DaemonSet>::namespaced(client.clone(), "kube-system");
    let deadline = Instant::now() + AGENTS;
    let wanted = i32::try_from(cluster.nodes().len())?;
    loop {
        let set = sets.get("portolan").await?;
        let status = set.status.unwrap_or_default();
        if status.observed_generation == set.metadata.generation && status.number_ready == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} of {wanted} agents are ready after {AGENTS:?}", status.number_ready);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn select_nodes(client: &Client, selector: Value) -> Result<()> {
    let sets = Api::<DaemonSet>::namespaced(client.clone(), "kube-system");
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}});
    sets.patch("portolan", &PatchParams::default(), &Patch::Merge(&patch)).await.context("moving the agents")?;
    Ok(())
}

/// How long nobody must answer.
const ARP_SILENCE: Duration = Duration::from_millis(500);

/// Nobody answers ARP for the Service's addresses on the nodes' segment; the question is heard: a node's own address is
/// answered. Returns how long it listened.
///
/// # Errors
/// With who answered.
pub(super) async fn not_announced(client: &Client, cluster: &dyn Cluster, service: &str) -> Result<Duration> {
    let target = probe::target(client, cluster, service, Protocol::Tcp).await?;
    let address = target.external_ip.context("the service has no EXTERNAL-IP")?;
    let [asker, other, ..] = cluster.nodes() else { bail!("needs two nodes") };
    let place = Place::Node(asker.name.clone());
    let known = other.address.to_string();
    let silence = format!("{}ms", ARP_SILENCE.as_millis());
    let argv = [NETTOOL, "arp-probe", "--dev", &asker.device, "--timeout", &silence, &address, &known];
    let seen = probe::json(cluster, &place, &argv)?;
    let answers = seen["claims"].as_array().cloned().unwrap_or_default();
    if !answers.iter().any(|answer| answer["address"] == json!(known)) {
        bail!("the probe hears nothing: {} does not answer either: {seen}", other.name);
    }
    if let Some(answer) = answers.iter().find(|answer| answer["address"] == json!(address)) {
        bail!("{address} is announced: {answer}");
    }
    Ok(ARP_SILENCE)
}

/// One source port, back to back, to NodePort, EXTERNAL-IP, ClusterIP and each backend's own address, and round again.
///
/// # Errors
/// With the first request that was not answered, or by the wrong pod.
pub(super) async fn source_port_reuse(client: &Client, cluster: &dyn Cluster, service: &str) -> Result<()> {
    let target = probe::target(client, cluster, service, Protocol::Tcp).await?;
    let (Some(node_port), Some(external)) = (target.node_port, &target.external_ip) else {
        bail!("the service has no NodePort or EXTERNAL-IP");
    };
    let pod = target.backends.first().context("the service has no pod")?;
    let mut urls: Vec<(String, Option<String>)> = Vec::new();
    for node in cluster.nodes() {
        urls.push((format!("http://{}:{node_port}/", node.address), None));
    }
    urls.push((format!("http://{external}:{}/", target.port), None));
    urls.push((format!("http://{}:{}/", target.cluster_ip, target.port), None));
    for backend in &target.backends {
        urls.push((format!("http://{}:80/", backend.address), Some(backend.pod.clone())));
    }
    let again: Vec<_> = urls.iter().rev().cloned().collect();
    urls.extend(again);
    let places = [
        Place::Node(cluster.nodes().last().context("no nodes")?.name.clone()),
        Place::Pod { namespace: "default".into(), pod: pod.pod.clone(), container: None },
    ];
    for place in places {
        let mut argv = vec![NETTOOL, "probe", "--timeout", "2s", "--source-port", "45678"];
        argv.extend(urls.iter().map(|(url, _)| url.as_str()));
        let report = probe::json(cluster, &place, &argv)?;
        for ((url, expected), seen) in urls.iter().zip(report["targets"].as_array().cloned().unwrap_or_default()) {
            let answer = &seen["attempts"][0];
            let claimed = claim(answer).map(|(pod, _)| pod.to_owned());
            let known = target.backends.iter().any(|backend| Some(&backend.pod) == claimed.as_ref());
            if answer["outcome"] != "ok" || !known || expected.as_ref().is_some_and(|pod| Some(pod) != claimed.as_ref())
            {
                bail!("from {place:?} port 45678 to {url}: expected an answer of {expected:?}, seen {answer}");
            }
        }
    }
    Ok(())
}

/// A Service without backends refuses at once, from a node, a pod and outside.
///
/// # Errors
/// With the first request that was not refused.
pub(super) async fn refused(client: &Client, cluster: &dyn Cluster, service: &str, asker: &str) -> Result<()> {
    let target = probe::target(client, cluster, service, Protocol::Tcp).await?;
    let workload = probe::target(client, cluster, asker, Protocol::Tcp).await?;
    let pod = workload.backends.first().context("no pod to ask from")?;
    let node_port = target.node_port.context("the service has no NodePort")?;
    let mut urls: Vec<String> =
        cluster.nodes().iter().map(|node| format!("tcp://{}:{node_port}", node.address)).collect();
    if let Some(external) = &target.external_ip {
        urls.push(format!("tcp://{external}:{}", target.port));
    }
    let inside = [urls.clone(), vec![format!("tcp://{}:{}", target.cluster_ip, target.port)]].concat();
    let node = cluster.nodes().first().context("no nodes")?;
    let pod = Place::Pod { namespace: "default".into(), pod: pod.pod.clone(), container: None };
    let mut places = vec![(Place::Node(node.name.clone()), inside.clone()), (pod, inside)];
    places.extend(cluster.outside().into_iter().map(|name| (Place::Outside(name), urls.clone())));
    for (place, urls) in places {
        let mut argv = vec![NETTOOL, "probe", "--timeout", "2s"];
        argv.extend(urls.iter().map(String::as_str));
        let report = probe::json(cluster, &place, &argv)?;
        for (url, seen) in urls.iter().zip(report["targets"].as_array().cloned().unwrap_or_default()) {
            if seen["attempts"][0]["outcome"] != "refused" {
                bail!("from {place:?} to {url}: expected a refusal, seen {}", seen["attempts"][0]);
            }
        }
    }
    Ok(())
}

/// Traffic of three kinds while the agents are away; returns what it said.
///
/// # Errors
/// If anything was lost, or, in the control run, if nothing was.
pub(super) async fn agent_restart(client: &Client, cluster: &dyn Cluster, step: &AgentRestart) -> Result<Duration> {
    let target = probe::target(client, cluster, &step.service, Protocol::Tcp).await?;
    let backend = target.backends.first().context("the service has no pod")?;
    let entry = cluster.nodes().iter().find(|node| node.name != backend.node).context("no other node")?;
    let node_port = target.node_port.context("the service has no NodePort")?;
    let at = format!("{}:{node_port}", entry.address);
    let lan = cluster.outside().into_iter().next().context("no host outside")?;
    let mut streams = Vec::new();
    for argv in [
        vec!["transfer".to_owned(), format!("http://{at}")],
        // Longer than a first SYN's retransmission (1 s), so that this is what is reported.
        ["connect-loop", "--every", "20ms", "--timeout", "2s", &format!("http://{at}")].map(str::to_owned).to_vec(),
        vec!["udp-stream".into(), format!("udp://{at}")],
    ] {
        let argv: Vec<String> = std::iter::once(NETTOOL.to_owned()).chain(argv).collect();
        let mut command = cluster.command(&Place::Outside(lan.clone()), &argv)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::die_with_parent(&mut command);
        streams.push((argv[1].clone(), command.spawn().context("starting background traffic")?));
    }
    let mut window = Duration::from_secs_f64(step.away);
    let moved = async {
        send_agents_away(client).await?;
        if step.remove_pins {
            for node in cluster.nodes() {
                let path = cluster.bpffs(&node.name)?.context("no pins here")?.join("portolan");
                std::fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        tokio::time::sleep(Duration::from_secs_f64(step.away)).await;
        bring_agents_back(client, cluster).await
    };
    let moved = moved.await;
    let mut faults = Vec::new();
    let mut reports = Vec::new();
    let ending = Instant::now();
    for (_, child) in &streams {
        // All at once: what has been cut off sees it only by its own timeout.
        end(child)?;
    }
    for (name, child) in streams {
        let report = report_of(child).with_context(|| format!("background {name}"))?;
        faults.extend(stream_faults(&name, &report));
        reports.push(format!("{name}: {report}"));
    }
    if step.remove_pins {
        // In the control run they must meet their timeouts.
        window += ending.elapsed();
    }
    moved?;
    match (step.remove_pins, faults.is_empty()) {
        (false, true) | (true, false) => Ok(window),
        (false, false) => bail!("traffic suffered: {}\n{}", faults.join("; "), reports.join("\n")),
        (true, true) => {
            bail!("the pins were removed and nothing suffered: this check sees nothing\n{}", reports.join("\n"))
        }
    }
}

/// Tells a background process to end, by SIGTERM.
fn end(child: &Child) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).context("ending background traffic")
}

/// Waits for the end of a background process and reads its report.
fn report_of(child: Child) -> Result<Value> {
    let output = child.wait_with_output()?;
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What a background stream must not have.
pub(super) fn stream_faults(name: &str, report: &Value) -> Vec<String> {
    let number = |key: &str| report[key].as_u64().unwrap_or(u64::MAX);
    let mut faults = Vec::new();
    let mut check = |good: bool, what: String| {
        if !good {
            faults.push(format!("{name}: {what}"));
        }
    };
    match name {
        "transfer" => {
            check(report["outcome"] == "ok", format!("outcome {}", report["outcome"]));
            check(report["corrupt_at"].is_null(), format!("corrupt at byte {}", report["corrupt_at"]));
            check(number("bytes") > 0 && report["bytes"].is_u64(), "no bytes".into());
        }
        "connect-loop" => {
            check(number("ok") > 0 && report["ok"].is_u64(), "no connections".into());
            check(number("errors") == 0, format!("{} errors: {}", report["errors"], report["first_errors"]));
            check(number("syn_retransmits") == 0, format!("{} SYN retransmissions", report["syn_retransmits"]));
            check(number("max_connect_us") < CONNECT_MAX_US, format!("a connect took {} us", report["max_connect_us"]));
        }
        _ => {
            check(number("received") > 0 && report["received"].is_u64(), "no datagrams".into());
            check(number("lost") == 0, format!("{} datagrams lost", report["lost"]));
        }
    }
    faults
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
