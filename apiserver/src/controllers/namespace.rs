//! Empties namespaces that are being deleted, pods first, and lets them go when nothing is left.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cache::Change;
use super::client::{Client, Refused};
use super::context::{Context, Controller, Tools};
use super::garbage::discover;
use super::kind::{Kind, NAMESPACES, PODS};
use super::object::{is_terminating, list, name, namespace, text};
use super::selection;
use crate::clock::seconds;

const FINALIZER: &str = "kubernetes";

pub(super) fn start(context: &mut Context) {
    context.run(
        selection::Controller::Namespace,
        Namespaces(context.tools("namespace-controller", "namespace-controller")),
    );
}

struct Namespaces(Tools<String>);

impl Controller for Namespaces {
    type Key = String;

    fn tools(&self) -> &Tools<String> {
        &self.0
    }

    fn note(&self, change: &Change) {
        // One that ends needs a look, and another one whenever something in it is gone.
        let (Tools { cache, queue, .. }, object) = (&self.0, change.object());
        if change.is(&NAMESPACES) {
            if is_terminating(object) && change.after.is_some() {
                queue.add(name(object).to_owned());
            }
        } else if change.after.is_none()
            && cache.get(&NAMESPACES, "", namespace(object)).is_some_and(|namespace| is_terminating(&namespace))
        {
            queue.add(namespace(object).to_owned());
        }
    }

    async fn reconcile(&self, name: String) -> Result<(), Refused> {
        let Tools { client, clock, .. } = &self.0;
        let namespace = match client.get(&NAMESPACES, "", &name).await {
            Ok(namespace) => namespace,
            Err(refused) if refused.is_not_found() => return Ok(()),
            Err(refused) => return Err(refused),
        };
        if !is_terminating(&namespace) || list(&namespace, "/spec/finalizers").is_empty() {
            return Ok(());
        }
        let kinds: Vec<Kind> = discover(client).await?.into_iter().filter(|kind| kind.namespaced).collect();
        let mut remains = Remains::default();
        empty(client, &name, &PODS, &mut remains).await;
        let pods_remain = !remains.instances.is_empty();
        if !pods_remain {
            // Nothing else goes before the pods that may need it.
            for kind in kinds.iter().filter(|kind| **kind != PODS) {
                empty(client, &name, kind, &mut remains).await;
            }
        }
        let mut current = namespace;
        // As long as it is pods that remain the real one says that nothing does.
        let told = if pods_remain { &Remains::default() } else { &remains };
        let conditions = conditions(&current, told, &seconds(clock.now()));
        if current["status"]["conditions"] != conditions {
            current["status"]["conditions"] = conditions;
            current = Value::clone(&*client.update(&NAMESPACES, "status", &current).await?);
        }
        if let Some(failure) = remains.failures.into_iter().next() {
            return Err(Refused { code: 500, reason: String::new(), message: failure });
        }
        if !remains.instances.is_empty() {
            // The last one that goes brings us back.
            return Ok(());
        }
        let finalizers: Vec<Value> =
            list(&current, "/spec/finalizers").iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
        current["spec"]["finalizers"] = json!(finalizers);
        match client.update(&NAMESPACES, "finalize", &current).await {
            Err(refused) if !refused.is_not_found() => Err(refused),
            _ => Ok(()),
        }
    }
}

/// What a pass over the content has left.
#[derive(Default)]
struct Remains {
    instances: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    failures: Vec<String>,
}

/// Deletes all objects of a kind and counts those that stay.
async fn empty(client: &Client, namespace: &str, kind: &Kind, remains: &mut Remains) {
    let path = kind.path(namespace, "", "");
    let qualified = crate::failure::qualified(&kind.plural, &kind.group);
    let left = match client.delete_collection(kind, namespace).await {
        Ok(()) => client.document(&path, "application/json").await,
        Err(refused) => Err(refused),
    };
    match left {
        Ok(left) => {
            let items = list(&left, "/items");
            if !items.is_empty() {
                // The real one writes the resource as group-less and version-less text, too.
                *remains.instances.entry(format!("{}.{}", kind.plural, kind.group)).or_default() += items.len();
            }
            for finalizer in items.iter().flat_map(|item| list(item, "/metadata/finalizers")) {
                *remains.finalizers.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        // The kind went with its definition.
        Err(refused) if refused.is_not_found() || refused.code == 405 => {}
        Err(refused) => remains.failures.push(format!("unexpected error deleting {qualified}: {refused}")),
    }
}

/// The five conditions of a namespace that ends.
fn conditions(namespace: &Value, remains: &Remains, now: &str) -> Value {
    let count = |map: &BTreeMap<String, usize>, word: &str| {
        let parts: Vec<String> = map.iter().map(|(what, n)| format!("{what}{word} {n} resource instances")).collect();
        parts.join(", ")
    };
    let failure = (!remains.failures.is_empty()).then(|| {
        format!(
            "Failed to delete all resource types, {} remaining: {}",
            remains.failures.len(),
            remains.failures.join(", ")
        )
    });
    let rest = (!remains.instances.is_empty())
        .then(|| format!("Some resources are remaining: {}", count(&remains.instances, " has")));
    let held = (!remains.finalizers.is_empty()).then(|| {
        format!("Some content in the namespace has finalizers remaining: {}", count(&remains.finalizers, " in"))
    });
    let rows = [
        ("NamespaceDeletionDiscoveryFailure", None, "", "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            failure,
            "ContentDeletionFailed",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            rest,
            "SomeResourcesRemain",
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            held,
            "SomeFinalizersRemain",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    let old = list(namespace, "/status/conditions");
    let condition = |(type_, trouble, bad, good, fine): (&str, Option<String>, &str, &str, &str)| {
        let (status, reason) = if trouble.is_some() { ("True", bad) } else { ("False", good) };
        let message = trouble.unwrap_or_else(|| fine.to_owned());
        let same = |old: &&Value| {
            text(old, "/type") == type_
                && old["status"] == status
                && old["reason"] == reason
                && old["message"] == message
        };
        let since = old.iter().find(same).map_or(now, |old| text(old, "/lastTransitionTime"));
        json!({"type": type_, "status": status, "lastTransitionTime": since, "reason": reason, "message": message})
    };
    rows.into_iter().map(condition).collect()
}
