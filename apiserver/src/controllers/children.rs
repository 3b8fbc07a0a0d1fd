//! Owners and their children, as ReplicaSets, DaemonSets and Deployments have them: whose a child is, pods that are made
//! and deleted, and the status that tells of them.

use std::hash::Hash;
use std::sync::Arc;

use serde_json::{Value, json};

use super::client::{DeleteOptions, PatchType, Refused};
use super::context::Tools;
use super::kind::{Kind, PODS};
use super::object::{
    controller_of, is_controlled_by, is_terminating, labels, name, namespace, owner_reference, selector, selects, uid,
};

impl<K: Clone + Eq + Hash> Tools<K> {
    /// The objects of `kind` that belong to `owner`: those it controls, and free ones that its selector selects, which are
    /// adopted; those that it no longer selects are let go.
    pub(super) async fn claim(
        &self,
        (owner_kind, owner): (&Kind, &Value),
        kind: &Kind,
        adoptable: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Arc<Value>>, Refused> {
        let mut claimed = Vec::new();
        for object in self.cache.list(kind, namespace(owner)) {
            let selected = selects(&selector(owner_kind, owner), labels(&object));
            if is_controlled_by(&object, owner) {
                if selected {
                    claimed.push(object);
                } else if !is_terminating(owner) {
                    self.release(owner, kind, &object).await?;
                }
            } else if controller_of(&object).is_none()
                && selected
                && !is_terminating(owner)
                && !is_terminating(&object)
                && adoptable(&object)
            {
                claimed.extend(self.adopt((owner_kind, owner), kind, &object).await?);
            }
        }
        Ok(claimed)
    }

    async fn adopt(
        &self,
        (owner_kind, owner): (&Kind, &Value),
        kind: &Kind,
        object: &Value,
    ) -> Result<Option<Arc<Value>>, Refused> {
        // The cache may not know yet that the owner ends.
        let live = self.client.get(owner_kind, namespace(owner), name(owner)).await?;
        if uid(&live) != uid(owner) || is_terminating(&live) {
            return Ok(None);
        }
        self.refer(kind, object, owner_reference(owner_kind, owner)).await
    }

    async fn release(&self, owner: &Value, kind: &Kind, object: &Value) -> Result<(), Refused> {
        self.refer(kind, object, json!({"$patch": "delete", "uid": uid(owner)})).await.map(drop)
    }

    /// Patches a reference to an owner; nothing if the object has gone or is another one by now.
    async fn refer(&self, kind: &Kind, object: &Value, reference: Value) -> Result<Option<Arc<Value>>, Refused> {
        let patch = json!({"metadata": {"ownerReferences": [reference], "uid": uid(object)}});
        match self.client.patch(kind, object, "", PatchType::Strategic, &patch).await {
            Ok(patched) => Ok(Some(patched)),
            Err(refused) if refused.is_not_found() || refused.code == 422 => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// Makes a pod and says so; whether there may be more of them.
    pub(super) async fn create_pod(&self, kind: &Kind, owner: &Value, pod: &Value) -> Result<bool, Refused> {
        match self.client.create(&PODS, pod).await {
            Ok(made) => {
                self.recorder.say(kind, owner, "Normal", "SuccessfulCreate", format!("Created pod: {}", name(&made)));
                Ok(true)
            }
            Err(refused) if refused.is_namespace_terminating() => Ok(false),
            Err(refused) => {
                let message = format!("Error creating: {}", refused.message);
                self.recorder.say(kind, owner, "Warning", "FailedCreate", message);
                Err(refused)
            }
        }
    }

    /// Deletes a pod and says so.
    pub(super) async fn delete_pod(&self, kind: &Kind, owner: &Value, pod: &Value) -> Result<(), Refused> {
        let done = self.client.delete(&PODS, pod, &DeleteOptions::default()).await;
        let (type_, reason, message) = match &done {
            Ok(()) => ("Normal", "SuccessfulDelete", format!("Deleted pod: {}", name(pod))),
            Err(refused) => ("Warning", "FailedDelete", format!("Error deleting: {}", refused.message)),
        };
        self.recorder.say(kind, owner, type_, reason, message);
        done
    }

    /// Writes a status if it says something else than what is known.
    pub(super) async fn write_status(&self, kind: &Kind, object: &Value, status: Value) -> Result<(), Refused> {
        let Some(current) = self.cache.get(kind, namespace(object), name(object)) else { return Ok(()) };
        if current["status"] == status {
            return Ok(());
        }
        let mut wanted = Value::clone(&current);
        wanted["status"] = status;
        self.client.update(kind, "status", &wanted).await.map(drop)
    }
}
