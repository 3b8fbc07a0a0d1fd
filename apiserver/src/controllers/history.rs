//! ControllerRevisions: the templates that a set has had.

use std::sync::Arc;

use serde_json::{Value, json};

use super::cache::Key;
use super::client::{DeleteOptions, Refused};
use super::context::Tools;
use super::kind::{CONTROLLER_REVISIONS, Kind};
use super::object::{hash, name, namespace, number, owner_reference, set_entry, text};

/// The revisions of one set.
pub(super) struct History<'a> {
    pub(super) tools: &'a Tools<Key>,
    pub(super) kind: &'a Kind,
    pub(super) set: &'a Value,
    /// Label that the hash of a template is kept in.
    pub(super) hash_label: &'static str,
}

/// The revision of the present template, and the others.
pub(super) struct Revisions {
    pub(super) newest: Arc<Value>,
    pub(super) old: Vec<Arc<Value>>,
}

/// What a revision holds: a patch that brings the template back.
fn snapshot(set: &Value) -> Value {
    let mut template = set["spec"]["template"].clone();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that a revision brings back.
pub(super) fn template(revision: &Value) -> Value {
    let mut template = revision["data"]["spec"]["template"].clone();
    if let Some(template) = template.as_object_mut() {
        template.remove("$patch");
    }
    template
}

fn revision_number(revision: &Value) -> i64 {
    number(revision, "/revision")
}

impl History<'_> {
    /// Finds or makes the revision of the present template, and gives it the highest number.
    pub(super) async fn newest_and_old(&self) -> Result<Revisions, Refused> {
        let all = self.tools.claim((self.kind, self.set), &CONTROLLER_REVISIONS, |_| true).await?;
        let data = snapshot(self.set);
        let (mut same, old): (Vec<_>, Vec<_>) = all.into_iter().partition(|revision| revision["data"] == data);
        same.sort_by_key(|revision| revision_number(revision));
        let highest = old.iter().map(|revision| revision_number(revision)).max().unwrap_or(0);
        let newest = match same.pop() {
            None => self.make(data, highest + 1).await?,
            Some(found) if revision_number(&found) <= highest => {
                let mut raised = Value::clone(&found);
                raised["revision"] = json!(highest + 1);
                self.tools.client.update(&CONTROLLER_REVISIONS, "", &raised).await?
            }
            Some(found) => found,
        };
        Ok(Revisions { newest, old })
    }

    async fn make(&self, data: Value, number: i64) -> Result<Arc<Value>, Refused> {
        let collisions = self.set["status"]["collisionCount"].as_i64().unwrap_or(0);
        let hash = hash(&self.set["spec"]["template"], collisions);
        let mut revision = json!({
            "kind": "ControllerRevision", "apiVersion": "apps/v1", "data": data, "revision": number,
            "metadata": {
                "name": format!("{}-{hash}", name(self.set)), "namespace": namespace(self.set),
                "labels": self.set["spec"]["template"]["metadata"]["labels"],
                "annotations": self.set["metadata"]["annotations"],
                "ownerReferences": [owner_reference(self.kind, self.set)],
            },
        });
        set_entry(&mut revision, "labels", self.hash_label, &hash);
        match self.tools.client.create(&CONTROLLER_REVISIONS, &revision).await {
            Err(refused) if refused.is_already_exists() => self.resolve(&revision, refused).await,
            other => other,
        }
    }

    /// The name is taken: by the same revision, which we did not know yet, or by another one with the same hash.
    async fn resolve(&self, wanted: &Value, refused: Refused) -> Result<Arc<Value>, Refused> {
        let found = self.tools.client.get(&CONTROLLER_REVISIONS, namespace(wanted), name(wanted)).await?;
        if found["data"] == wanted["data"] {
            return Ok(Arc::new(found));
        }
        let mut set = self.tools.client.get(self.kind, namespace(self.set), name(self.set)).await?;
        let collisions = set["status"]["collisionCount"].as_i64().unwrap_or(0);
        set["status"]["collisionCount"] = json!(collisions + 1);
        self.tools.client.update(self.kind, "status", &set).await?;
        Err(refused)
    }

    /// Deletes the oldest revisions that are not in use, beyond the limit of the set.
    pub(super) async fn forget_old(&self, old: &[Arc<Value>], in_use: impl Fn(&Value) -> bool) -> Result<(), Refused> {
        let keep = self.set["spec"]["revisionHistoryLimit"].as_u64().unwrap_or(10) as usize;
        let mut dead: Vec<&Arc<Value>> = old.iter().filter(|revision| !in_use(revision)).collect();
        dead.sort_by_key(|revision| (revision_number(revision), text(revision, "/metadata/name").to_owned()));
        let surplus = old.len().saturating_sub(keep).min(dead.len());
        for revision in &dead[..surplus] {
            self.tools.client.delete(&CONTROLLER_REVISIONS, revision, &DeleteOptions::default()).await?;
        }
        Ok(())
    }
}
