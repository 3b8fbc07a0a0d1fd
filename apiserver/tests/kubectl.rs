//! kubectl against our server, compared with what it printed against a real one (`kubectl/*.VERSION.txt`). Runs where a
//! kubectl of a recorded version is at hand: in `KUBEBUILDER_ASSETS` or in `PATH`.

#![allow(clippy::unwrap_used, reason = "test code: a broken list or transcript ends the test")]

#[path = "replay/explained.rs"]
mod explained;
#[path = "replay/listen.rs"]
mod listen;
#[path = "replay/transcript.rs"]
mod transcript;

use std::path::{Path, PathBuf};

use explained::{Explained, Verdict};
use transcript::{Kubectl, compare, read};

/// All kubectls at hand; one that runs another version than it says is left out by having no transcript.
fn at_hand() -> Vec<Kubectl> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = assets.into_iter().chain(std::env::split_paths(&path));
    dirs.map(|dir| dir.join("kubectl"))
        .filter(|file| file.is_file())
        .filter_map(|file| Kubectl::at(&file).ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_are_equal() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let explained = Explained::parse(&std::fs::read_to_string(tests.join("explained.txt")).unwrap());
    let mut lists: Vec<PathBuf> =
        std::fs::read_dir(tests.join("kubectl")).unwrap().map(|entry| entry.unwrap().path()).collect();
    lists.retain(|path| path.extension().is_some_and(|extension| extension == "cmds"));
    lists.sort();
    assert!(!lists.is_empty());
    let mut verdict = Verdict::default();
    let mut done = Vec::new();
    for kubectl in at_hand() {
        for list in &lists {
            let recorded = list.with_extension(format!("{}.txt", kubectl.version));
            let Ok(recorded) = std::fs::read_to_string(&recorded) else { continue };
            let name = list.file_stem().unwrap().to_string_lossy().into_owned();
            let label = format!("{name}.{}", kubectl.version);
            if done.contains(&label) {
                continue;
            }
            done.push(label.clone());
            let dir = std::env::temp_dir().join(format!("kubectl-test-{:016x}", fastrand::u64(..)));
            let kubeconfig = listen::ours(&dir).await.unwrap();
            let (kubectl, list) = (kubectl.clone(), list.clone());
            let ours = tokio::task::spawn_blocking(move || kubectl.run(&list, &kubeconfig)).await.unwrap();
            std::fs::remove_dir_all(&dir).unwrap();
            explained.judge(&compare(&label, &read(&recorded), &ours.unwrap()), &mut verdict);
        }
    }
    if done.is_empty() {
        let found: Vec<String> = at_hand().into_iter().map(|kubectl| kubectl.version).collect();
        println!("skipped: no kubectl of a recorded version is in KUBEBUILDER_ASSETS or PATH, only {found:?}");
    }
    println!("compared: {done:?}");
    assert!(verdict.is_good(), "{}", verdict.text());
}

#[test]
fn transcripts_survive_their_file_and_differences_show() {
    let entries = [("kubectl get a", "A   <age>\n\nB\n[exit 0]\n"), ("kubectl b", "[stderr]\nno\n[exit 1]\n")];
    let entries = entries.map(|(command, text)| transcript::Entry { command: command.into(), text: text.into() });
    assert_eq!(read(&transcript::write(&entries)), entries);
    let mut other = entries.clone();
    other[0].text = other[0].text.replace('B', "C");
    let report = compare("l", &entries, &other);
    assert_eq!(report[0], ("l: 001 kubectl get a".into(), vec!["- B".into(), "+ C".into()]));
    assert!(report[1].1.is_empty());
    assert_eq!(compare("l", &entries, &other[..1])[1].1, ["was not run"]);
}
