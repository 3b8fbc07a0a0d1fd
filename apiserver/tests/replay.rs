//! Replays recorded exchanges with a real kube-apiserver against this server, in process, and compares.
//!
//! Scripts are in `tests/corpus`, what v1.34 answered in `tests/recorded`. Differences that are known stand in
//! `tests/explained.txt` with a reason; one that no longer shows is an error too, so that the list only shrinks.
//! `REPLAY_DIR` names another folder with `corpus` and `recorded`: everything in it is played and only reported.

#![allow(clippy::unwrap_used, reason = "test code: a broken script or recording ends the test")]

#[path = "replay/compare.rs"]
mod compare;
#[path = "replay/explained.rs"]
mod explained;
#[path = "replay/player.rs"]
mod player;
#[path = "replay/server.rs"]
mod server;

use std::path::{Path, PathBuf};

use serde_json::Value;

use compare::Comparison;
use explained::{Explained, Verdict};
use player::play;
use server::Server;

fn recorded(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn scripts(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("corpus")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    all.sort();
    all
}

/// Step labels with their differences; equal steps have none.
async fn replay(root: &Path, script: &Path) -> Vec<(String, Vec<String>)> {
    let name = script.file_stem().unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(script).unwrap();
    let golden = recorded(&root.join("recorded").join(format!("{name}.jsonl")));
    let observed = play(&text, Server::ours()).await;
    let mut comparison = Comparison::new(&text);
    let mut report = Vec::new();
    for record in &golden {
        let step = record["step"].as_str().unwrap();
        let label = format!("{name}: {step}");
        match observed.get(step) {
            Some(seen) => report.push((label, comparison.exchange(record, seen))),
            None => report.push((label, vec!["was not played".into()])),
        }
    }
    report
}

#[tokio::test]
async fn our_corpus_is_answered_like_the_real_server() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let explained = Explained::parse(&std::fs::read_to_string(root.join("explained.txt")).unwrap());
    let mut verdict = Verdict::default();
    let scripts = scripts(&root);
    // Each script has a server of its own.
    for report in futures::future::join_all(scripts.iter().map(|script| replay(&root, script))).await {
        explained.judge(&report, &mut verdict);
    }
    assert!(verdict.steps > 600, "only {} steps were found", verdict.steps);
    assert!(verdict.is_good(), "{}", verdict.text());
}

#[tokio::test]
async fn another_corpus_is_reported() {
    let Some(root) = std::env::var_os("REPLAY_DIR").map(PathBuf::from) else { return };
    let (mut equal, mut all) = (0, 0);
    let scripts = scripts(&root);
    let reports = futures::future::join_all(scripts.iter().map(|script| replay(&root, script))).await;
    for (script, report) in scripts.iter().zip(reports) {
        let same = report.iter().filter(|(_, differences)| differences.is_empty()).count();
        for (label, differences) in report.iter().filter(|(_, differences)| !differences.is_empty()) {
            println!("{label}\n    {}", differences.join("\n    "));
        }
        println!("{}: {same} of {} steps are equal", script.display(), report.len());
        (equal, all) = (equal + same, all + report.len());
    }
    println!("{equal} of {all} steps are equal");
    assert!(all > 0, "nothing to replay in {}", root.display());
}

/// Explanations that explain nothing are told.
#[test]
fn stale_explanations_are_seen() {
    let explained = Explained::parse("# about\na: 1 -- why\na: 2 -- why\na: 9 -- why\nb: 1 -- why\n");
    let differs = |step: &str| (step.to_owned(), vec!["x".to_owned()]);
    let mut verdict = Verdict::default();
    explained.judge(&[differs("a: 1"), ("a: 2".into(), Vec::new()), differs("a: 3")], &mut verdict);
    assert_eq!(verdict.stale, ["a: 9 (there is no such step)", "a: 2"]);
    assert_eq!((verdict.unexplained.len(), verdict.explained.len()), (1, 1));
    assert!(!verdict.is_good());
}

/// The comparison itself is not blind.
#[test]
fn differences_are_seen() {
    let record = |code: u16, body: &str| {
        let body: Value = serde_json::from_str(body).unwrap();
        serde_json::json!({"request": {}, "response": {"code": code, "headers": {}, "body": body}})
    };
    let differs = |golden: &Value, seen: &Value| !Comparison::new("").exchange(golden, seen).is_empty();
    let object =
        r#"{"metadata": {"uid": "11111111-1111-4111-8111-111111111111", "resourceVersion": "5", "name": "a"}}"#;
    let other_uid = object.replace("1111", "2222");
    assert!(!differs(&record(200, object), &record(200, &other_uid)));
    assert!(differs(&record(200, object), &record(201, object)));
    assert!(differs(&record(200, object), &record(200, &object.replace("\"a\"", "\"b\""))));
    assert!(differs(&record(200, object), &record(200, r#"{"metadata": {}}"#)));
    // Revisions may have gaps, but not another order.
    let mut comparison = Comparison::new("");
    let with = |revision: &str| record(200, &object.replace("\"5\"", &format!("\"{revision}\"")));
    assert!(comparison.exchange(&with("5"), &with("50")).is_empty());
    assert!(comparison.exchange(&with("6"), &with("90")).is_empty());
    assert!(!comparison.exchange(&with("7"), &with("60")).is_empty());
    assert!(!comparison.exchange(&with("5"), &with("51")).is_empty());
}
