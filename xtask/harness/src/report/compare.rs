//! Two runs of the same scenarios on different providers: what differs. Verdicts and matrix cells must not; how fast
//! something converges is told by class, since no two providers take the same time.

use std::collections::BTreeMap;

use super::StepResult;

/// A difference between two runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Scenario, step, and cell if it is one's.
    pub(crate) at: String,
    /// What the first run has.
    pub(crate) first: String,
    /// What the second run has.
    pub(crate) second: String,
    /// Whether it is one of verdicts: the runs do not say the same.
    pub(crate) verdict: bool,
}

/// All differences, in the order of the first run; what only the second has comes last.
pub(crate) fn compare(first: &[StepResult], second: &[StepResult]) -> Vec<Difference> {
    let key = |step: &StepResult| (step.scenario.clone(), step.step.clone());
    let mut others: BTreeMap<_, _> = second.iter().map(|step| (key(step), step)).collect();
    let mut found = Vec::new();
    for step in first {
        let at = format!("{}/{}", step.scenario, step.step);
        match others.remove(&key(step)) {
            None => found.push(Difference { at, first: verdict(step), second: "not played".into(), verdict: true }),
            Some(other) => found.extend(steps(&at, step, other)),
        }
    }
    found.extend(others.into_values().map(|step| Difference {
        at: format!("{}/{}", step.scenario, step.step),
        first: "not played".into(),
        second: verdict(step),
        verdict: true,
    }));
    found
}

fn steps(at: &str, first: &StepResult, second: &StepResult) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut put = |at: String, first: String, second: String, verdict: bool| {
        if first != second {
            found.push(Difference { at, first, second, verdict });
        }
    };
    put(at.to_owned(), verdict(first), verdict(second), true);
    let absent = "no such cell".to_owned();
    for name in first.cells.keys().chain(second.cells.keys().filter(|name| !first.cells.contains_key(*name))) {
        let of = |step: &StepResult| step.cells.get(name).unwrap_or(&absent).clone();
        put(format!("{at}: {name}"), of(first), of(second), true);
    }
    // A step that failed never got there; its verdict says so.
    if first.failure.is_none() && second.failure.is_none() {
        put(format!("{at}: convergence"), class(first.converged_seconds), class(second.converged_seconds), false);
    }
    found
}

fn verdict(step: &StepResult) -> String {
    if step.failure.is_none() { "ok" } else { "FAILED" }.to_owned()
}

/// The order of magnitude in which a user thinks of waiting.
fn class(seconds: Option<f64>) -> String {
    match seconds {
        None => "nothing to wait for",
        Some(seconds) if seconds <= 1.0 => "within 1 s",
        Some(seconds) if seconds <= 5.0 => "within 5 s",
        Some(seconds) if seconds <= 30.0 => "within 30 s",
        Some(_) => "later than 30 s",
    }
    .to_owned()
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
