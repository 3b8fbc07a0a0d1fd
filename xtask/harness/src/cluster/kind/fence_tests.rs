//! Tests of [`super`].
use super::*;

#[test]
fn the_walkthroughs_pools_are_fenced_in_both_directions_out() {
    let names = Names::of("a-b").unwrap();
    let rules = rules(&names);
    let lines: Vec<&str> = rules.lines().filter(|line| line.contains("drop")).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.contains("20.0.10.0/24") && line.contains("30.0.10.0/24")));
    assert!(lines[0].contains(&format!("iifname \"{0}\" oifname != \"{0}\"", names.bridge)), "{rules}");
    assert!(rules.starts_with("table inet portolan_e2e_a_b {"));
}

#[test]
fn the_counter_is_read_from_nfts_json() {
    let answer = serde_json::json!({"nftables": [{"metainfo": {}}, {"counter": {"name": "stopped", "packets": 3}}]});
    assert_eq!(packets(&answer), Some(3));
    assert_eq!(packets(&serde_json::json!({"nftables": []})), None);
}
