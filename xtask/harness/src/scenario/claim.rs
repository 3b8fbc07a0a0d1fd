//! On a cluster of somebody else's, an object is ours if it carries our label. Ours are labelled when they are made, and
//! nothing else is changed or deleted.

use anyhow::{Result, bail};
use kube::{Client, ResourceExt};
use serde_json::{Map, Value, json};

use super::assertion;
use super::format::ObjectRef;
use crate::cluster::Cluster;

/// The object with our label, also on the pods that it makes.
///
/// # Errors
/// If there is one of that name that is not ours.
pub(super) async fn label(client: &Client, cluster: &dyn Cluster, object: &Value) -> Result<Value> {
    let Some(label) = cluster.label() else { return Ok(object.clone()) };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let reference = ObjectRef {
        api_version: text(&object["apiVersion"]).unwrap_or_default(),
        kind: text(&object["kind"]).unwrap_or_default(),
        name: text(&object["metadata"]["name"]).unwrap_or_default(),
        namespace: text(&object["metadata"]["namespace"]),
    };
    refuse_foreign(client, cluster, &reference).await?;
    Ok(labelled(object, label))
}

/// Refuses what is there and not ours.
///
/// # Errors
/// If so.
pub(super) async fn refuse_foreign(client: &Client, cluster: &dyn Cluster, reference: &ObjectRef) -> Result<()> {
    let Some(label) = cluster.label() else { return Ok(()) };
    match assertion::read(client, reference).await? {
        Some(object) if !object.labels().contains_key(label) => bail!(
            "{} {} is there and does not carry the label {label}: it is somebody else's, and not touched",
            reference.kind,
            reference.name
        ),
        _ => Ok(()),
    }
}

fn labelled(object: &Value, label: &str) -> Value {
    let mut object = object.clone();
    for path in ["/metadata", "/spec/template/metadata"] {
        if let Some(Value::Object(metadata)) = object.pointer_mut(path)
            && let Value::Object(labels) = metadata.entry("labels").or_insert_with(|| Value::Object(Map::new()))
        {
            labels.insert(label.to_owned(), json!("true"));
        }
    }
    object
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
