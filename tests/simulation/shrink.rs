//! Makes a failing case smaller: leaves out ever fewer items at once, for as long as the same rule is still broken.

use crate::case::Case;
use crate::ledger::Rule;
use crate::mutant::Mutant;
use crate::run::run;

/// Runs that a reduction may cost.
const RUNS: usize = 600;

/// The items that it takes to break `rule`.
pub(crate) fn shrink(case: &Case, mutant: Option<Mutant>, rule: Rule) -> Vec<usize> {
    let mut left = RUNS;
    let mut fails = |keep: &[usize]| {
        left = left.saturating_sub(1);
        left > 0 && run(&case.keeping(keep), mutant, false).violations.iter().any(|broken| broken.rule == rule)
    };
    let mut keep: Vec<usize> = (0..case.items.len()).collect();
    let mut chunk = keep.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        let before = keep.len();
        while at < keep.len() {
            let without: Vec<usize> = keep
                .iter()
                .enumerate()
                .filter(|(place, _)| !(at..at + chunk).contains(place))
                .map(|(_, one)| *one)
                .collect();
            if fails(&without) {
                keep = without;
            } else {
                at += chunk;
            }
        }
        // One that could not go while another was there may go now.
        if chunk > 1 || keep.len() == before {
            chunk /= 2;
        }
    }
    keep
}
