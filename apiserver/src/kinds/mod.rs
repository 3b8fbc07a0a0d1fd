//! What differs from kind to kind: defaults, what a create or update may set, validation, storage form.

mod cluster_rules;
mod containers;
pub mod core;
mod core_rules;
mod csi_node;
pub mod definition;
mod definition_rules;
mod event_rules;
pub mod events;
pub(crate) mod gates;
pub(crate) mod ingress;
mod jobs;
mod limits;
pub mod names;
mod pod_parts;
mod pod_rules;
mod pod_security;
mod pod_volumes;
mod pod_warnings;
mod pods;
mod probes;
pub mod quantity;
pub mod rounds;
mod scale_rules;
pub mod service;
mod service_rules;
mod statuses;
mod structural;
mod tls_pair;
mod volumes;
mod warnings;
mod workload_rules;
pub mod workloads;

use serde_json::{Value, json};

use crate::failure::{Failure, FieldError, Outcome};
use crate::registry::{Custom, Resource};
use crate::schema;
use crate::state::State;
use crate::verbs::meta;

const ENDPOINTS_OLD: &str = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
const JOB_DELETED: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
const RULES_SKIPPED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

fn id(resource: &Resource) -> (&str, &str) {
    (resource.group.as_str(), resource.plural.as_str())
}

/// Defaults that depend on more than the absence of a field.
pub fn default(resource: &Resource, object: &mut Value) {
    match id(resource) {
        ("", "services") => service::default(object),
        ("", "namespaces") => core::default_namespace(object),
        ("", "secrets") => core::default_secret(object),
        ("", "pods") => workloads::default_pod(object),
        ("", "nodes") => core::default_node(object),
        ("", "limitranges") => limits::default(object),
        // Data of a controller, without a spec.
        ("apps", "controllerrevisions") => {}
        ("", "podtemplates") => workloads::default_template(object),
        ("", "persistentvolumeclaims") => volumes::default_claim(object),
        ("storage.k8s.io", "csidrivers") => volumes::default_driver(object),
        ("networking.k8s.io", "ingressclasses") => ingress::default_class(object),
        ("apps", _) | ("batch", "jobs") | ("", "replicationcontrollers") => {
            workloads::default_workload(&resource.plural, object)
        }
        ("rbac.authorization.k8s.io", _) => core::default_rbac(object),
        ("networking.k8s.io", "networkpolicies") => core::default_policy(object),
        ("apiextensions.k8s.io", _) => definition::default(object),
        _ => {}
    }
}

/// Whether objects have `metadata.generation`.
pub fn has_generation(resource: &Resource) -> bool {
    if id(resource) == ("apps", "controllerrevisions") {
        return false;
    }
    resource.custom.is_some()
        || matches!(
            resource.group.as_str(),
            "apps"
                | "batch"
                | "policy"
                | "networking.k8s.io"
                | "apiextensions.k8s.io"
                | "discovery.k8s.io"
                | "scheduling.k8s.io"
        )
        || matches!(id(resource), ("", "pods" | "podtemplates" | "replicationcontrollers"))
}

/// Where in the registry objects of a kind are kept.
pub fn place(resource: &Resource) -> String {
    match id(resource) {
        ("", "services") => "services/specs".into(),
        ("", "endpoints") => "services/endpoints".into(),
        ("", "nodes") => "minions".into(),
        ("", "replicationcontrollers") => "controllers".into(),
        ("networking.k8s.io", "ingresses") => "ingress".into(),
        ("events.k8s.io", plural) => plural.into(),
        (group, plural) if resource.custom.is_some() || group == "apiextensions.k8s.io" => format!("{group}/{plural}"),
        (_, plural) => plural.into(),
    }
}

/// Whether an update needs a revision.
pub fn requires_revision(resource: &Resource) -> bool {
    resource.custom.is_some()
        || matches!(resource.group.as_str(), "apiextensions.k8s.io" | "coordination.k8s.io" | "policy")
        || matches!(id(resource), ("storage.k8s.io", "csidrivers") | ("node.k8s.io", _))
}

/// Whether PUT of a missing object makes it.
pub fn may_create_on_update(resource: &Resource) -> bool {
    matches!(id(resource), ("", "services" | "endpoints" | "limitranges" | "events") | ("events.k8s.io", _))
        || matches!(resource.group.as_str(), "coordination.k8s.io" | "rbac.authorization.k8s.io" | "node.k8s.io")
}

