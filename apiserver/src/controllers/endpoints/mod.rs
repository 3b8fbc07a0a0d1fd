//! Endpoints of Services: EndpointSlices, the older Endpoints object beside them, and slices for Endpoints that others write.

mod kubernetes;
mod legacy;
mod mirror;
mod pod;
mod slices;
mod trigger;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::cache::{Change, Key};
use super::client::{DeleteOptions, Refused};
use super::context::{Context, Controller, Tools};
use super::kind::{ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES};
use super::object::{
    condition_status, is_terminating, label, labels, list, name, namespace, selects, set_entry, text, uid,
};
use super::selection;
use slices::{MANAGED_BY, SERVICE_NAME};
use trigger::Known;

const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const HEADLESS: &str = "service.kubernetes.io/headless";

pub(super) fn start(context: &mut Context) {
    kubernetes::start(context);
    for (which, duty, name, user) in [
        (selection::Controller::EndpointSlice, Duty::Slices, "endpointslice", "endpointslice-controller"),
        (selection::Controller::Endpoints, Duty::Legacy, "endpoints", "endpoint-controller"),
        (
            selection::Controller::EndpointSliceMirroring,
            Duty::Mirror,
            "endpointslicemirroring",
            "endpointslicemirroring-controller",
        ),
    ] {
        let tools = context.tools(user, name);
        context.run(which, Keeper { tools, duty, known: Mutex::default() });
    }
}

/// What is kept for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    /// Slices of the pods that it selects.
    Slices,
    /// The Endpoints of the same pods.
    Legacy,
    /// Slices of the Endpoints that somebody else has written.
    Mirror,
}

/// Whether the service has a selector and it selects the pod.
fn wants(service: &Value, pod: &Value) -> bool {
    namespace(service) == namespace(pod)
        && has_selector(service)
        && selects(&json!({"matchLabels": service["spec"]["selector"]}), labels(pod))
}

fn has_selector(service: &Value) -> bool {
    service["spec"]["selector"].as_object().is_some_and(|selector| !selector.is_empty())
        && service["spec"]["type"] != "ExternalName"
}

fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None"
}

/// Labels of a service as its endpoints have them.
fn copied_labels(service: &Value, own: &[&str]) -> Value {
    let mut copy = json!({});
    for (key, value) in labels(service).into_iter().flatten() {
        if !own.contains(&key.as_str()) && key != HEADLESS {
            copy[key] = value.clone();
        }
    }
    if is_headless(service) {
        copy[HEADLESS] = json!("");
    }
    copy
}

struct Keeper {
    tools: Tools<Key>,
    duty: Duty,
    known: Mutex<HashMap<Key, Known>>,
}

