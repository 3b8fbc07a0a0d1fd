//! A controller and its test: in one process and in virtual time, without a cluster, a port or a binary.
//!
//! ```text
//! cargo test -p apiserver --example controller
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, with the line")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, Options};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::await_condition;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serde_json::json;

/// What is tested: every ConfigMap gets a label that says how many keys it has.
async fn reconcile(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let keys = map.data.as_ref().map_or(0, BTreeMap::len).to_string();
    let maps: Api<ConfigMap> = Api::namespaced(Client::clone(&client), &map.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"labels": {"keys": keys}}});
    maps.patch(&map.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(Action::await_change())
}

/// Starts it, and goes on for ever.
async fn run(client: Client) {
    let controller = Controller::new(Api::<ConfigMap>::all(client.clone()), watcher::Config::default());
    let again = |_: Arc<ConfigMap>, _: &kube::Error, _: Arc<Client>| Action::requeue(Duration::from_secs(5));
    controller.run(reconcile, again, Arc::new(client)).for_each(|_| async {}).await;
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    every_map_is_labelled().await;
}

async fn every_map_is_labelled() {
    let client = Client::new(ApiServer::start(Options::default()).unwrap(), "default");
    tokio::spawn(run(client.clone()));
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1", "b": "2"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let labelled = |map: Option<&ConfigMap>| map.is_some_and(|map| map.labels().get("keys").is_some_and(|n| n == "2"));
    let done = tokio::time::timeout(Duration::from_secs(60), await_condition(maps, "m", labelled)).await;
    done.unwrap().unwrap();
}

#[cfg(test)]
#[tokio::test(start_paused = true)]
async fn test() {
    every_map_is_labelled().await;
}
