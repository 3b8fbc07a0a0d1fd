//! Installing portolan from `manifests/`, as a user would: the same files, with only the values of its ConfigMap changed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::Scope;
use kube::{Api, Client, Config, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Cluster, Role};

/// Which versions of the CRD are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Crds {
    /// v2alpha1 alone, as in the walk-through.
    V2alpha1,
    /// v2 and v2alpha1.
    All,
}

/// Settings that a run chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// CRD versions.
    pub(crate) crds: Crds,
    /// Socket LB.
    pub(crate) socket_lb: bool,
}

/// Time for everything to be ready.
const READY: Duration = Duration::from_secs(120);
/// Time for old pods to go.
const RESTART: Duration = Duration::from_secs(60);
/// Label of all pods of portolan.
pub(crate) const PORTOLAN: &str = "app.kubernetes.io/part-of=portolan";
/// Name in `managedFields`.
const MANAGER: &str = "portolan-e2e";

/// A client as the cluster's administrator.
///
/// # Errors
/// If the kubeconfig cannot be read.
pub(crate) async fn client(cluster: &dyn Cluster) -> Result<Client> {
    client_for(cluster.kubeconfig(), cluster.context()).await
}

/// A client by a kubeconfig and one of its contexts, the current one if none is given.
///
/// # Errors
/// If it cannot be read.
pub(crate) async fn client_for(kubeconfig: &Path, context: Option<&str>) -> Result<Client> {
    Ok(Client::try_from(config_for(kubeconfig, context).await?)?)
}

/// What a kubeconfig says of its cluster.
///
/// # Errors
/// If it cannot be read.
pub(crate) async fn config_for(kubeconfig: &Path, context: Option<&str>) -> Result<Config> {
    let read = kube::config::Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("reading kubeconfig {}", kubeconfig.display()))?;
    let options = kube::config::KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
    Config::from_custom_kubeconfig(read, &options).await.with_context(|| format!("in {}", kubeconfig.display()))
}

