//! Tests of [`super`].
use super::*;

fn held_by(holder: Option<&str>) -> LeaseSpec {
    LeaseSpec { holder_identity: holder.map(str::to_owned), lease_duration_seconds: Some(15), ..LeaseSpec::default() }
}

#[test]
fn a_lease_is_taken_only_when_its_holder_cannot_write_any_more() {
    for (holder, unchanged, expected) in [
        (Some("me"), 0, Decision::Take),
        (None, 0, Decision::Take),
        (Some(""), 0, Decision::Take),
        (Some("other"), 0, Decision::Wait),
        (Some("other"), 16, Decision::Wait),
        (Some("other"), 20, Decision::Wait),
        (Some("other"), 21, Decision::Take),
    ] {
        assert_eq!(decide(&held_by(holder), "me", Duration::from_secs(unchanged)), expected, "{holder:?} {unchanged}");
    }
}
