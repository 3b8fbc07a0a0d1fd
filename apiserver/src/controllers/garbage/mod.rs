//! The garbage collector: what has lost its last owner is deleted, what is deleted with its dependents waits for them,
//! what is deleted without them lets them go. It watches the metadata of every kind that is served.

mod monitors;
mod owners;

use std::sync::Arc;

use serde_json::{Value, json};

use super::cache::Change;
use super::client::{DeleteOptions, PatchType, Refused};
use super::context::{Context, Controller, Tools, work};
use super::informer::Detail;
use super::kind::Kind;
use super::object::{is_terminating, list, name, namespace, revision, text, uid};
pub(super) use monitors::discover;
use owners::{Standing, blocks, has_finalizer, without_owners};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

pub(super) fn start(context: &mut Context) {
    let tools: Tools<String> = context.tools("generic-garbage-collector", "garbage-collector-controller");
    let first = monitors::start(context, &tools.client);
    let collector = context.listen(Collector(tools));
    let cache = Arc::clone(&context.cache);
    context.tasks.spawn(async move {
        // Before everything is known nothing looks as if it had no owner.
        if first.await.is_err() {
            return;
        }
        cache.synced(&cache.kinds()).await;
        work("garbage-collector", collector).await;
    });
}

fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/metadata/ownerReferences").iter().filter_map(|owner| owner["uid"].as_str())
}

struct Collector(Tools<String>);

impl Controller for Collector {
    type Key = String;

    fn tools(&self) -> &Tools<String> {
        &self.0
    }

    fn note(&self, change: &Change) {
        // An object with owners may have lost them; one that is being deleted may have dependents; and whoever waits for a
        // dependent looks again when that changes.
        let Tools { cache, queue, .. } = &self.0;
        let object = change.object();
        let owned = |object: &Arc<Value>| object["metadata"]["ownerReferences"].clone();
        match &change.after {
            None => queue.add(uid(object).to_owned()),
            Some(after) => {
                let news = change.before.as_ref().map(owned) != Some(owned(after));
                let ending = is_terminating(after) && !list(after, "/metadata/finalizers").is_empty();
                if ending || (news && !list(after, "/metadata/ownerReferences").is_empty()) {
                    queue.add(uid(after).to_owned());
                }
            }
        }
        for owner in change.both().flat_map(|object| owner_uids(object)) {
            if cache.by_uid(owner).is_some_and(|(_, owner)| is_terminating(&owner) && has_finalizer(&owner, FOREGROUND))
            {
                queue.add(owner.to_owned());
            }
        }
    }

    async fn reconcile(&self, id: String) -> Result<(), Refused> {
        let Some((kind, object)) = self.0.cache.by_uid(&id) else {
            let dependents = self.0.cache.dependents(&id);
            self.0.queue.extend(dependents.iter().map(|(_, dependent)| uid(dependent).to_owned()));
            return Ok(());
        };
        if !is_terminating(&object) {
            return match list(&object, "/metadata/ownerReferences").is_empty() {
                true => Ok(()),
                false => self.judge(&kind, &object).await,
            };
        }
        // A kind whose objects are not known yet may have dependents, too.
        if has_finalizer(&object, ORPHAN) {
            self.0.cache.synced(&self.0.cache.kinds()).await;
            self.orphan(&kind, &object).await
        } else if has_finalizer(&object, FOREGROUND) {
            self.0.cache.synced(&self.0.cache.kinds()).await;
            self.wait_for_dependents(&kind, &object).await
        } else {
            Ok(())
        }
    }
}

