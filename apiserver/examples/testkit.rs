//! The test kit: a controller of a custom resource with its manifests, its permissions, a cluster in which Deployments become
//! available, and faults on the way to the server. All in virtual time.
//!
//! ```text
//! cargo test -p apiserver --example testkit
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, with the line")]

use std::sync::Arc;
use std::time::Duration;

use apiserver::controllers::{self, ControllerOptions};
use apiserver::testing::{FakeNode, Fault, Faults, Writes, apply, settle};
use apiserver::{ApiServer, Options};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::await_condition;
use kube::runtime::watcher;
use kube::{Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What is wanted.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(group = "example.org", version = "v1", kind = "Website", namespaced, status = "WebsiteStatus")]
struct WebsiteSpec {
    image: String,
    replicas: i32,
}

/// What there is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct WebsiteStatus {
    available: i32,
}

/// What is installed with the controller, beside the definition.
const RBAC: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: websites}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: websites}
rules:
- {apiGroups: [example.org], resources: [websites], verbs: [get, list, watch]}
- {apiGroups: [example.org], resources: [websites/status], verbs: [patch]}
- {apiGroups: [apps], resources: [deployments], verbs: [get, list, watch, create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: websites}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: websites}
subjects:
- {kind: ServiceAccount, name: websites, namespace: default}
";

/// What is tested: a Deployment for every Website, and its availability in the status.
async fn reconcile(site: Arc<Website>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let (client, space, name) = (Client::clone(&client), site.namespace().unwrap_or_default(), site.name_any());
    let labels = json!({"site": name});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "ownerReferences": [site.controller_owner_ref(&())]},
        "spec": {"replicas": site.spec.replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": site.spec.image}]}}},
    });
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &space);
    let made = deployments.patch(&name, &PatchParams::apply("websites").force(), &Patch::Apply(deployment)).await?;
    let available = made.status.and_then(|status| status.available_replicas).unwrap_or(0);
    if site.status.as_ref().is_none_or(|status| status.available != available) {
        let status = json!({"status": {"available": available}});
        let sites: Api<Website> = Api::namespaced(client, &space);
        sites.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    Ok(Action::await_change())
}

async fn run(client: Client) {
    let controller = Controller::new(Api::<Website>::all(client.clone()), watcher::Config::default());
    let again = |_: Arc<Website>, _: &kube::Error, _: Arc<Client>| Action::requeue(Duration::from_secs(5));
    let controller = controller.owns(Api::<Deployment>::all(client.clone()), watcher::Config::default());
    controller.run(reconcile, again, Arc::new(client)).for_each(|_| async {}).await;
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    a_website_becomes_available_whatever_goes_wrong().await;
}

async fn a_website_becomes_available_whatever_goes_wrong() {
    // A cluster: the server, the controllers and a node.
    let server = ApiServer::start(Options::default()).unwrap();
    let mut cluster = controllers::start(server.clone(), ControllerOptions::default());
    let _node = FakeNode::new("n1").start(&server).await.unwrap();
    apply(&server, &serde_yaml::to_string(&Website::crd()).unwrap()).await.unwrap();
    apply(&server, RBAC).await.unwrap();

    // The controller as it is in a cluster, on a bad day.
    let (faults, writes) = (Faults::new(), Writes::new());
    faults.plant(Fault::refuse(409).resource("deployments.apps").writes().times(1));
    faults.plant(Fault::refuse(503).resource("websites.example.org").writes().times(2));
    faults.plant(Fault::lose_answer().resource("deployments.apps").writes().after(1).times(1));
    let account = server.as_service_account("default", "websites");
    tokio::spawn(run(Client::new(writes.on(faults.on(account)), "default")));

    let sites: Api<Website> = Api::default_namespaced(Client::new(server.clone(), "default"));
    let spec = WebsiteSpec { image: "web:1".into(), replicas: 2 };
    let metadata = ObjectMeta { name: Some("w".into()), ..ObjectMeta::default() };
    sites.create(&PostParams::default(), &Website { metadata, spec, status: None }).await.unwrap();
    let available = |count| {
        move |site: Option<&Website>| {
            site.and_then(|site| site.status.as_ref()).is_some_and(|status| status.available == count)
        }
    };
    // It fails as soon as a controller of the cluster does, not by waiting in vain.
    let wait = tokio::time::timeout(Duration::from_secs(300), await_condition(sites.clone(), "w", available(2)));
    cluster.during(wait).await.unwrap().unwrap();
    assert_eq!(faults.met(), 4, "all that was planted was met");

    // What happens while nobody watches is not lost.
    faults.expire_watches();
    sites.patch("w", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}}))).await.unwrap();
    let wait = tokio::time::timeout(Duration::from_secs(300), await_condition(sites, "w", available(3)));
    cluster.during(wait).await.unwrap().unwrap();

    // Once all is as it should be, nothing is written.
    settle(&server, Duration::from_secs(60)).await.unwrap();
    writes.take();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(writes.take(), []);
}

#[cfg(test)]
#[tokio::test(start_paused = true)]
async fn test() {
    a_website_becomes_available_whatever_goes_wrong().await;
}
