//! Tests of [`super`].
use super::*;
use preflight::Finding;

fn finding(weight: Weight) -> Finding {
    Finding { weight, what: "engine", text: "not reachable".into() }
}

#[test]
fn netns_is_taken_where_it_can_start_and_kind_is_not_even_looked_at() {
    assert_eq!(auto(&[], || panic!("looked")).unwrap(), Provider::Netns);
}

#[test]
fn kind_is_taken_where_netns_cannot_start_warnings_do_not_matter() {
    let lacks = ["root".to_owned()];
    assert_eq!(auto(&lacks, || vec![finding(Weight::Warning)]).unwrap(), Provider::Kind);
}

#[test]
fn where_none_can_start_the_reasons_of_both_are_named() {
    let error = auto(&["root".to_owned()], || vec![finding(Weight::Missing)]).unwrap_err().to_string();
    assert!(error.contains("root") && error.contains("not reachable"), "{error}");
}