/// Whether DELETE answers the object instead of a Status.
pub fn delete_answers_object(resource: &Resource) -> bool {
    matches!(
        id(resource),
        (
            "",
            "services"
                | "pods"
                | "serviceaccounts"
                | "namespaces"
                | "podtemplates"
                | "persistentvolumes"
                | "persistentvolumeclaims"
        ) | ("apiextensions.k8s.io" | "storage.k8s.io", _)
    )
}

/// Whether an object shares the labels of its template, since it has none of its own; asked before its defaults are set.
pub fn is_bare(resource: &Resource, object: &Value) -> bool {
    id(resource) == ("batch", "jobs") && jobs::is_bare(object)
}

/// Whether what an object owns stays, if a delete does not say otherwise.
pub fn orphans(resource: &Resource) -> bool {
    matches!(id(resource), ("batch", "jobs") | ("", "replicationcontrollers"))
}

/// What a delete that does not say what becomes of dependents is warned of.
pub fn delete_warning(resource: &Resource) -> Option<&'static str> {
    (id(resource) == ("batch", "jobs")).then_some(JOB_DELETED)
}

/// What a create may not set, and what only the server sets.
pub fn prepare_create(resource: &Resource, object: &mut Value, bare: bool) {
    let custom_status = resource.custom.as_ref().map(|custom| custom.status);
    match id(resource) {
        ("", "nodes") => core::prepare_node(object),
        ("", "pods") => workloads::prepare_pod(object),
        ("", "services") => service::prepare(object),
        ("", "namespaces") => core::prepare_namespace(object),
        ("apiextensions.k8s.io", _) => definition::begin(object),
        _ if custom_status == Some(false) => {}
        _ if resource.subresource("status").is_some() => {
            if let Some(object) = object.as_object_mut() {
                object.remove("status");
            }
        }
        _ => {}
    }
    match id(resource) {
        ("batch", "jobs") => jobs::select(object, bare),
        ("", "persistentvolumeclaims") => volumes::prepare_claim(object),
        ("", "persistentvolumes") => volumes::prepare_volume(object),
        _ => {}
    }
    drop_unserved(resource, object, None);
    if resource.custom.is_none() {
        crate::schema::shape::fill_zero(object, &resource.schema);
    }
}

/// Takes out fields that are known, and have no use in this version or as it is set up. Owners are booked before.
fn drop_unserved(resource: &Resource, object: &mut Value, old: Option<&Value>) {
    let mut remove = |path: &str, names: &[&str]| {
        let Some(fields) = object.pointer_mut(path).and_then(Value::as_object_mut) else { return };
        let had = |name: &str| old.is_some_and(|old| old.pointer(path).is_some_and(|old| old.get(name).is_some()));
        fields.retain(|name, _| !names.contains(&name.as_str()) || had(name));
    };
    match id(resource) {
        ("", "nodes") => {
            remove("/spec", &["configSource"]);
            remove("/status", &["config"]);
        }
        ("coordination.k8s.io", "leases") => remove("/spec", &["strategy", "preferredHolder"]),
        ("apps", "deployments" | "replicasets") => remove("/status", &["terminatingReplicas"]),
        ("discovery.k8s.io", "endpointslices") => {
            for endpoint in object.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
                endpoint.as_object_mut().map(|endpoint| endpoint.remove("deprecatedTopology"));
            }
        }
        ("", "serviceaccounts") => {
            // Of a secret only the name is kept.
            for secret in object.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
                secret.as_object_mut().into_iter().for_each(|secret| secret.retain(|name, _| name == "name"));
            }
        }
        _ => {}
    }
}