impl Collector {
    /// Deletes an object that nobody owns any more.
    async fn judge(&self, kind: &Kind, object: &Value) -> Result<(), Refused> {
        let live = match self.0.client.get(kind, namespace(object), name(object)).await {
            Ok(live) if uid(&live) == uid(object) => live,
            Ok(_) => return Ok(()),
            Err(refused) if refused.is_not_found() => return Ok(()),
            Err(refused) => return Err(refused),
        };
        let (mut solid, mut waiting, mut useless) = (false, false, Vec::new());
        for reference in list(&live, "/metadata/ownerReferences") {
            match self.standing(kind, &live, reference).await? {
                Standing::Solid => solid = true,
                Standing::Gone => useless.push(text(reference, "/uid").to_owned()),
                Standing::Waiting => {
                    waiting = true;
                    useless.push(text(reference, "/uid").to_owned());
                }
            }
        }
        if solid {
            return match useless.is_empty() {
                true => Ok(()),
                false => self.drop_owners(kind, &live, &useless).await,
            };
        }
        let dependents = self.0.cache.dependents(uid(object));
        let policy = if waiting && !dependents.is_empty() {
            // In a circle each would wait for the other.
            let circular = |(_, other): &(Kind, Arc<Value>)| is_terminating(other) && has_finalizer(other, FOREGROUND);
            if dependents.iter().any(circular) {
                self.unblock(kind, &live).await?;
            }
            "Foreground"
        } else if has_finalizer(&live, ORPHAN) {
            "Orphan"
        } else if has_finalizer(&live, FOREGROUND) {
            "Foreground"
        } else {
            "Background"
        };
        let options = DeleteOptions { policy, uid: uid(&live).to_owned(), ..DeleteOptions::default() };
        self.0.client.delete(kind, &live, &options).await
    }

    async fn standing(&self, kind: &Kind, object: &Value, reference: &Value) -> Result<Standing, Refused> {
        if let Some((owner_kind, owner)) = self.0.cache.by_uid(text(reference, "/uid"))
            && owners::is_named(reference, &owner_kind, &owner)
        {
            if !owner_kind.namespaced || namespace(object) == namespace(&owner) {
                return Ok(owners::standing(&owner));
            }
            if kind.namespaced {
                self.say_misplaced(kind, object, reference);
            }
        }
        let (group, version) =
            text(reference, "/apiVersion").rsplit_once('/').unwrap_or(("", text(reference, "/apiVersion")));
        let kinds = self.0.cache.kinds();
        let found = kinds.into_iter().find(|kind| kind.group == group && kind.name == text(reference, "/kind"));
        // Of a kind that is not served nothing is known, and nothing is deleted for it.
        let Some(mut owner_kind) = found else { return Ok(Standing::Solid) };
        owner_kind.version = version.to_owned().into();
        if owner_kind.namespaced && !kind.namespaced {
            self.say_misplaced(kind, object, reference);
            return Ok(Standing::Solid);
        }
        let space = if owner_kind.namespaced { namespace(object) } else { "" };
        match self.0.client.get(&owner_kind, space, text(reference, "/name")).await {
            Ok(owner) if reference["uid"] == uid(&owner) => Ok(owners::standing(&owner)),
            Ok(_) => Ok(Standing::Gone),
            Err(refused) if refused.is_not_found() => Ok(Standing::Gone),
            Err(refused) => Err(refused),
        }
    }

    /// An owner is in the namespace of what it owns, or in none.
    fn say_misplaced(&self, kind: &Kind, object: &Value, reference: &Value) {
        let [version, name, owner, uid] =
            ["/apiVersion", "/kind", "/name", "/uid"].map(|pointer| text(reference, pointer));
        let space = namespace(object);
        let message = format!(
            "ownerRef [{version}/{name}, namespace: {space}, name: {owner}, uid: {uid}] does not exist in namespace {space:?}"
        );
        self.0.recorder.say(kind, object, "Warning", "OwnerRefInvalidNamespace", message);
    }

    async fn drop_owners(&self, kind: &Kind, object: &Value, uids: &[String]) -> Result<(), Refused> {
        let gone: Vec<Value> = uids.iter().map(|uid| json!({"$patch": "delete", "uid": uid})).collect();
        let patch = json!({"metadata": {"uid": uid(object), "ownerReferences": gone}});
        let done = match self.0.client.patch(kind, object, "", PatchType::Strategic, &patch).await {
            // Custom resources have no merge keys.
            Err(refused) if refused.code == 415 => {
                let live = self.0.client.get(kind, namespace(object), name(object)).await?;
                let rest = without_owners(&live, uids);
                let patch = json!({"metadata": {"resourceVersion": revision(&live), "ownerReferences": rest}});
                self.0.client.patch(kind, object, "", PatchType::Merge, &patch).await
            }
            other => other,
        };
        match done {
            Err(refused) if !refused.is_not_found() => Err(refused),
            _ => Ok(()),
        }
    }

