//! Removing everything that carries the harness's label, whatever its kind: after a run, and after one that was killed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::discovery::{Discovery, verbs};
use kube::{Api, Client, ResourceExt};

use super::LABEL;

/// Time for everything to be gone.
const GONE: Duration = Duration::from_secs(90);

/// Deletes what carries the label and waits until it is gone; returns what it was.
///
/// # Errors
/// With what stays.
pub(crate) async fn sweep(client: &Client) -> Result<Vec<String>> {
    // What is served is asked once: the harness defines no kinds.
    let discovery = Discovery::new(client.clone()).run().await.context("asking which kinds there are")?;
    let kinds: Vec<_> = discovery
        .groups()
        .flat_map(|group| group.recommended_resources())
        .filter(|(_, capabilities)| {
            capabilities.supports_operation(verbs::LIST) && capabilities.supports_operation(verbs::DELETE)
        })
        .collect();
    let labelled = ListParams::default().labels(LABEL);
    let mut removed = Vec::new();
    let deadline = Instant::now() + GONE;
    loop {
        let mut left = Vec::new();
        for (resource, _) in &kinds {
            for object in Api::<DynamicObject>::all_with(client.clone(), resource).list(&labelled).await? {
                let name = format!("{} {}", resource.kind, object.name_any());
                if object.metadata.deletion_timestamp.is_none() {
                    delete(client, resource, &object).await.with_context(|| format!("deleting {name}"))?;
                    removed.push(name.clone());
                }
                left.push(name);
            }
        }
        if left.is_empty() {
            return Ok(removed);
        }
        if Instant::now() > deadline {
            bail!("still there after {GONE:?}: {}", left.join(", "));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn delete(client: &Client, resource: &kube::discovery::ApiResource, object: &DynamicObject) -> kube::Result<()> {
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    match api.delete(&object.name_any(), &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        // Its owner's end may have taken it along.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
