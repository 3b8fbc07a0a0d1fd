//! Tests of [`super`].
use super::*;

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_for_long_is_tried_every_five_seconds_and_a_fresh_one_soon() {
    let mut backoff = WatchBackoff::default();
    let waits: Vec<Duration> = backoff.by_ref().take(20).collect();
    assert!(waits[0] < Duration::from_secs(2), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");
    assert_eq!(waits[19], LONGEST, "it has grown to the longest: {waits:?}");
    backoff.reset();
    assert!(backoff.next().unwrap() < Duration::from_secs(2), "a success makes it forget");
}
