//! kubectl against our server, compared with what it printed against a real one (`kubectl/*.VERSION.txt`). Runs where a
//! kubectl of a recorded version is at hand: in `KUBEBUILDER_ASSETS`, in `PATH`, or by its file in `KUBECTLS`.

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

/// Names more kubectls, as `PATH` names directories.
const MORE: &str = "KUBECTLS";
/// Lists that are run at the same time: they wait in turns.
const AT_ONCE: usize = 12;

/// All kubectls at hand; one that runs another version than it says is left out by having no transcript.
fn at_hand() -> Vec<Kubectl> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::var_os(MORE).unwrap_or_default();
    let dirs = assets.into_iter().chain(std::env::split_paths(&path)).map(|dir| dir.join("kubectl"));
    let files = std::env::split_paths(&named).filter(|file| !file.as_os_str().is_empty()).chain(dirs);
    let found = files.filter(|file| file.is_file()).filter_map(|file| Kubectl::at(&file).ok());
    let mut first = std::collections::BTreeMap::new();
    for kubectl in found {
        first.entry(kubectl.version.clone()).or_insert(kubectl);
    }
    first.into_values().collect()
}

/// Tells that the transcripts are not compared, and why; also whoever runs all tests, if he names a file for it.
fn skip(why: &str) {
    use std::io::Write;
    eprintln!("skipped: {why}");
    if let Some(file) = std::env::var_os("XTASK_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "kubectl: {why}").unwrap();
    }
}

/// What one kubectl is to print for one list.
struct Case {
    label: String,
    list: PathBuf,
    recorded: String,
    kubectl: Kubectl,
}

impl Case {
    /// Runs it on a server of its own.
    async fn play(self) -> Vec<(String, Vec<String>)> {
        let dir = std::env::temp_dir().join(format!("kubectl-test-{:016x}", fastrand::u64(..)));
        let kubeconfig = listen::ours(&dir).await.unwrap();
        let Self { label, list, recorded, kubectl } = self;
        let ours = tokio::task::spawn_blocking(move || kubectl.run(&list, &kubeconfig)).await.unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        compare(&label, &read(&recorded), &ours.unwrap())
    }
}

fn cases(tests: &Path, kubectls: &[Kubectl]) -> Vec<Case> {
    let mut lists: Vec<PathBuf> =
        std::fs::read_dir(tests.join("kubectl")).unwrap().map(|entry| entry.unwrap().path()).collect();
    lists.retain(|path| path.extension().is_some_and(|extension| extension == "cmds"));
    lists.sort();
    assert!(!lists.is_empty());
    let case = |list: &PathBuf, kubectl: &Kubectl| {
        let recorded = std::fs::read_to_string(list.with_extension(format!("{}.txt", kubectl.version))).ok()?;
        let label = format!("{}.{}", list.file_stem().unwrap().to_string_lossy(), kubectl.version);
        Some(Case { label, list: list.clone(), recorded, kubectl: kubectl.clone() })
    };
    kubectls.iter().flat_map(|kubectl| lists.iter().filter_map(move |list| case(list, kubectl))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_are_equal() {
    use futures::StreamExt;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let explained = Explained::parse(&std::fs::read_to_string(tests.join("explained.txt")).unwrap());
    let kubectls = at_hand();
    let cases = cases(&tests, &kubectls);
    if cases.is_empty() {
        let found: Vec<&str> = kubectls.iter().map(|kubectl| kubectl.version.as_str()).collect();
        skip(&format!("no kubectl of a recorded version is in KUBEBUILDER_ASSETS, PATH or {MORE}, only {found:?}"));
    }
    println!("compared: {:?}", cases.iter().map(|case| case.label.as_str()).collect::<Vec<_>>());
    let mut verdict = Verdict::default();
    let mut reports = futures::stream::iter(cases.into_iter().map(Case::play)).buffer_unordered(AT_ONCE);
    while let Some(report) = reports.next().await {
        explained.judge(&report, &mut verdict);
    }
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
