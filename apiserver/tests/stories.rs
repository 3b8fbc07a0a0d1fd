//! Our controllers against recordings of kube-controller-manager and kube-scheduler (`stories/*.jsonl`), in process and
//! under paused time. `cargo xtask differential` plays the same against the programs themselves, and records.

#![allow(clippy::unwrap_used, reason = "test code: a broken story or recording ends the test")]

#[path = "replay/compare.rs"]
mod compare;
#[path = "replay/explained.rs"]
mod explained;
#[path = "replay/player.rs"]
mod player;
#[path = "replay/server.rs"]
mod server;
#[path = "replay/story.rs"]
mod story;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use explained::{Explained, Verdict};

/// `STORIES=DIR` tells those of another folder instead; one that is not recorded is only told to its end.
#[tokio::test(start_paused = true)]
async fn our_controllers_do_what_the_real_ones_did() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let explained = Explained::parse(&std::fs::read_to_string(tests.join("explained.txt")).unwrap());
    let (dir, own) = match std::env::var_os("STORIES") {
        Some(dir) => (PathBuf::from(dir), false),
        None => (tests.join("stories"), true),
    };
    let mut stories: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    stories.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    stories.sort();
    assert!(!stories.is_empty());
    let mut verdict = Verdict::default();
    for path in stories {
        let ours = story::play_ours(&std::fs::read_to_string(&path).unwrap()).await;
        let recording = path.with_extension("jsonl");
        let theirs = if own || recording.exists() { story::recorded(&recording) } else { Vec::new() };
        judge(&path, &theirs, &ours, &explained, &mut verdict);
    }
    assert!(verdict.is_good(), "{}", verdict.text());
}

fn judge(path: &Path, theirs: &[Value], ours: &BTreeMap<String, Value>, explained: &Explained, verdict: &mut Verdict) {
    let text = std::fs::read_to_string(path).unwrap();
    let name = format!("story {}", path.file_stem().unwrap().to_string_lossy());
    explained.judge(&story::compare(&name, &text, theirs, ours), verdict);
}

/// With threads and in real time, answers and watches come in any order: the garbage collector once waited for ever for a
/// pod that the cache had brought back. How many steps a busy machine takes to the same end is no matter of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_is_the_same_with_threads_and_in_real_time() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let explained = Explained::parse(&std::fs::read_to_string(tests.join("explained.txt")).unwrap());
    let mut playing = tokio::task::JoinSet::new();
    for name in ["daemon", "jobs", "jobs", "owners", "stateful"] {
        let path = tests.join("stories").join(name).with_extension("yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        playing.spawn(async move { (path, story::play_ours(&text).await) });
    }
    let mut verdict = Verdict::default();
    while let Some(played) = playing.join_next().await {
        let (path, ours) = played.unwrap();
        let mut theirs = story::recorded(&path.with_extension("jsonl"));
        theirs.retain(|record| !record["response"]["body"].is_array());
        judge(&path, &theirs, &ours, &explained, &mut verdict);
    }
    assert!(verdict.is_good(), "{}", verdict.text());
}

/// The comparison itself is not blind.
#[test]
fn differences_in_order_and_in_what_is_shown_are_seen() {
    let event = |uid: &str, size: u64| json!({"type": "MODIFIED", "object": {"metadata": {"uid": uid}, "size": size}});
    let played = |events: Vec<Value>, settled: bool| {
        let watch = json!({"order": ["/object/size"], "response": {"events": events}});
        let shown = json!({"show": true, "response": {"code": 200, "body": {"metadata": {"resourceVersion": "7"}}}});
        let waited = json!({"settled": settled, "response": {}});
        BTreeMap::from([("1".to_owned(), watch), ("2".to_owned(), shown), ("3".to_owned(), waited)])
    };
    let differs = |ours: BTreeMap<String, Value>| {
        let theirs = story::kept(&played(vec![event("a", 1), event("b", 1), event("a", 1), event("b", 2)], true));
        story::compare("s", "steps: []", &theirs, &ours).into_iter().filter(|(_, found)| !found.is_empty()).count()
    };
    assert_eq!(differs(played(vec![event("a", 1), event("b", 1), event("b", 2)], true)), 0, "written less often");
    assert_eq!(differs(played(vec![event("a", 1), event("b", 2), event("b", 1)], true)), 1, "in another order");
    assert_eq!(differs(played(vec![event("a", 1), event("b", 1), event("b", 2)], false)), 1, "waited in vain");
    let mut other = played(vec![event("a", 1), event("b", 1), event("b", 2)], true);
    other.get_mut("2").unwrap()["response"]["body"]["x"] = json!(1);
    assert_eq!(differs(other), 1);
}
