//! Tests of [`super`].
use super::*;

const HEAD: &str = "apiVersion: e2e/v1\nkind: Scenario\nmetadata: {name: x}\nspec:\n  steps:\n";

#[test]
fn an_unknown_key_is_an_error_with_its_place() {
    let error = format!("{:#}", parse(&format!("{HEAD}  - id: a\n    asert: []\n"), "x.yaml").unwrap_err());
    assert!(error.contains("asert") && error.contains("line 7"), "{error}");
}

#[test]
fn only_the_walkthrough_may_name_public_pools() {
    let text = format!("{HEAD}  - id: a\n    create: [{{cidr: 20.0.10.0/24}}]\n");
    assert!(parse(&text, "walkthrough.yaml").is_ok());
    let error = format!("{:#}", parse(&text, "other.yaml").unwrap_err());
    assert!(error.contains("line 7") && error.contains("198.18.0.0/15"), "{error}");
}

#[test]
fn ids_are_unique() {
    assert!(parse(&format!("{HEAD}  - id: a\n  - id: a\n"), "x.yaml").is_err());
}
