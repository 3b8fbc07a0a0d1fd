//! Every test is in a tier, and nothing is left out silently.

use super::*;

#[test]
fn every_integration_test_is_in_exactly_one_tier() {
    let root = build::repository().unwrap();
    let named: Vec<String> = tiers()
        .unwrap()
        .into_iter()
        .flat_map(|tier| tier.selections.concat())
        .scan(String::new(), |before, word| {
            let name = (*before == "--test").then(|| word.clone());
            *before = word;
            Some(name)
        })
        .flatten()
        .collect();
    for dir in ["tests", "apiserver/tests", "xtask/harness/tests"] {
        let names = test_names(&root.join(dir)).unwrap();
        assert!(!names.is_empty(), "{dir}");
        for name in names {
            let tiers = named.iter().filter(|own| **own == name).count();
            assert_eq!(tiers, usize::from(!PROGRAMS.contains(&name.as_str())), "{dir}/{name}");
        }
    }
}

#[test]
fn what_is_left_out_is_told_and_fails_where_the_tier_must_run() {
    let skips = ["kubectl: there is none".to_owned()];
    assert_eq!(verdict(true, &[], true), "passed");
    assert_eq!(verdict(true, &skips, false), "passed, but skipped: kubectl: there is none");
    assert_eq!(verdict(true, &skips, true), "FAILED: it must run here, but skipped: kubectl: there is none");
    assert_eq!(verdict(false, &skips, false), "FAILED, and skipped: kubectl: there is none");
}
