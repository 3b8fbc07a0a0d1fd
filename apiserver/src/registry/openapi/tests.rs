//! Tests of [`super`].
use super::schemas::{custom_schema, references};
use super::*;

fn registry() -> Registry {
    Registry::builtin(|name| builtin::types().get(name).cloned()).unwrap()
}

#[test]
fn every_group_version_has_a_document_without_dangling_references() {
    let registry = registry();
    let index = index(&registry);
    for (group, version) in group_versions(&registry) {
        let document = document(&registry, &group, &version).unwrap();
        let url = index["paths"][place(&group, &version)]["serverRelativeURL"].as_str().unwrap();
        assert!(url.ends_with(&*document.hash), "{url}");
        let body: Value = serde_json::from_slice(&document.text).unwrap();
        let mut found = Vec::new();
        references(&body, &mut found);
        for name in found {
            assert!(body["components"]["schemas"][&name].is_object(), "{group}/{version}: {name}");
        }
    }
    assert!(document(&registry, "nope.io", "v1").is_none());
}

#[test]
fn clients_find_the_patch_of_each_kind_with_its_parameters() {
    let registry = registry();
    let document = document(&registry, "apps", "v1").unwrap();
    let body: Value = serde_json::from_slice(&document.text).unwrap();
    let patch = &body["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let names: Vec<&str> = patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"), "{names:?}");
    let schema = &body["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    assert!(schema["properties"]["spec"]["allOf"][0]["$ref"].is_string());
}

#[test]
fn numbers_or_strings_are_said_in_plain_words() {
    let schema = custom_schema(&json!({"properties": {"spec": {"properties": {"port":
        {"x-kubernetes-int-or-string": true}}}}}));
    let port = &schema["properties"]["spec"]["properties"]["port"];
    assert_eq!(port["anyOf"], json!([{"type": "integer"}, {"type": "string"}]));
    assert!(schema["properties"]["metadata"]["allOf"][0]["$ref"].is_string());
}

#[test]
fn old_clients_find_the_kind_of_a_resource_in_its_list_of_all_namespaces() {
    let registry = registry();
    let body: Value = serde_json::from_slice(&document(&registry, "", "v1").unwrap().text).unwrap();
    let list = &body["paths"]["/api/v1/configmaps"]["get"];
    assert_eq!(list["x-kubernetes-group-version-kind"]["kind"], "ConfigMap");
    assert!(
        body["paths"]["/api/v1/nodes"]["post"].is_object(),
        "what has no namespace has one list, and more than that"
    );
}

/// Reads a field of a message: its number, and its content if it has a length.
fn field(bytes: &mut &[u8]) -> Option<(u64, Vec<u8>)> {
    fn number(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        Some(value)
    }
    let tag = number(bytes)?;
    let length = match tag & 7 {
        0 => number(bytes).map(|_| 0)?,
        1 => 8,
        _ => usize::try_from(number(bytes)?).ok()?,
    };
    let (content, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some((tag >> 3, content.to_vec()))
}

fn fields(bytes: &[u8], wanted: u64) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    std::iter::from_fn(|| field(&mut rest))
        .filter(|(number, _)| *number == wanted)
        .map(|(_, content)| content)
        .collect()
}

#[test]
fn old_clients_get_a_second_version_in_both_forms() {
    let registry = registry();
    let (media, text) = v2(&registry, "application/json");
    assert_eq!(media, "application/json");
    let body: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(body["swagger"], "2.0");
    let deployment = &body["definitions"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["properties"]["spec"]["$ref"], "#/definitions/io.k8s.api.apps.v1.DeploymentSpec");
    assert!(!text.windows(12).any(|part| part == b"\"components\""), "references lead to definitions");
    let patch = &body["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["consumes"].as_array().unwrap().contains(&json!("application/strategic-merge-patch+json")));

    let (media, bytes) = v2(&registry, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
    assert_eq!(media, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert_eq!(fields(&bytes, 1), [b"2.0"]);
    let definitions = fields(&fields(&bytes, 9)[0], 1);
    assert_eq!(definitions.len(), body["definitions"].as_object().unwrap().len());
    let named = |name: &[u8]| definitions.iter().find(|entry| fields(entry, 1)[0] == name).unwrap();
    let schema = &fields(named(b"io.k8s.api.core.v1.ServicePort"), 2)[0];
    assert_eq!(fields(schema, 19), [b"port"]);
    let protocol =
        &fields(&fields(&fields(schema, 25)[0], 1).iter().find(|f| fields(f, 1)[0] == b"protocol").unwrap()[..], 2)[0];
    assert_eq!(fields(&fields(protocol, 22)[0], 1), [b"string"]);
}

#[test]
fn what_is_no_resource_has_a_document_too() {
    let registry = registry();
    let index = index(&registry);
    for place in ["version", "api", "apis", "apis/apps", "apis/rbac.authorization.k8s.io"] {
        let document = root(&registry, place).unwrap();
        let url = index["paths"][place]["serverRelativeURL"].as_str().unwrap();
        assert!(url.ends_with(&*document.hash), "{url}");
    }
    let body: Value = serde_json::from_slice(&root(&registry, "apis/rbac.authorization.k8s.io").unwrap().text).unwrap();
    let get = &body["paths"]["/apis/rbac.authorization.k8s.io/"]["get"];
    assert_eq!(get["operationId"], "getRbacAuthorizationAPIGroup");
    assert!(root(&registry, "apis/ex.io").is_none());
}

#[test]
fn an_object_within_another_has_what_objects_have() {
    let schema = custom_schema(&json!({"properties": {"spec": {"properties": {"template": {"type": "object",
        "x-kubernetes-embedded-resource": true, "required": ["x"]}}}}}));
    let template = &schema["properties"]["spec"]["properties"]["template"];
    assert_eq!(template["required"], json!(["x", "apiVersion", "kind"]));
    assert!(template["properties"]["metadata"]["allOf"][0]["$ref"].is_string());
}
