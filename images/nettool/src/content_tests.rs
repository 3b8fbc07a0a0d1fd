//! Tests of the content of a long transfer.

use super::*;

#[test]
fn parts_join_and_a_flipped_bit_is_found() {
    let mut whole = vec![0; 1000];
    fill(0, &mut whole);
    let mut part = vec![0; 77];
    fill(413, &mut part);
    assert_eq!(part, whole[413..490]);

    let mut scratch = Vec::new();
    assert_eq!(first_difference(413, &part, &mut scratch), None);
    part[70] ^= 1;
    assert_eq!(first_difference(413, &part, &mut scratch), Some(483));
    // A stream that lost or repeated a segment of any length differs almost at once.
    assert!(first_difference(414, &whole[413..490], &mut scratch).is_some_and(|at| at < 418));
}
