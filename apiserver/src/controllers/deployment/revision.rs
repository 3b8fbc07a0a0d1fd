//! Which set is the new one, and its number in the history.

use std::sync::Arc;

use serde_json::{Value, json};

use super::math::{DESIRED, MOST, by_age, max_surge, new_replicas, replicas, total};
use super::{Rollout, Sets, status};
use crate::controllers::client::Refused;
use crate::controllers::kind::{DEPLOYMENTS, REPLICA_SETS};
use crate::controllers::object::{annotation, hash, is_controlled_by, name, namespace, owner_reference, set_entry};

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotations of a Deployment that are not meant for its sets.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MOST,
    "deprecated.deployment.rollback.to",
];

/// The revision that a set has.
pub(super) fn number_of(set: &Value) -> i64 {
    annotation(set, REVISION).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn same_template(deployment: &Value, set: &Value) -> bool {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
        if labels.is_empty() {
            template["metadata"].as_object_mut().map(|metadata| metadata.remove("labels"));
        }
    }
    template == deployment["spec"]["template"]
}

/// The oldest set with the present template, and all others.
pub(super) fn split(deployment: &Value, mut own: Vec<Arc<Value>>) -> Sets {
    by_age(&mut own);
    match own.iter().position(|set| same_template(deployment, set)) {
        Some(at) => Sets { new: Some(own.remove(at)), old: own },
        None => Sets { new: None, old: own },
    }
}

/// Brings annotations of a set up to date; whether anything changed.
fn annotate(deployment: &Value, set: &mut Value, revision: i64, exists: bool) {
    let annotations = deployment["metadata"]["annotations"].as_object();
    for (key, value) in annotations.into_iter().flatten().filter(|(key, _)| !OWN.contains(&key.as_str())) {
        set_entry(set, "annotations", key, value.as_str().unwrap_or_default());
    }
    let (old, old_text) = (number_of(set), annotation(set, REVISION).map(str::to_owned));
    if old < revision {
        set_entry(set, "annotations", REVISION, &revision.to_string());
        if let Some(old) = old_text {
            let history = match annotation(set, HISTORY) {
                Some(history) if !history.is_empty() => format!("{history},{old}"),
                _ => old,
            };
            set_entry(set, "annotations", HISTORY, &history);
        }
    }
    if !exists {
        let wanted = replicas(deployment);
        set_entry(set, "annotations", DESIRED, &wanted.to_string());
        set_entry(set, "annotations", MOST, &(wanted + max_surge(deployment)).to_string());
    }
}

