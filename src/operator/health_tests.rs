//! Tests of [`super`].
use super::*;

#[test]
fn ready_when_the_caches_are_complete_and_well_while_the_loops_turn() {
    let state = State::default();
    assert!(state.answer("/readyz").unwrap().is_err());
    assert_eq!(state.answer("/metrics"), None);
    state.set_ready();
    assert_eq!(state.answer("/readyz"), Some(Ok(())));
    state.health.note::<()>(LEASE, Err(anyhow::anyhow!("the API server is away")));
    state.beat();
    assert_eq!(state.answer("/healthz"), Some(Ok(())), "a restart would not bring the API server back");
    assert_eq!(state.turning(Duration::ZERO), Err("loop lease has not turned for 0 s".to_owned()));
}
