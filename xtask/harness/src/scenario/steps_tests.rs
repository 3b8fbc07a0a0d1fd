//! Tests of [`super`].
use super::*;

#[test]
fn every_fault_of_a_stream_is_seen() {
    let good = json!({"attempts": 9, "ok": 9, "errors": 0, "syn_retransmits": 0, "max_connect_us": 900});
    assert!(stream_faults("connect-loop", &good).is_empty());
    for (key, value) in [("errors", 1), ("syn_retransmits", 1), ("max_connect_us", 500_000), ("ok", 0)] {
        let mut bad = good.clone();
        bad[key] = json!(value);
        assert_eq!(stream_faults("connect-loop", &bad).len(), 1, "{key}");
    }
    let good = json!({"outcome": "ok", "corrupt_at": null, "bytes": 9});
    assert!(stream_faults("transfer", &good).is_empty());
    for (key, value) in [("outcome", json!("reset")), ("corrupt_at", json!(5)), ("bytes", json!(0))] {
        let mut bad = good.clone();
        bad[key] = value;
        assert_eq!(stream_faults("transfer", &bad).len(), 1, "{key}");
    }
    assert!(stream_faults("udp-stream", &json!({"received": 5, "lost": 0})).is_empty());
    assert_eq!(stream_faults("udp-stream", &json!({"received": 5, "lost": 1})).len(), 1);
    assert_eq!(stream_faults("udp-stream", &json!({})).len(), 2);
}
