use super::duplicates;

#[test]
fn only_keys_of_one_mapping_are_told() {
    let text = "a: 1\nb:\n  a: 2\n  c: |\n    a: 3\n    a: 4\nl:\n- a: 5\n  b: 6\n- a: 7\n  a: 8\n'b': 9\n";
    assert_eq!(duplicates(text), ["line 11: key \"a\" already set in map", "line 12: key \"b\" already set in map"]);
}
