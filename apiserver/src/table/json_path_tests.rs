use serde_json::json;

use super::first;

#[test]
fn the_first_hit() {
    let object = json!({"l": [{"k": "a", "v": 1}, {"k": "b"}, {"k": "b", "v": 7}], "m": {"a.b/c": "x"}});
    for (path, want) in [
        (".l[*].k", json!("a")),
        (".l[-1:].k", json!("b")),
        (".l[-1].v", json!(7)),
        (".l[?(@.k==\"b\")].v", json!(7)),
        (".l[?(@.v>1)].k", json!("b")),
        ("..v", json!(1)),
        (".m.a\\.b/c", json!("x")),
        (".m['a.b/c']", json!("x")),
    ] {
        assert_eq!(first(&object, path), Some(&want), "{path}");
    }
    assert_eq!(first(&object, ".l[5]"), None);
}
