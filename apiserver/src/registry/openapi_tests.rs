//! Tests of [`super`].
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

/// The bytes are what `protoc` makes of the same `openapi.v2.Document`.
#[test]
fn old_clients_get_a_second_version_in_protobuf() {
    let (media, bytes) = v2("application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
    assert_eq!(media, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert_eq!(&bytes[..], b"\x0a\x032.0\x12\x12\x0a\x0aKubernetes\x12\x041.34\x42\x00\x4a\x00");
    let (media, bytes) = v2("application/json");
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((media, body["swagger"].as_str()), ("application/json", Some("2.0")));
}