/// Waits until the API server is ready.
///
/// # Errors
/// With its last answer.
pub(crate) async fn wait_for_api(client: &Client) -> Result<()> {
    let deadline = Instant::now() + READY;
    loop {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let answer = match tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in 5 s".to_owned(),
        };
        if Instant::now() > deadline {
            bail!("the API server is not ready after {READY:?}: {answer}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Applies the manifests.
///
/// # Errors
/// With the object that the server refused.
pub(crate) async fn apply(client: &Client, cluster: &dyn Cluster, repo: &Path, settings: Settings) -> Result<()> {
    let manifests = repo.join("manifests");
    let crds = match settings.crds {
        Crds::V2alpha1 => manifests.join("variants/v2alpha1/00-crds.yaml"),
        Crds::All => manifests.join("install/00-crds.yaml"),
    };
    let mut files = vec![crds];
    for name in ["10-rbac.yaml", "20-config.yaml", "30-operator.yaml", "40-agent.yaml"] {
        files.push(manifests.join("install").join(name));
    }
    for file in files {
        for mut document in documents(&file)? {
            if document["kind"] == "ConfigMap" {
                configure(&mut document, cluster, settings)?;
            }
            apply_one(client, &document).await.with_context(|| format!("applying {}", file.display()))?;
        }
    }
    Ok(())
}

/// The YAML documents of a file.
///
/// # Errors
/// With the place that cannot be understood.
pub(crate) fn documents(file: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut all = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value = Value::deserialize(document).with_context(|| format!("in {}", file.display()))?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

/// The values of `config.yaml` that differ from cluster to cluster.
fn configure(document: &mut Value, cluster: &dyn Cluster, settings: Settings) -> Result<()> {
    let text = document["data"]["config.yaml"].as_str().context("the ConfigMap has no config.yaml")?;
    let mut config: Value = serde_yaml::from_str(text)?;
    let control_plane =
        cluster.nodes().iter().find(|node| node.role == Role::ControlPlane).context("no control plane")?;
    config["k8sServiceHost"] = json!(control_plane.address.to_string());
    config["k8sServicePort"] = json!(6443);
    config["clusterName"] = json!(cluster.name());
    config["socketLB"] = json!({"enabled": settings.socket_lb});
    document["data"]["config.yaml"] = json!(serde_yaml::to_string(&config)?);
    Ok(())
}

/// Applies one object by server-side apply and returns what the server made of it.
///
/// # Errors
/// With the object's name and the server's answer.
pub(crate) async fn apply_one(client: &Client, document: &Value) -> Result<DynamicObject> {
    let object: DynamicObject =
        serde_json::from_value(document.clone()).context("an object needs apiVersion and kind")?;
    let types = object.types.clone().context("an object needs apiVersion and kind")?;
    let name = format!("{} {}", types.kind, object.name_any());
    let api = api_of(client, &types.api_version, &types.kind, object.namespace().as_deref()).await?;
    let params = PatchParams::apply(MANAGER).force();
    api.patch(&object.name_any(), &params, &Patch::Apply(document)).await.with_context(|| format!("applying {name}"))
}

/// The API of a kind; namespaced objects without a namespace are in `default`.
///
/// # Errors
/// If the server does not know the kind.
pub(crate) async fn api_of(
    client: &Client,
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
) -> Result<Api<DynamicObject>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let deadline = Instant::now() + Duration::from_secs(10);
    let (resource, capabilities) = loop {
        // A CRD that was just applied takes a moment until it is served.
        match kube::discovery::pinned_kind(client, &gvk).await {
            Ok(found) => break found,
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("the server does not know {api_version} {kind}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    Ok(match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace.unwrap_or("default"), &resource),
    })
}

/// Gives the control-plane node its role label: kubelets may not do that themselves (NodeRestriction).
///
/// # Errors
/// If the node does not register.
pub(crate) async fn label_control_plane(client: &Client, cluster: &dyn Cluster) -> Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    for node in cluster.nodes().iter().filter(|node| node.role == Role::ControlPlane) {
        let deadline = Instant::now() + READY;
        let patch = json!({"metadata": {"labels": {
            "node-role.kubernetes.io/control-plane": "",
            "node.kubernetes.io/exclude-from-external-load-balancers": "",
        }}});
        while let Err(error) = nodes.patch(&node.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("node {} did not register", node.name));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Waits until all nodes are Ready, the agents and the operator available.
///
/// # Errors
/// After two minutes, with what is not ready and why.
pub(crate) async fn wait_until_ready(client: &Client, cluster: &dyn Cluster) -> Result<()> {
    let deadline = Instant::now() + READY;
    loop {
        let missing = match not_ready(client, cluster.nodes().len()).await {
            Ok(missing) if missing.is_empty() => return Ok(()),
            Ok(missing) => missing,
            Err(error) => vec![format!("{error:#}")],
        };
        if Instant::now() > deadline {
            bail!("not ready after {READY:?}:\n  {}", missing.join("\n  "));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn not_ready(client: &Client, nodes: usize) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let list = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    if list.items.len() < nodes {
        missing.push(format!("{} of {nodes} nodes have registered", list.items.len()));
    }
    for node in &list.items {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        if ready.is_none_or(|condition| condition.status != "True") {
            let why = ready.and_then(|condition| condition.message.clone()).unwrap_or_default();
            missing.push(format!("node {}: {why}", node.name_any()));
        }
    }
    let wanted = i32::try_from(nodes).unwrap_or(i32::MAX);
    let agents = Api::<DaemonSet>::namespaced(client.clone(), "kube-system").get("portolan").await?;
    let operator = Api::<Deployment>::namespaced(client.clone(), "kube-system").get("portolan-operator").await?;
    let agents_ready = agents.status.map_or(0, |status| status.number_ready);
    let operator_ready = operator.status.and_then(|status| status.available_replicas).unwrap_or(0);
    if agents_ready < wanted {
        missing.push(format!("{agents_ready} of {nodes} agents are ready"));
    }
    if operator_ready < 1 {
        missing.push("the operator is not available".to_owned());
    }
    if agents_ready < wanted || operator_ready < 1 {
        missing.extend(waiting_pods(client, "kube-system").await?);
    }
    Ok(missing)
}

/// Starts portolan's pods of these labels anew, and returns when the old ones are gone.
///
/// # Errors
/// If they do not go.
pub(crate) async fn restart(client: &Client, labels: &str) -> Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), "kube-system");
    let ours = ListParams::default().labels(labels);
    let old: Vec<Option<String>> = pods.list(&ours).await?.iter().map(ResourceExt::uid).collect();
    pods.delete_collection(&DeleteParams::default(), &ours).await.context("deleting portolan's pods")?;
    let deadline = Instant::now() + RESTART;
    loop {
        let left: Vec<String> =
            pods.list(&ours).await?.iter().filter(|pod| old.contains(&pod.uid())).map(ResourceExt::name_any).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("pods that are still there after {RESTART:?}: {left:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a namespace's pods wait for.
///
/// # Errors
/// If the API server cannot be asked.
pub(crate) async fn waiting_pods(client: &Client, namespace: &str) -> Result<Vec<String>> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
    let mut lines = Vec::new();
    for pod in pods {
        let name = pod.name_any();
        let Some(status) = pod.status else { continue };
        let all = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
        for container in all.filter(|container| !container.ready) {
            let state = container.state.unwrap_or_default();
            let why = match (state.waiting, state.terminated) {
                (Some(waiting), _) => {
                    format!("{} {}", waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default())
                }
                (_, Some(ended)) => {
                    format!("ended with code {} {}", ended.exit_code, ended.message.unwrap_or_default())
                }
                _ => "not ready".to_owned(),
            };
            lines.push(format!("pod {name} container {}: {why}", container.name));
        }
        for condition in
            status.conditions.into_iter().flatten().filter(|c| c.type_ == "PodScheduled" && c.status != "True")
        {
            lines.push(format!("pod {name}: {}", condition.message.unwrap_or_default()));
        }
    }
    Ok(lines)
}
