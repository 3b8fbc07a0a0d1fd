//! Tests of [`super`].
use super::*;
use serde_json::json;

fn service(managed: &serde_json::Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "s", "namespace": "default", "managedFields": managed},
        "status": {
            "loadBalancer": {"ingress": [{"ip": "198.18.9.9"}]},
            "conditions": [{"type": CONDITION_SATISFIED, "status": "False", "reason": "no_pool", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    }))
    .unwrap()
}

#[test]
fn an_address_is_ours_if_we_wrote_it_last() {
    let entry = |manager: &str, fields: &serde_json::Value| json!({"manager": manager, "operation": "Update", "fieldsV1": fields});
    let ingress = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
    let conditions = json!({"f:status": {"f:conditions": {}}});
    for (managed, ours) in [
        (json!([entry(FIELD_MANAGER, &ingress)]), true),
        (json!([entry(FIELD_MANAGER, &conditions), entry("cloud", &ingress)]), false),
        (json!([entry("cloud", &ingress)]), false),
        // The record was cleared: the condition decides.
        (json!([]), true),
    ] {
        assert_eq!(owns_ingress(&service(&managed)), ours, "{managed}");
    }
}
