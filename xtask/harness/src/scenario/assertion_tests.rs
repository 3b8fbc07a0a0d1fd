//! Tests of [`super`].
use super::*;
use serde_json::json;

#[test]
fn a_part_is_found_and_a_difference_named_by_its_path() {
    let value = json!({"a": {"b": 1, "c": [{"t": "x", "s": "True"}, {"t": "y", "s": "False"}]}});
    assert!(differs(&json!({"a": {"c": [{"t": "y", "s": "False"}]}}), &value, "").is_ok());
    let error = differs(&json!({"a": {"b": 2}}), &value, "").unwrap_err().to_string();
    assert!(error.contains(".a.b") && error.contains('2') && error.contains('1'), "{error}");
    assert!(differs(&json!({"a": {"c": [{"t": "y", "s": "True"}]}}), &value, "").is_err());
    assert!(differs(&json!({"z": 1}), &value, "").is_err());
}
