//! Tests of [`super`].
use serde_json::json;

use super::*;

#[test]
fn items_choose_keys_paths_and_modes() {
    let data = || Data::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
    let items = |list: serde_json::Value| -> Vec<KeyToPath> { serde_json::from_value(list).unwrap() };
    let mut all = Payload::new();
    add(&mut all, data(), None, 0o640, None).unwrap();
    let modes: Vec<(&str, u32)> = all.iter().map(|(path, file)| (path.to_str().unwrap(), file.mode)).collect();
    assert_eq!(modes, [("a", 0o640), ("b", 0o640)]);
    let mut some = Payload::new();
    let chosen = items(json!([{"key": "b", "path": "deep/er", "mode": 256}]));
    add(&mut some, data(), Some(&chosen), 0o644, None).unwrap();
    assert_eq!(some.len(), 1);
    assert_eq!(some[Path::new("deep/er")], File { content: b"2".to_vec(), mode: 0o400 });
    let missing = items(json!([{"key": "c", "path": "c"}]));
    assert!(add(&mut Payload::new(), data(), Some(&missing), 0o644, None).unwrap_err().to_string().contains("\"c\""));
    add(&mut Payload::new(), data(), Some(&missing), 0o644, Some(true)).unwrap();
    let out = items(json!([{"key": "a", "path": "../a"}]));
    assert!(add(&mut Payload::new(), data(), Some(&out), 0o644, None).is_err());
}

#[test]
fn tokens_are_renewed_at_four_fifths_of_their_lifetime() {
    assert_eq!(renewal(Duration::from_secs(3600)), Duration::from_secs(2880));
    assert_eq!(renewal(Duration::from_secs(10 * 86_400)), Duration::from_secs(86_400));
}
