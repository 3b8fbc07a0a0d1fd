//! Differences that are known: one a line, `SCRIPT: STEP -- REASON`. One that no longer occurs is an error, so that the
//! list only shrinks.

use std::collections::BTreeMap;

/// Labels with the reason why they may differ.
pub(crate) struct Explained(BTreeMap<String, String>);

/// What is left of a report when the explained is taken away.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Steps that were compared.
    pub(crate) steps: usize,
    /// Differences without an explanation.
    pub(crate) unexplained: Vec<String>,
    /// Differences that have one.
    pub(crate) explained: Vec<String>,
    /// Explanations of differences that do not occur.
    pub(crate) stale: Vec<String>,
}

impl Explained {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once(" -- "));
        Self(pairs.map(|(label, reason)| (label.to_owned(), reason.to_owned())).collect())
    }

    pub(crate) fn judge(&self, report: &[(String, Vec<String>)], verdict: &mut Verdict) {
        // A line about a script that was played names one of its steps.
        let script = |label: &str| label.split_once(": ").map(|(script, _)| script.to_owned());
        let played = report.first().and_then(|(label, _)| script(label));
        for label in self.0.keys().filter(|label| script(label) == played && played.is_some()) {
            if !report.iter().any(|(step, _)| step == label) {
                verdict.stale.push(format!("{label} (there is no such step)"));
            }
        }
        for (label, differences) in report {
            verdict.steps += 1;
            match (differences.is_empty(), self.0.get(label)) {
                (false, None) => verdict.unexplained.push(format!("{label}\n    {}", differences.join("\n    "))),
                (false, Some(reason)) => verdict.explained.push(format!("{label}: {reason}")),
                (true, Some(_)) => verdict.stale.push(label.clone()),
                (true, None) => {}
            }
        }
    }
}

impl Verdict {
    /// Whether nothing is left to do.
    pub(crate) fn is_good(&self) -> bool {
        self.unexplained.is_empty() && self.stale.is_empty()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for one in &self.unexplained {
            text += &format!("{one}\n");
        }
        for one in &self.explained {
            text += &format!("explained: {one}\n");
        }
        for one in &self.stale {
            text += &format!("explained, but equal or gone by now; take it out of tests/explained.txt: {one}\n");
        }
        let (unexplained, explained) = (self.unexplained.len(), self.explained.len());
        text + &format!("{} steps: {unexplained} unexplained differences, {explained} explained", self.steps)
    }
}
