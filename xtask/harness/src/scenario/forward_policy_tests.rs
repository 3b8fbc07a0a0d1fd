//! Tests of [`super`].
use super::*;

#[test]
fn the_counter_is_found_in_what_nft_prints() {
    let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "ip", "name": "t", "handle": 1}},
        {"chain": {"family": "ip", "table": "t", "name": "forward", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"rule": {"family": "ip", "table": "t", "chain": "forward", "handle": 2,
                  "expr": [{"counter": {"packets": 7, "bytes": 420}}]}}]}"#;
    assert_eq!(packets(text), Some(7));
    assert_eq!(packets(r#"{"nftables": []}"#), None);
    assert_eq!(packets("Error: No such file or directory"), None);
}
