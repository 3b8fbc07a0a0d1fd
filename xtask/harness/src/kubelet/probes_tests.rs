//! Tests of [`super`].
use super::*;

#[test]
fn thresholds_count_results_in_a_row() {
    let mut streak = Streak::default();
    let results = [false, false, true, false, false, false, true, true];
    let decisions: Vec<Option<bool>> = results.into_iter().map(|good| streak.note(good, 2, 3)).collect();
    assert_eq!(decisions, [None, None, None, None, None, Some(false), None, Some(true)]);
}

#[test]
fn pauses_grow_to_the_period_and_stay_there_however_long_a_container_runs() {
    let period = Duration::from_secs(1);
    let mut pace = Pace { next: Duration::from_millis(50), period };
    let eager: Vec<u128> = (0..6).map(|_| pace.pause(true).as_millis()).collect();
    assert_eq!(eager, [50, 100, 200, 400, 800, 1000]);
    assert!((0..1000).all(|_| pace.pause(false) == period && pace.pause(true) == period));
}
