//! Tier 2: the API server of a netns cluster is killed under load, again and again. Nothing that it has acknowledged is
//! lost, nothing that was deleted comes back, and the cluster works afterwards. Needs root and kubectl
//! (KUBEBUILDER_ASSETS).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use support::Harness;

const CLUSTER: &str = "killed-api";
/// How often it is killed. The supervisor waits longer each time before it starts what keeps ending.
const KILLS: usize = 4;
const WRITERS: usize = 4;
/// Longest time until an API server that was killed answers again; the last pause of the supervisor is 4 s.
const BACK: Duration = Duration::from_secs(60);

/// What a writer wants of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Value(usize),
}

/// What was acknowledged of an object, and what was asked for last.
#[derive(Clone, Copy, Debug)]
struct Known {
    acknowledged: State,
    asked: State,
}

/// The API server's process, by its name and its cluster's cgroup.
fn api_server() -> Option<Pid> {
    let ours = format!("portolan-e2e-{CLUSTER}/");
    let processes = std::fs::read_dir("/proc").unwrap();
    let mut numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let found = numbers.find(|pid| {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        read("comm").trim() == "apiserver" && read("cgroup").contains(&ours)
    });
    found.map(Pid::from_raw)
}

/// Creates, changes and deletes objects until told to stop; the answers say what is known of each.
async fn write(
    client: Client,
    writer: usize,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) -> BTreeMap<String, Known> {
    let maps = Api::<ConfigMap>::default_namespaced(client);
    let mut known = BTreeMap::new();
    let value = |number: usize| BTreeMap::from([("value".to_owned(), number.to_string())]);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("written-{writer}-{number}");
        let steps = [State::Value(0), State::Value(1), State::Value(2), State::Absent];
        // One of three stays.
        let steps = if number % 3 == 0 { &steps[..3] } else { &steps[..] };
        let mut state = Known { acknowledged: State::Absent, asked: State::Absent };
        for step in steps {
            state.asked = *step;
            let answer = match step {
                State::Value(0) => {
                    let mut map = ConfigMap { data: Some(value(0)), ..ConfigMap::default() };
                    map.metadata.name = Some(name.clone());
                    maps.create(&PostParams::default(), &map).await.map(drop)
                }
                State::Value(number) => {
                    let patch = Patch::Merge(json!({"data": value(*number)}));
                    maps.patch(&name, &PatchParams::default(), &patch).await.map(drop)
                }
                State::Absent => maps.delete(&name, &DeleteParams::default()).await.map(drop),
            };
            match answer {
                Ok(()) => state.acknowledged = *step,
                // Nobody knows what came of it: the object is let alone from now on.
                Err(error) => {
                    if let kube::Error::Api(status) = &error {
                        assert!(status.code >= 500, "{name}, {step:?}: {error}");
                    }
                    break;
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        known.insert(name, state);
        if state.asked != state.acknowledged {
            answering(&maps).await;
        }
    }
    known
}

/// Waits until the server answers again.
async fn answering(maps: &Api<ConfigMap>) {
    let begun = Instant::now();
    while let Err(error) = maps.get_opt("none").await {
        assert!(begun.elapsed() < BACK, "the API server did not come back: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until that many more writes have been acknowledged.
async fn progress(done: &AtomicUsize, more: usize) {
    let (target, begun) = (done.load(Ordering::Relaxed) + more, Instant::now());
    while done.load(Ordering::Relaxed) < target {
        assert!(begun.elapsed() < BACK, "no {more} writes in {BACK:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn kill_under_load(client: Client, mut seed: u64) -> BTreeMap<String, Known> {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(write(client.clone(), writer, stop.clone(), done.clone()))).collect();
    for round in 0..KILLS {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let writes = 50 + usize::try_from(seed >> 33).unwrap() % 200;
        progress(&done, writes).await;
        let pid = api_server().expect("the API server runs");
        kill(pid, Signal::SIGKILL).unwrap();
        eprintln!("kill {round} after {writes} more writes, {} in all", done.load(Ordering::Relaxed));
        // Another one serves: writes are acknowledged again.
        progress(&done, 20).await;
        assert_ne!(api_server(), Some(pid));
    }
    stop.store(true, Ordering::Relaxed);
    let mut known = BTreeMap::new();
    for writer in writers {
        known.extend(writer.await.unwrap());
    }
    known
}

/// Everything is as it was acknowledged, or as it was asked for when the server died.
async fn check(client: Client, known: &BTreeMap<String, Known>) {
    let maps = Api::<ConfigMap>::default_namespaced(client);
    let found = maps.list(&ListParams::default()).await.unwrap();
    let found: BTreeMap<String, State> = found
        .into_iter()
        .filter_map(|map| {
            let value = map.data?.get("value")?.parse().ok()?;
            Some((map.metadata.name?, State::Value(value)))
        })
        .collect();
    for (name, Known { acknowledged, asked }) in known {
        let state = found.get(name).copied().unwrap_or(State::Absent);
        assert!(
            state == *acknowledged || state == *asked,
            "{name} is {state:?}; acknowledged {acknowledged:?}, asked for {asked:?}"
        );
    }
    let unasked: Vec<_> =
        found.keys().filter(|name| name.starts_with("written-") && !known.contains_key(*name)).collect();
    assert!(unasked.is_empty(), "nobody has written {unasked:?}");
    let open = known.values().filter(|known| known.acknowledged != known.asked).count();
    eprintln!("{} objects, {open} of them unknown to their writers, {} there", known.len(), found.len());
    assert!(open > 0, "no write was under way when the server was killed");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_api_server_is_killed() {
    let Some(harness) = Harness::new() else { return };
    let _down = support::Cluster(&harness, CLUSTER);
    let up = harness.run("up", CLUSTER, &[]);
    let path = String::from_utf8(up.stdout).unwrap();
    let seed = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    eprintln!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let kubeconfig = kube::config::Kubeconfig::read_from(path.trim()).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let known = kill_under_load(client.clone(), seed).await;
        check(client, &known).await;
    });
    works_afterwards(&harness);
}

/// The product has lived through it, and a new one starts in this cluster and passes a scenario. It is a new one since the
/// scenario is judged by whole logs, and whoever could not reach the API server has said so in its own.
fn works_afterwards(harness: &Harness) {
    let kubectl = |args: &[&str]| {
        let output = harness.run("kubectl", CLUSTER, &[&["--", "--namespace=kube-system"], args].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let restarts = kubectl(&["get", "pods", "-o", restarts]);
    assert!(restarts.split_whitespace().count() >= 4, "{restarts:?}");
    assert!(restarts.split_whitespace().all(|count| count == "0"), "restarts of containers: {restarts}");
    let ours = ["deployment/portolan-operator", "daemonset/portolan"];
    kubectl(&["rollout", "restart", ours[0], ours[1]]);
    for workload in ours {
        kubectl(&["rollout", "status", workload, "--timeout=120s"]);
    }
    let reach = harness.scenario("services/reach.yaml");
    harness.run("run", CLUSTER, &[reach.to_str().unwrap()]);
}
