//! Tests of [`super`].
use super::*;

fn dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("kubelet-logs-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn all(path: &Path) -> String {
    entries(path).iter().map(|entry| plain(entry, false)).collect()
}

#[tokio::test]
async fn a_log_is_rotated_by_size_and_read_across_its_files() {
    let dir = dir("rotate");
    let path = dir.join("0.log");
    let mut log = Log::open(path.clone()).unwrap();
    log.limit = 1000;
    let mut tail = Tail::open(&path).unwrap();
    let log = Arc::new(Mutex::new(log));
    let mut followed = Vec::new();
    for at in 0..200 {
        copy("stdout", format!("line {at}\n").as_bytes(), log.clone()).await;
        followed.extend(tail.fresh());
    }
    let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.len(), FILES_MAX);
    assert!(files.iter().all(|file| file.metadata().unwrap().len() < 1100));
    let text = all(&path);
    assert!(text.ends_with("line 198\nline 199\n"), "{text}");
    assert!(!text.contains("line 0\n"), "the oldest are gone");
    let first: usize = text.lines().next().unwrap().strip_prefix("line ").unwrap().parse().unwrap();
    assert_eq!(text.lines().count(), 200 - first, "nothing is missing in between");
    assert_eq!(followed.len(), 200, "one who follows misses nothing when files are rotated");
    assert_eq!(runs(&dir), [0]);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn long_lines_are_entries_of_bounded_length_and_one_line_again_when_read() {
    let dir = dir("long");
    let path = dir.join("0.log");
    let long = "x".repeat(3 * ENTRY_MAX + 5);
    let log = Arc::new(Mutex::new(Log::open(path.clone()).unwrap()));
    copy("stdout", format!("{long}\n\nno end").as_bytes(), log).await;
    assert!(lines(&path).iter().all(|entry| entry.len() <= ENTRY_MAX + 60));
    assert_eq!(all(&path), format!("{long}\n\nno end\n"));
    assert_eq!(last_words(&path, 8), "\nno end\n");
    let chosen = Options { tail: Some(3), ..Options::default() };
    assert_eq!(chosen.choose(&entries(&path)).count(), 6, "a tail counts lines, not entries");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn options_choose() {
    let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    let entries: Vec<String> =
        (0..60).map(|second| format!("2026-01-01T00:00:{second:02}.000000000Z stdout F line {second}")).collect();
    let chosen = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let options = Options::parse(&pairs, now).unwrap();
        options.choose(&entries).map(|entry| plain(entry, options.timestamps)).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&[]).len(), 60);
    assert_eq!(chosen(&[("tailLines", "2")]), ["line 58\n", "line 59\n"]);
    assert_eq!(chosen(&[("tailLines", "0")]).len(), 0);
    assert_eq!(chosen(&[("sinceSeconds", "10")]).len(), 10);
    assert_eq!(chosen(&[("sinceTime", "2026-01-01T00:00:58Z")]).len(), 2);
    assert_eq!(chosen(&[("sinceSeconds", "10"), ("tailLines", "3")]).len(), 3);
    assert_eq!(chosen(&[("tailLines", "1"), ("timestamps", "true")]), ["2026-01-01T00:00:59.000000000Z line 59\n"]);
    assert!(Options::parse(&[("tailLines".into(), "x".into())], now).is_err());
}

#[test]
fn a_limit_counts_bytes_over_all_that_is_sent() {
    let mut options = Options { limit: Some(10), ..Options::default() };
    let mut text = b"12345678".to_vec();
    assert!(!options.cut(&mut text));
    let mut text = b"abcdef".to_vec();
    assert!(options.cut(&mut text));
    assert_eq!(text, b"ab");
}