/// What an update may not change: status from the main endpoint, all but status from `/status`.
pub fn prepare_update(resource: &Resource, subresource: &str, object: &mut Value, current: &Value, now: &str) {
    let keep = |object: &mut Value, name: &str| {
        let Some(object) = object.as_object_mut() else { return };
        match current.get(name) {
            Some(value) => object.insert(name.into(), value.clone()),
            None => object.remove(name),
        };
    };
    if subresource == "status" {
        keep(object, "spec");
        if id(resource) == ("", "pods") {
            workloads::keep_of_pod(object, current);
        }
        if let Some(custom) = &resource.custom {
            let status = object.get("status").cloned();
            let managed = object["metadata"].get("managedFields").cloned();
            *object = current.clone();
            let (Some(fields), Some(status)) = (object.as_object_mut(), status) else { return };
            fields.insert("status".into(), status);
            if let (Some(managed), true) = (managed, custom.status) {
                object["metadata"]["managedFields"] = managed;
            }
        }
    } else if resource.subresource("status").is_some() && id(resource) != ("", "nodes") {
        keep(object, "status");
    }
    if id(resource) == ("", "pods") && matches!(subresource, "ephemeralcontainers" | "resize") {
        return pod_parts::keep_to_part(subresource, object, current);
    }
    if id(resource) == ("", "namespaces") && subresource.is_empty() {
        // Who holds a namespace is changed by finalizing it only.
        object["spec"] = current["spec"].clone();
    }
    drop_unserved(resource, object, Some(current));
    if id(resource) == ("", "persistentvolumes") && subresource == "status" {
        volumes::mark_phase(object, current, now);
    }
    if id(resource) == ("", "pods") && subresource.is_empty() {
        workloads::readmit(object, current);
    }
    if id(resource) == ("", "services") && subresource.is_empty() {
        service::carry_over(object, current);
    }
    if id(resource) == ("apps", "daemonsets") && subresource.is_empty() {
        workloads::count_template(object, current);
    }
    if id(resource) == ("apiextensions.k8s.io", "customresourcedefinitions") && subresource.is_empty() {
        definition::follow(object);
    }
}

/// Whether the change raises the generation.
pub fn raises_generation(resource: &Resource, old: &Value, new: &Value) -> bool {
    if !has_generation(resource) {
        return false;
    }
    let differs = |ignored: &[&str]| {
        let bare = |object: &Value| {
            let mut object = object.clone();
            let Some(map) = object.as_object_mut() else { return object };
            map.retain(|name, _| !ignored.contains(&name.as_str()));
            object
        };
        bare(old) != bare(new)
    };
    match &resource.custom {
        Some(custom) if custom.status => differs(&["metadata", "apiVersion", "kind", "status"]),
        Some(_) => differs(&["metadata", "apiVersion", "kind"]),
        None if resource.group == "discovery.k8s.io" => {
            differs(&["metadata"]) || old["metadata"]["labels"] != new["metadata"]["labels"]
        }
        None if resource.plural == "deployments" => {
            old["spec"] != new["spec"] || old["metadata"]["annotations"] != new["metadata"]["annotations"]
        }
        None if resource.plural == "podtemplates" => old["template"] != new["template"],
        None => old["spec"] != new["spec"],
    }
}

/// The object as the books of owners see it before an update, if that is not how it is kept.
///
/// A Service that a patch has made an ExternalName still holds its policy with the real server, which shows none: the next
/// update that does not name it takes it from its owner.
pub fn seen_by_updates(resource: &Resource, current: &Value) -> Option<Value> {
    if id(resource) != ("", "services") || !service::hides_policy(current) {
        return None;
    }
    let mut seen = current.clone();
    seen["spec"]["internalTrafficPolicy"] = json!("Cluster");
    Some(seen)
}