    async fn unblock(&self, kind: &Kind, object: &Value) -> Result<(), Refused> {
        let mut references = list(object, "/metadata/ownerReferences").to_vec();
        for reference in references.iter_mut().filter(|reference| reference["blockOwnerDeletion"] == true) {
            reference["blockOwnerDeletion"] = json!(false);
        }
        let patch = json!({"metadata": {"resourceVersion": revision(object), "ownerReferences": references}});
        self.0.client.patch(kind, object, "", PatchType::Merge, &patch).await.map(drop)
    }

    /// Objects that name this one among their owners, as they are now: each kind is watched by itself, so the cache may hear
    /// of the end of an owner before it hears of its last dependents.
    async fn live_dependents(&self, object: &Value) -> Result<Vec<(Kind, Value)>, Refused> {
        let space = namespace(object);
        let mut found = Vec::new();
        for kind in self.0.cache.kinds().into_iter().filter(|kind| space.is_empty() || kind.namespaced) {
            let accept = Detail::Metadata.accept(false);
            let mut all = match self.0.client.document(&kind.path(space, "", ""), accept).await {
                // It is served no more.
                Err(refused) if refused.is_not_found() => continue,
                other => other?,
            };
            if let Value::Array(items) = all["items"].take() {
                let owned = items.into_iter().filter(|item| owner_uids(item).any(|owner| owner == uid(object)));
                found.extend(owned.map(|item| (kind.clone(), item)));
            }
        }
        Ok(found)
    }

    /// Frees all dependents, then lets the object go.
    async fn orphan(&self, kind: &Kind, object: &Value) -> Result<(), Refused> {
        for (dependent_kind, dependent) in self.live_dependents(object).await? {
            self.drop_owners(&dependent_kind, &dependent, &[uid(object).to_owned()]).await?;
        }
        self.remove_finalizer(kind, object, ORPHAN).await
    }

    /// Lets the object go when no dependent blocks it; else sees to the dependents.
    async fn wait_for_dependents(&self, kind: &Kind, object: &Value) -> Result<(), Refused> {
        let dependents = self.0.cache.dependents(uid(object));
        if !dependents.iter().any(|(_, dependent)| blocks(dependent, uid(object))) {
            let live = self.live_dependents(object).await?;
            if live.iter().any(|(_, dependent)| blocks(dependent, uid(object))) {
                // The watch is about to tell of it, and brings us back.
                return Ok(());
            }
            return self.remove_finalizer(kind, object, FOREGROUND).await;
        }
        for (_, dependent) in dependents.iter().filter(|(_, dependent)| !is_terminating(dependent)) {
            self.0.queue.add(uid(dependent).to_owned());
        }
        Ok(())
    }

    async fn remove_finalizer(&self, kind: &Kind, object: &Value, finalizer: &str) -> Result<(), Refused> {
        let live = match self.0.client.get(kind, namespace(object), name(object)).await {
            Ok(live) if uid(&live) == uid(object) => live,
            Ok(_) => return Ok(()),
            Err(refused) if refused.is_not_found() => return Ok(()),
            Err(refused) => return Err(refused),
        };
        let rest: Vec<&Value> = list(&live, "/metadata/finalizers").iter().filter(|own| *own != finalizer).collect();
        let patch = json!({"metadata": {"resourceVersion": revision(&live), "finalizers": rest}});
        match self.0.client.patch(kind, object, "", PatchType::Merge, &patch).await {
            Err(refused) if !refused.is_not_found() => Err(refused),
            _ => Ok(()),
        }
    }
}
