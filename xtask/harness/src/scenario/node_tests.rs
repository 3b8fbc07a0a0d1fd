//! Tests of [`super`].
use super::*;

fn key(uid: &str) -> Key {
    (uid.to_owned(), "c".to_owned())
}

fn now(uid: &str, restarts: i32, ready: bool) -> Now {
    Now { key: key(uid), pod: format!("pod-{uid}"), restarts, ready }
}

#[test]
fn a_restart_is_over_when_all_that_was_ready_has_been_started_again() {
    let ran = |ready| Ran { name: "pod/c".into(), restarts: 3, ready, ours: true };
    let before = BTreeMap::from([(key("a"), ran(true)), (key("broken"), ran(false))]);
    let missing = |now: &[Now]| not_started(&before, now);
    // What the API server says before the kubelet has spoken is not the new run.
    assert_eq!(missing(&[now("a", 3, true)]), ["pod-a/c was not started again"]);
    assert_eq!(missing(&[now("a", 4, false)]), ["pod-a/c is not ready"]);
    assert!(missing(&[now("a", 4, true)]).is_empty());
    assert!(missing(&[now("broken", 3, false)]).is_empty(), "it was not ready before");
    // Somebody else's pod in its place.
    assert_eq!(missing(&[now("b", 0, false)]), ["pod-b/c is not ready"]);
    assert!(missing(&[now("b", 0, true)]).is_empty());
}