/// Gives a Service its addresses and ports; other kinds get nothing.
pub fn allocate(
    state: &mut State,
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Outcome<()> {
    if id(resource) == ("", "services") {
        let State { allocations, chance, .. } = state;
        let errors = allocations.give(chance, object, old, dry_run);
        if let Some(inner) = errors.iter().find(|error| error.reason == "InternalError") {
            return Err(Failure::internal(&inner.message));
        }
        if !errors.is_empty() {
            return Err(Failure::invalid("", "Service", meta(object, "name"), &errors));
        }
    }
    Ok(())
}

/// What is wrong with an object, or with the change of one through the object itself or its `/status`.
pub fn validate(resource: &Resource, subresource: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = match old {
        None => names::metadata_errors(resource, object),
        Some(old) => rounds::metadata_errors(resource, subresource, object, old),
    };
    if let Some(custom) = &resource.custom {
        errors.extend(custom_errors(custom, subresource, object, old));
        return errors;
    }
    if id(resource) == ("batch", "jobs") && old.is_none() && jobs::is_labelled_later(object) {
        errors.retain(|error| error.field != "metadata.labels");
    }
    if old.is_none() && rounds::checks_finalizers(resource) {
        errors.extend(names::finalizer_errors(&object["metadata"]));
    }
    errors.extend(match (id(resource), subresource) {
        (("", "services"), "") => service_rules::validate(object, old),
        (("", "services"), _) => service_rules::validate_status(object),
        (("", "pods"), "") => pods::validate(object, old),
        (("", "pods"), "status") => statuses::pod(object, old.unwrap_or(&Value::Null)),
        (("", "pods"), "ephemeralcontainers") => pod_parts::validate_ephemeral(object, old.unwrap_or(&Value::Null)),
        (("", "pods"), "resize") => pod_parts::validate_resize(object, old.unwrap_or(&Value::Null)),
        (("", "endpoints"), _) => core_rules::endpoints(object),
        (("", "nodes"), _) => core_rules::node(object, old),
        (("", "limitranges"), _) => limits::validate(object),
        (("", "configmaps"), _) => core_rules::config_map(object, old),
        (("", "secrets"), _) => core_rules::secret(object, old),
        (("", "events"), _) => event_rules::event(object, old, false),
        (("events.k8s.io", "events"), _) => {
            let core = |object: &Value| events::to_core(object.clone());
            event_rules::event(&core(object), old.map(core).as_ref(), true)
        }
        (("", "persistentvolumes"), "") => volumes::validate_volume(object, old),
        (("", "persistentvolumeclaims"), "") => volumes::validate_claim(object, old),
        (("storage.k8s.io", "storageclasses"), _) => volumes::validate_class(object, old),
        (("storage.k8s.io", "csinodes"), _) => csi_node::validate(object, old),
        (("storage.k8s.io", "csidrivers"), _) => volumes::validate_driver(object, old),
        (("node.k8s.io", "runtimeclasses"), _) => core_rules::runtime_class(object, old),
        (("scheduling.k8s.io", "priorityclasses"), _) => core_rules::priority_class(object, old),
        (("networking.k8s.io", "ingresses"), "") => ingress::validate(object, old),
        (("networking.k8s.io", "ingresses"), _) => ingress::validate_status(object),
        (("networking.k8s.io", "ingressclasses"), _) => ingress::validate_class(object, old),
        (("batch", "jobs"), "") => jobs::validate(object, old),
        (("batch", "jobs"), _) => jobs::validate_status(object, old.unwrap_or(&Value::Null)),
        (("", "podtemplates"), _) => pods::template_errors(&object["template"], "template"),
        (("", "replicationcontrollers"), "") => workload_rules::validate("replicationcontrollers", object, old),
        (("apps", plural), "") => workload_rules::validate(plural, object, old),
        (("", "replicationcontrollers"), "status") => statuses::replica_set(&object["status"]),
        (("apps", plural), "status") => workload_rules::validate_status(plural, object, old.unwrap_or(&Value::Null)),
        (("coordination.k8s.io", "leases"), _) => core_rules::lease(object),
        (("discovery.k8s.io", "endpointslices"), _) => core_rules::endpoint_slice(object, old),
        (("rbac.authorization.k8s.io", "roles"), _) => told(core_rules::role(object, true), old),
        (("rbac.authorization.k8s.io", "clusterroles"), _) => told(core_rules::role(object, false), old),
        (("rbac.authorization.k8s.io", "rolebindings"), _) => core_rules::role_binding(object, old, true),
        (("rbac.authorization.k8s.io", "clusterrolebindings"), _) => core_rules::role_binding(object, old, false),
        (("policy", "poddisruptionbudgets"), "") => cluster_rules::budget(object),
        (("policy", "poddisruptionbudgets"), _) => cluster_rules::budget_status(object),
        (("networking.k8s.io", "networkpolicies"), _) => told(cluster_rules::network_policy(object), old),
        (("", "namespaces"), "") => cluster_rules::namespace(object),
        (("", "namespaces"), "status") => statuses::namespace(object).into_iter().collect(),
        (("", "persistentvolumeclaims"), "status") => statuses::claim(&object["status"]),
        (("apiextensions.k8s.io", _), "") => definition_rules::validate(object, old),
        _ => Vec::new(),
    });
    errors
}

/// Some kinds are looked at twice when they are changed, and that is told twice.
fn told(errors: Vec<FieldError>, old: Option<&Value>) -> Vec<FieldError> {
    if old.is_some() { [errors.clone(), errors].concat() } else { errors }
}

/// A custom resource: its schema, its numbers of replicas, and its rules if nothing keeps them from being asked.
fn custom_errors(custom: &Custom, subresource: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let schema = &custom.openapi;
    let mut errors = match subresource {
        "status" => schema::validate::validate_status(object, schema, old),
        _ => schema::validate::validate(object, schema, old),
    };
    if subresource.is_empty() {
        errors.extend(schema::embedded::errors(object, schema));
    }
    errors.extend(scale_rules::errors(custom, subresource, object));
    let Some(rules) = &custom.rules else { return errors };
    if schema::validate::blocks_rules(&errors) {
        errors.push(FieldError::invalid("<nil>", &Value::Null, RULES_SKIPPED));
    } else {
        errors.extend(rules.verdict(object, old).errors);
    }
    errors
}

/// What every answer about a resource warns of.
pub fn standing_warning(resource: &Resource) -> Option<&str> {
    match &resource.custom {
        Some(custom) => custom.warning.as_deref(),
        None => (id(resource) == ("", "endpoints")).then_some(ENDPOINTS_OLD),
    }
}

/// Warnings that come with an object that is otherwise fine.
pub fn warnings(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    let Some(custom) = &resource.custom else { return warnings::builtin(resource, object, old) };
    let mut warnings = names::finalizer_warnings(object, old);
    if let (Some(rules), Some(old)) = (&custom.rules, old) {
        warnings.extend(rules.verdict(object, Some(old)).warnings);
    }
    warnings
}

/// The group that errors about an object name: those about events are the core's.
pub fn group_in_errors(resource: &Resource) -> &str {
    if resource.group == "events.k8s.io" { "" } else { &resource.group }
}

/// Refuses deletes that would take the cluster along.
pub fn admit_delete(resource: &Resource, name: &str) -> Outcome<()> {
    if id(resource) == ("", "namespaces") && ["default", "kube-system", "kube-public"].contains(&name) {
        return Err(Failure::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    if resource.plural == "priorityclasses" && core_rules::system_priority(name).is_some() {
        let why = "this is a system priority class and cannot be deleted";
        return Err(Failure::forbidden(&resource.group, &resource.plural, name, why));
    }
    Ok(())
}

/// Whether objects get time to end.
pub fn is_graceful(resource: &Resource) -> bool {
    id(resource) == ("", "pods")
}

/// Seconds that an object gets to end.
pub fn grace(resource: &Resource, live: &Value, asked: Option<i64>) -> i64 {
    if id(resource) != ("", "pods") {
        return 0;
    }
    let unscheduled = live["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    if unscheduled || matches!(live["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return 0;
    }
    match asked.or(live["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30) {
        // So the real server reads a time that is over.
        ..0 => 1,
        seconds => seconds,
    }
}

/// What else changes when an object begins to end.
pub fn on_terminating(resource: &Resource, object: &mut Value) {
    if id(resource) == ("", "namespaces") {
        // Namespaces have no grace: their controller ends them.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("deletionGracePeriodSeconds");
        }
        object["status"]["phase"] = json!("Terminating");
    }
}

/// The object as it is stored: one form for all versions.
pub fn to_storage(mut object: Value, resource: &Resource) -> Value {
    if resource.custom.is_none() {
        schema::shape::settle(&mut object, &resource.schema);
    }
    if let Some(custom) = &resource.custom {
        // Whatever version it came in, what is kept is what the version of storage has fields for.
        if let Some(kept) = custom.schemas.get(&resource.storage_version) {
            let _ = schema::decode::decode(&mut object, kept);
        }
        object["apiVersion"] = json!(crate::registry::group_version(&resource.group, &resource.storage_version));
    }
    match id(resource) {
        ("events.k8s.io", "events") => events::to_core(object),
        _ => object,
    }
}

/// The stored object in the version that was asked for.
pub fn to_version(object: &Value, resource: &Resource) -> Value {
    match id(resource) {
        ("events.k8s.io", "events") => {
            let mut object = events::from_core(object);
            crate::schema::shape::fill_zero(&mut object, &resource.schema);
            object
        }
        ("", "events") => {
            let mut object = object.clone();
            crate::schema::shape::fill_zero(&mut object, &resource.schema);
            object
        }
        _ => {
            let mut object = object.clone();
            if let Some(custom) = &resource.custom {
                // What the definition says now holds for what was stored before: defaults in the version in which it was
                // stored, and no more than this version has.
                let stored = object["apiVersion"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
                if let Some(node) = custom.schemas.get(stored) {
                    let _ = schema::decode::decode(&mut object, node);
                    schema::shape::default(&mut object, node);
                }
                let _ = schema::decode::decode(&mut object, &resource.schema);
            }
            object["apiVersion"] = json!(resource.api_version());
            object["kind"] = json!(resource.kind);
            object
        }
    }
}
