//! Tests of [`super`].
use super::*;

fn payload(files: &[(&str, &str, u32)]) -> Payload {
    let file = |text: &str, mode| File { content: text.as_bytes().to_vec(), mode };
    files.iter().map(|(name, text, mode)| (path(name).unwrap(), file(text, *mode))).collect()
}

#[test]
fn files_change_all_at_once_and_old_ones_go() {
    let dir = std::env::temp_dir().join(format!("payload-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    write(&dir, &payload(&[("a", "1", 0o644), ("deep/b", "2", 0o400)]), None).unwrap();
    let first = fs::read_link(dir.join("..data")).unwrap();
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(dir.join("deep/b")).unwrap(), "2");
    assert_eq!(fs::metadata(dir.join("deep/b")).unwrap().mode() & 0o7777, 0o400);
    // A reader that has opened the directory of before sees no mixture.
    let held = fs::File::open(dir.join("a")).unwrap();
    write(&dir, &payload(&[("a", "3", 0o600), ("c", "4", 0o644)]), None).unwrap();
    assert_eq!(std::io::read_to_string(held).unwrap(), "1");
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
    assert!(dir.join("deep").symlink_metadata().is_err());
    assert!(!dir.join(&first).exists());
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["..2", "..data", "a", "c"]);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn paths_stay_within_the_volume() {
    for bad in ["", "..", "../a", "/a", "a/../b", "..data", "..2/x"] {
        assert!(path(bad).is_err(), "{bad}");
    }
    for good in ["a", "a/b", ".hidden"] {
        assert!(path(good).is_ok(), "{good}");
    }
}