impl Rollout<'_> {
    /// Finds the new set, or makes it if asked, and gives it the highest revision.
    pub(super) async fn sync_revision(&mut self, own: Vec<Arc<Value>>, make: bool) -> Result<Sets, Refused> {
        let mut sets = split(&self.deployment, own);
        let revision = sets.old.iter().map(|set| number_of(set)).max().unwrap_or(0) + 1;
        match &sets.new {
            Some(new) => sets.new = Some(self.renew(Arc::clone(new), revision).await?),
            None if make => sets.new = Some(self.make(&sets, revision).await?),
            None => {}
        }
        Ok(sets)
    }

    async fn renew(&mut self, set: Arc<Value>, revision: i64) -> Result<Arc<Value>, Refused> {
        let mut wanted = Value::clone(&set);
        annotate(&self.deployment, &mut wanted, revision, true);
        let minimum = &self.deployment["spec"]["minReadySeconds"];
        if wanted["spec"]["minReadySeconds"].as_i64().unwrap_or(0) != minimum.as_i64().unwrap_or(0) {
            wanted["spec"]["minReadySeconds"] = minimum.clone();
        }
        let set = match wanted == *set {
            true => set,
            false => self.tools.client.update(&REPLICA_SETS, "", &wanted).await?,
        };
        let numbered = self.take_revision(annotation(&set, REVISION).unwrap_or_default());
        let found = status::condition(&self.deployment, "Progressing").is_none() && self.has_deadline();
        if found {
            let message = format!("Found new replica set \"{}\"", name(&set));
            self.set_condition("Progressing", "True", "FoundNewReplicaSet", &message);
        }
        if numbered || found {
            self.write().await?;
        }
        Ok(set)
    }

    /// The revision of the new set is that of the Deployment; whether that is news.
    fn take_revision(&mut self, revision: &str) -> bool {
        let news = annotation(&self.deployment, REVISION) != Some(revision);
        if news {
            set_entry(&mut self.deployment, "annotations", REVISION, revision);
        }
        news
    }

    async fn make(&mut self, sets: &Sets, revision: i64) -> Result<Arc<Value>, Refused> {
        let wanted = self.fresh_set(sets, revision);
        let made = self.tools.client.create(&REPLICA_SETS, &wanted).await;
        let set = match made {
            Ok(set) => {
                let size = replicas(&set);
                if size > 0 {
                    self.say_scaled(name(&set), 0, size);
                }
                set
            }
            Err(refused) if refused.is_already_exists() => self.resolve(&wanted, refused).await?,
            Err(refused) if refused.is_namespace_terminating() => return Err(refused),
            Err(refused) => {
                let message = format!("Failed to create new replica set \"{}\": {}", name(&wanted), refused.message);
                if self.has_deadline() {
                    self.set_condition("Progressing", "False", "ReplicaSetCreateError", &message);
                    self.write().await?;
                }
                let (recorder, owner) = (&self.tools.recorder, &self.deployment);
                recorder.say(&DEPLOYMENTS, owner, "Warning", "ReplicaSetCreateError", message);
                return Err(refused);
            }
        };
        let numbered = self.take_revision(&revision.to_string());
        if self.has_deadline() {
            let message = format!("Created new replica set \"{}\"", name(&set));
            self.set_condition("Progressing", "True", "NewReplicaSetCreated", &message);
        }
        if numbered || self.has_deadline() {
            self.write().await?;
        }
        Ok(set)
    }

    fn fresh_set(&self, sets: &Sets, revision: i64) -> Value {
        let deployment = &self.deployment;
        let collisions = deployment["status"]["collisionCount"].as_i64().unwrap_or(0);
        let hash = hash(&deployment["spec"]["template"], collisions);
        let mut template = deployment["spec"]["template"].clone();
        set_entry(&mut template, "labels", HASH, &hash);
        let mut selector = deployment["spec"]["selector"].clone();
        selector["matchLabels"][HASH] = json!(hash);
        let mut set = json!({
            "kind": "ReplicaSet", "apiVersion": "apps/v1",
            "metadata": {
                "name": format!("{}-{hash}", name(deployment)), "namespace": namespace(deployment),
                "labels": template["metadata"]["labels"],
                "ownerReferences": [owner_reference(&DEPLOYMENTS, deployment)],
            },
            "spec": {
                "replicas": new_replicas(deployment, total(&sets.old), 0),
                "selector": selector, "template": template,
            },
        });
        if let Some(minimum) = deployment["spec"]["minReadySeconds"].as_i64().filter(|minimum| *minimum > 0) {
            set["spec"]["minReadySeconds"] = json!(minimum);
        }
        annotate(deployment, &mut set, revision, false);
        set
    }

    /// The name is taken: by our own set, which we did not know yet, or by another template with the same hash.
    async fn resolve(&mut self, wanted: &Value, refused: Refused) -> Result<Arc<Value>, Refused> {
        let found = self.tools.client.get(&REPLICA_SETS, namespace(wanted), name(wanted)).await?;
        if is_controlled_by(&found, &self.deployment) && same_template(&self.deployment, &found) {
            return Ok(Arc::new(found));
        }
        let collisions = self.deployment["status"]["collisionCount"].as_i64().unwrap_or(0);
        self.deployment["status"]["collisionCount"] = json!(collisions + 1);
        self.write().await?;
        Err(refused)
    }
}
