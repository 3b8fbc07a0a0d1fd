//! Tests of the sequence check.

use super::*;

fn answer(number: usize, port: u16) -> Vec<u8> {
    format!(r#"{{"pod":"p","peer_port":{port},"payload":"{number}"}}"#).into_bytes()
}

#[test]
fn loss_duplicates_and_reordering_are_told_apart() {
    let mut tracker = Tracker { sent_at: vec![Instant::now(); 5], seen: vec![false; 5], ..Tracker::default() };
    for (number, port) in [(0, 7), (2, 7), (1, 7), (2, 7), (4, 8)] {
        tracker.take(&answer(number, port));
    }
    tracker.take(b"not json");
    tracker.take(&answer(99, 7));
    let report = tracker.finish();
    assert_eq!((report.received, report.lost, report.first_lost), (4, 1, vec![3]));
    assert_eq!((report.duplicates, report.reordered, report.garbled), (1, 1, 2));
    assert_eq!(report.peer_ports.into_iter().collect::<Vec<_>>(), [(7, 3), (8, 1)]);
}
