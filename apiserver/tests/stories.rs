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

use std::path::{Path, PathBuf};

use explained::{Explained, Verdict};

#[tokio::test(start_paused = true)]
async fn our_controllers_do_what_the_real_ones_did() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let explained = Explained::parse(&std::fs::read_to_string(tests.join("explained.txt")).unwrap());
    let mut stories: Vec<PathBuf> =
        std::fs::read_dir(tests.join("stories")).unwrap().map(|entry| entry.unwrap().path()).collect();
    stories.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    stories.sort();
    assert!(!stories.is_empty());
    let mut verdict = Verdict::default();
    for path in stories {
        let text = std::fs::read_to_string(&path).unwrap();
        let ours = story::play_ours(&text).await;
        let theirs = story::recorded(&path.with_extension("jsonl"));
        let name = format!("story {}", path.file_stem().unwrap().to_string_lossy());
        explained.judge(&story::compare(&name, &text, &theirs, &ours), &mut verdict);
    }
    assert!(verdict.is_good(), "{}", verdict.text());
}