impl Controller for Keeper {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.tools
    }

    fn note(&self, change: &Change) {
        let (Tools { cache, queue, .. }, duty) = (&self.tools, self.duty);
        let object = change.object();
        let manager = if duty == Duty::Mirror { mirror::MANAGER } else { slices::MANAGER };
        if change.is(&SERVICES) || (change.is(&ENDPOINTS) && duty == Duty::Mirror) {
            queue.add(Key::of(object));
        } else if change.is(&ENDPOINTS) && duty == Duty::Legacy {
            // What others write into them is only made good when something else changes.
            if change.after.is_none() {
                queue.add(Key::of(object));
            }
        } else if change.is(&ENDPOINT_SLICES) && duty != Duty::Legacy {
            if label(object, MANAGED_BY) == Some(manager)
                && let Some(service) = label(object, SERVICE_NAME)
            {
                queue.add(Key::new(namespace(object), service));
            }
        } else if change.is(&PODS) && duty != Duty::Mirror {
            if pod::view_of(change.before.as_deref()) == pod::view_of(change.after.as_deref()) {
                return;
            }
            for service in cache.list(&SERVICES, namespace(object)) {
                if change.both().any(|pod| wants(&service, pod)) {
                    queue.add(Key::of(&service));
                }
            }
        } else if change.is(&NODES) && duty == Duty::Slices && slices::node_changed(change) {
            let bound = cache.pods_on(name(object));
            for service in cache.list(&SERVICES, "") {
                if bound.iter().any(|pod| wants(&service, pod)) {
                    queue.add(Key::of(&service));
                }
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        match self.duty {
            Duty::Slices => self.slices(&key).await,
            Duty::Legacy => self.legacy(&key).await,
            Duty::Mirror => self.mirror(&key).await,
        }
    }
}

impl Keeper {
    /// The service, and the pods it selects; nothing if its endpoints are not ours.
    fn service(&self, key: &Key) -> Option<(Arc<Value>, Vec<Arc<Value>>)> {
        let service = self.tools.cache.get(&SERVICES, &key.namespace, &key.name)?;
        let pods = self.tools.cache.list(&PODS, &key.namespace);
        let selected = pods.into_iter().filter(|pod| wants(&service, pod)).collect();
        has_selector(&service).then_some((service, selected))
    }

    /// When what is written now has changed, as far as that is known.
    fn trigger(&self, key: &Key, service: &Value, pods: &[Arc<Value>]) -> Option<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        trigger::changed_at(known.entry(key.clone()), service, pods)
    }

    fn forget(&self, key: &Key) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    async fn slices(&self, key: &Key) -> Result<(), Refused> {
        let Some((service, pods)) = self.service(key) else {
            self.forget(key);
            return Ok(());
        };
        let existing = self.existing(key, slices::MANAGER);
        let trigger = self.trigger(key, &service, &pods);
        let cache = Arc::clone(&self.tools.cache);
        let plan = slices::plan(&service, &pods, &existing, |node| cache.get(&NODES, "", node));
        self.carry_out(plan, trigger.as_deref()).await
    }

    async fn mirror(&self, key: &Key) -> Result<(), Refused> {
        let service = self.tools.cache.get(&SERVICES, &key.namespace, &key.name);
        let unselected = service.is_some_and(|service| service["spec"]["selector"].is_null());
        let endpoints = self.tools.cache.get(&ENDPOINTS, &key.namespace, &key.name).filter(|_| unselected);
        self.carry_out(mirror::plan(endpoints.as_deref(), &self.existing(key, mirror::MANAGER)), None).await
    }

    /// The slices of a service that a controller has made.
    fn existing(&self, key: &Key, manager: &str) -> Vec<Arc<Value>> {
        let slices = self.tools.cache.list(&ENDPOINT_SLICES, &key.namespace).into_iter();
        slices
            .filter(|slice| label(slice, SERVICE_NAME) == Some(&key.name))
            .filter(|slice| label(slice, MANAGED_BY) == Some(manager) && !is_terminating(slice))
            .collect()
    }

    async fn carry_out(&self, plan: slices::Plan, trigger: Option<&str>) -> Result<(), Refused> {
        for mut slice in plan.create {
            set_trigger(&mut slice, trigger);
            match self.tools.client.create(&ENDPOINT_SLICES, &slice).await {
                Err(refused) if refused.is_namespace_terminating() => return Ok(()),
                other => other.map(drop)?,
            }
        }
        for mut slice in plan.update {
            set_trigger(&mut slice, trigger);
            self.tools.client.update(&ENDPOINT_SLICES, "", &slice).await?;
        }
        for slice in plan.delete {
            self.tools.client.delete(&ENDPOINT_SLICES, &slice, &DeleteOptions::default()).await?;
        }
        Ok(())
    }

    async fn legacy(&self, key: &Key) -> Result<(), Refused> {
        let held = self.tools.cache.get(&ENDPOINTS, &key.namespace, &key.name);
        let Some((service, pods)) = self.service(key) else {
            self.forget(key);
            // Those of a service without selector are somebody else's; with the service all of them go.
            let orphan = self.tools.cache.get(&SERVICES, &key.namespace, &key.name).is_none();
            return match held.filter(|_| orphan) {
                Some(held) => self.tools.client.delete(&ENDPOINTS, &held, &DeleteOptions::default()).await,
                None => Ok(()),
            };
        };
        let trigger = self.trigger(key, &service, &pods);
        let Some(mut wanted) = legacy::wanted(&service, &pods, held.as_deref()) else { return Ok(()) };
        set_trigger(&mut wanted, trigger.as_deref());
        let done = match held {
            Some(_) => self.tools.client.update(&ENDPOINTS, "", &wanted).await,
            None => self.tools.client.create(&ENDPOINTS, &wanted).await,
        };
        match done {
            Err(refused) if refused.is_namespace_terminating() => Ok(()),
            other => other.map(drop),
        }
    }
}

fn set_trigger(object: &mut Value, trigger: Option<&str>) {
    match trigger {
        Some(trigger) => set_entry(object, "annotations", TRIGGER, trigger),
        None => {
            if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                annotations.remove(TRIGGER);
            }
        }
    }
}
