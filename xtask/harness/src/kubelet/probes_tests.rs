//! Tests of [`super`].
use super::*;

#[test]
fn thresholds_count_results_in_a_row() {
    let mut streak = Streak::default();
    let results = [false, false, true, false, false, false, true, true];
    let decisions: Vec<Option<bool>> = results.into_iter().map(|good| streak.note(good, 2, 3)).collect();
    assert_eq!(decisions, [None, None, None, None, None, Some(false), None, Some(true)]);
}
