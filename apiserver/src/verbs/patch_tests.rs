//! Tests of [`super`].
use super::*;

#[test]
fn a_patch_is_printed_as_go_prints_it_without_lists_that_were_merged_in_order() {
    let patch = json!({"b": null, "a": [1, "x y", true], "c": {"$setElementOrder/list": [{"name": "n"}],
        "list": [{"name": "n"}], "other": 1.5}});
    assert_eq!(as_go_prints(&patch), "map[a:[1 x y true] b:<nil> c:map[other:1.5]]");
}
