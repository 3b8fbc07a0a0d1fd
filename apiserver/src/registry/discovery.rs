//! Discovery documents: aggregated and legacy, both made from the registry.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Registry, Resource, Subresource, group_version};

/// `GET /api`.
pub fn core_versions(server_address: &str) -> Value {
    let address = json!({"clientCIDR": "0.0.0.0/0", "serverAddress": server_address});
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]})
}

fn group_body(name: &str, versions: &[String]) -> Value {
    let version = |version: &String| json!({"groupVersion": group_version(name, version), "version": version});
    let all: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": name, "versions": all, "preferredVersion": all.first()})
}

/// `GET /apis`.
pub fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = registry
        .groups()
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_body(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/GROUP`, if the group is served.
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    let (_, versions) = registry.groups().into_iter().find(|(group, _)| group == name && !group.is_empty())?;
    let mut body = group_body(name, &versions);
    body["kind"] = json!("APIGroup");
    body["apiVersion"] = json!("v1");
    Some(body)
}

/// `GET /api/v1` or `GET /apis/GROUP/VERSION`, if it is served.
pub fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for resource in registry.of_version(group, version) {
        list.push(resource_body(resource));
        list.extend(resource.subresources.iter().map(|subresource| subresource_body(resource, subresource)));
    }
    if list.is_empty() {
        return None;
    }
    let mut body = json!({"kind": "APIResourceList", "groupVersion": group_version(group, version), "resources": list});
    if !group.is_empty() {
        body["apiVersion"] = json!("v1");
    }
    Some(body)
}

fn resource_body(resource: &Resource) -> Value {
    let mut body = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": resource.verbs,
    });
    add_names(&mut body, resource);
    if resource.allows("list") {
        body["storageVersionHash"] = json!(storage_version_hash(resource));
    }
    body
}

fn add_names(body: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        body["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        body["categories"] = json!(resource.categories);
    }
}

/// Tells clients whether two resources hold the same stored objects: both event groups share the core one.
fn storage_version_hash(resource: &Resource) -> String {
    let group = if resource.storage.starts_with('/') { "" } else { &resource.group };
    let text = format!("{group}/{}/{}", resource.storage_version, resource.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    STANDARD.encode(&digest.as_ref()[..8])
}

fn subresource_body(resource: &Resource, subresource: &Subresource) -> Value {
    let mut body = json!({
        "name": format!("{}/{}", resource.plural, subresource.name), "singularName": "",
        "namespaced": resource.namespaced, "kind": subresource.kind, "verbs": subresource.verbs,
    });
    if let Some((group, version)) = &subresource.group_version {
        body["group"] = json!(group);
        body["version"] = json!(version);
    }
    body
}

/// The aggregated document for `/api` (core) or `/apis` (all others).
pub fn aggregated(registry: &Registry, core: bool) -> Value {
    let items: Vec<Value> = registry
        .groups()
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        registry.of_version(group, version).map(|r| aggregated_resource(r)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(resource: &Resource) -> Value {
    // Built-in kinds leave group and version of their own kind empty: they are those of the document.
    let own = |kind: &str| match &resource.custom {
        Some(_) => json!({"group": resource.group, "version": resource.version, "kind": kind}),
        None => json!({"group": "", "version": "", "kind": kind}),
    };
    let mut body = json!({
        "resource": resource.plural, "responseKind": own(&resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs,
    });
    add_names(&mut body, resource);
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|subresource| {
            let kind = match &subresource.group_version {
                Some((group, version)) => json!({"group": group, "version": version, "kind": subresource.kind}),
                None => own(&subresource.kind),
            };
            json!({"subresource": subresource.name, "responseKind": kind, "verbs": subresource.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        body["subresources"] = json!(subresources);
    }
    body
}
