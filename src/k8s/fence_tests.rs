//! Tests of [`super`], by a clock that stands still until it is moved.
use std::cell::Cell;

use futures::FutureExt;

use super::*;
use crate::k8s::lease::DURATION;
use crate::k8s::lease::tests::Standing;

fn held() -> (Fence, Arc<Standing>) {
    let clock = Arc::new(Standing::default());
    let fence = Fence::new(clock.clone());
    fence.set(Some(DURATION));
    (fence, clock)
}

#[test]
fn nothing_is_sent_in_the_last_request_timeout_of_a_lease() {
    let (fence, clock) = held();
    for (at, may) in [(0, true), (9, true), (10, false), (14, false), (16, false)] {
        clock.set(at);
        assert_eq!(fence.may_write(), may, "at {at} s");
        let sent = Cell::new(false);
        let answer = fence.guard(async { sent.set(true) }).now_or_never().unwrap();
        assert_eq!((answer.is_ok(), sent.get()), (may, may), "at {at} s");
    }
}

#[test]
fn a_write_that_was_held_up_is_not_sent_late() {
    let (fence, clock) = held();
    let sent = Cell::new(false);
    // The first poll waits for a connection; the second one would send.
    let mut connected = false;
    let write = poll_fn(|_| {
        if std::mem::replace(&mut connected, true) {
            sent.set(true);
            return Poll::Ready(());
        }
        Poll::Pending
    });
    let mut guarded = std::pin::pin!(fence.guard(write));
    assert_eq!(guarded.as_mut().now_or_never(), None);
    clock.set(60);
    assert_eq!(guarded.now_or_never(), Some(Err(Fenced)));
    assert!(!sent.get());
}

#[test]
fn a_lease_that_was_found_again_wakes_the_writer() {
    let (fence, clock) = held();
    fence.changed().now_or_never().expect("the first lease wakes");
    fence.set(Some(DURATION + DURATION));
    assert_eq!(fence.changed().now_or_never(), None, "a renewal does not");
    clock.set(28);
    fence.set(Some(Duration::from_secs(43)));
    fence.changed().now_or_never().expect("one that came too late does: writes were refused meanwhile");
    fence.close();
    fence.changed().now_or_never().expect("the end does");
    assert!(!fence.may_write() && fence.held());
}

#[test]
fn an_unreadable_clock_lets_nothing_through() {
    let (fence, clock) = held();
    clock.set(u64::MAX);
    assert!(!fence.may_write() && !fence.held());
}
