//! Selectors: each operator on a present and on an absent label, and the parser's words.

use serde_json::json;

use super::{FieldSelector, LabelSelector};

fn selects(selector: &str, labels: &serde_json::Value) -> bool {
    LabelSelector::parse(selector).unwrap().matches(labels.as_object())
}

#[test]
fn label_operators() {
    let labels = json!({"app": "a", "n": "5", "empty": ""});
    for yes in [
        "",
        "app=a",
        "app==a",
        "app!=b",
        "none!=b",
        "app in (a, b)",
        "none notin (a)",
        "app",
        "!none",
        "empty=",
        "n>4",
        "n<6",
        "app=a,n",
    ] {
        assert!(selects(yes, &labels), "{yes}");
    }
    for no in
        ["app=b", "app!=a", "none=b", "none in (a)", "app notin (a)", "none", "!app", "n>5", "app>4", "app=a,none"]
    {
        assert!(!selects(no, &labels), "{no}");
    }
    assert!(!LabelSelector::parse("a").unwrap().matches(None));
}

#[test]
fn label_complaints() {
    let error = |text| LabelSelector::parse(text).unwrap_err();
    assert_eq!(error("a=b=c"), "found '=', expected: ',' or 'end of string'");
    assert_eq!(error("app in a"), "unable to parse requirement: found 'a' expected: '('");
    let unended = "unable to parse requirement: found '', expected: ";
    assert_eq!(error("app in ("), format!("{unended}',', ')' or identifier"));
    assert_eq!(error("app in (a"), format!("{unended}',', or ')'"));
    assert_eq!(error("a,"), "found '', expected: identifier after ','");
}

#[test]
fn fields() {
    let read = |path: &str| if path == "metadata.name" { "x,y".to_owned() } else { String::new() };
    let matches = |text| FieldSelector::parse(text).unwrap().matches(read);
    assert!(matches("metadata.name=x\\,y,spec.nodeName="));
    assert!(matches("metadata.name!=z,status.phase!=Failed"));
    assert!(!matches("metadata.name==x"));
    assert_eq!(
        FieldSelector::parse("metadata.name").unwrap_err(),
        "invalid selector: 'metadata.name'; can't understand 'metadata.name'"
    );
}
