//! Tests of [`super`].
use serde_json::json;

use super::*;

#[test]
fn quantities() {
    for (text, expected) in [
        ("1", NANO),
        ("250m", NANO / 4),
        ("0.5", NANO / 2),
        ("1.5Gi", 1_610_612_736 * NANO),
        ("64Mi", 67_108_864 * NANO),
        ("2k", 2000 * NANO),
        ("1e3", 1000 * NANO),
        ("100n", 100),
    ] {
        assert_eq!(nanos(text).unwrap(), expected, "{text}");
    }
    for text in ["", "x", "1Zi", "Mi", "1e"] {
        assert!(nanos(text).is_err(), "{text}");
    }
}

#[test]
fn resources_are_rounded_up_to_the_divisor() {
    let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
        {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "1m"}}}]}}))
    .unwrap();
    let own = pod.spec.as_ref().unwrap().containers.first();
    let value = |resource: &str, divisor: &str| {
        let field = json!({"resource": resource, "divisor": divisor});
        resource_value(&pod, own, &serde_json::from_value(field).unwrap())
    };
    assert_eq!(value("limits.cpu", "0").unwrap(), "2");
    assert_eq!(value("limits.cpu", "1m").unwrap(), "1500");
    assert_eq!(value("limits.memory", "1Mi").unwrap(), "64");
    assert_eq!(value("requests.cpu", "1").unwrap(), "1");
    assert_eq!(value("requests.memory", "1").unwrap(), "0");
    assert!(value("limits.gpu", "1").is_err());
    let field = serde_json::from_value(json!({"resource": "limits.cpu", "containerName": "no"})).unwrap();
    assert!(resource_value(&pod, None, &field).unwrap_err().to_string().contains("no container"));
}

#[test]
fn fields() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {
        "name": "p", "labels": {"a": "1", "b/c": "say \"x\""}, "annotations": {"k": "v"}}}))
    .unwrap();
    let addresses = Addresses { pod: "10.0.0.1".into(), host: "172.18.0.2".into() };
    let value = |path: &str| {
        let field = ObjectFieldSelector { field_path: path.into(), api_version: None };
        field_value(&pod, &field, &addresses, "n")
    };
    assert_eq!(value("metadata.labels['b/c']").unwrap(), "say \"x\"");
    assert_eq!(value("metadata.labels").unwrap(), "a=\"1\"\nb/c=\"say \\\"x\\\"\"");
    assert_eq!(value("status.podIP").unwrap(), "10.0.0.1");
    assert!(value("spec.nope").is_err());
}
