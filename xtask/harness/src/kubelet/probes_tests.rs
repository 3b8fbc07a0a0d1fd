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
    let (mut pace, now) = (Pace::new(period), Instant::now());
    let eager: Vec<u128> = (0..6).map(|_| pace.pause(true, now).as_millis()).collect();
    assert_eq!(eager, [50, 100, 200, 400, 800, 1000]);
    assert!((0..1000).all(|_| pace.pause(false, now) == period && pace.pause(true, now) == period));
}

/// Three failures within 150 ms once killed a container whose server was not up yet.
#[tokio::test(start_paused = true)]
async fn failures_count_once_a_period_however_eagerly_it_is_asked() {
    let start = Instant::now();
    let mut pace = Pace::new(Duration::from_secs(1));
    let mut counted = Vec::new();
    while start.elapsed() < Duration::from_secs(4) {
        if pace.is_due(Instant::now()) {
            counted.push(start.elapsed().as_millis());
        }
        tokio::time::advance(pace.pause(true, Instant::now())).await;
    }
    assert_eq!(counted, [0, 1000, 2000, 3000]);
}
