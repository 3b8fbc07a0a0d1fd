//! Tests of [`super`].
use super::*;

fn step(name: &str, failure: Option<&str>, cell: &str, converged: Option<f64>) -> StepResult {
    StepResult {
        scenario: "s".into(),
        step: name.into(),
        seconds: 1.0,
        window_seconds: 0.0,
        converged_seconds: converged,
        cells: [("lan -> NodePort of worker1".to_owned(), cell.to_owned())].into(),
        failure: failure.map(str::to_owned),
    }
}

#[test]
fn the_same_is_no_difference_whatever_the_words_of_a_failure() {
    let first = [step("a", None, "ok", Some(0.2)), step("b", Some("x"), "WRONG", None)];
    let second = [step("a", None, "ok", Some(0.9)), step("b", Some("y"), "WRONG", None)];
    assert_eq!(compare(&first, &second), []);
}

#[test]
fn verdicts_cells_and_classes_are_told() {
    let first = [step("a", None, "ok", Some(0.2)), step("b", None, "ok", None), step("d", None, "ok", Some(0.2))];
    let second = [step("a", Some("x"), "WRONG", None), step("c", None, "ok", None), step("d", None, "ok", Some(3.0))];
    let found = compare(&first, &second);
    let told: Vec<(&str, &str, &str, bool)> =
        found.iter().map(|d| (d.at.as_str(), d.first.as_str(), d.second.as_str(), d.verdict)).collect();
    assert_eq!(
        told,
        [
            ("s/a", "ok", "FAILED", true),
            ("s/a: lan -> NodePort of worker1", "ok", "WRONG", true),
            ("s/b", "ok", "not played", true),
            ("s/d: convergence", "within 1 s", "within 5 s", false),
            ("s/c", "not played", "ok", true),
        ]
    );
}
