//! What kubectl prints: a list of commands run one after the other, its output with everything volatile made equal.

#![allow(dead_code, reason = "not every test records")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regex::{Captures, Regex};

/// How long a command with `@retry` is run again until it succeeds.
const RETRY: Duration = Duration::from_secs(10);

/// One command, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) command: String,
    /// Output, errors and exit status.
    pub(crate) text: String,
}

/// A kubectl to run.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    pub(crate) program: PathBuf,
    /// Major and minor version, such as `1.34`.
    pub(crate) version: String,
}

impl Kubectl {
    /// Asks a program for its version.
    ///
    /// # Errors
    /// It does not run, or says no version.
    pub(crate) fn at(program: &Path) -> Result<Self> {
        let output = Command::new(program).args(["version", "--client", "-o", "json"]).output();
        let output = output.with_context(|| format!("running {}", program.display()))?;
        let version: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{} version --client -o json", program.display()))?;
        let text = version["clientVersion"]["gitVersion"].as_str().context("no version")?;
        let version = text.trim_start_matches('v').split('.').take(2).collect::<Vec<_>>().join(".");
        Ok(Self { program: program.canonicalize()?, version })
    }

    /// Runs the commands of a list (one a line; `#` begins a comment, `@retry` repeats one until it succeeds) in the
    /// folder `files` beside it, with a home and a cache of its own.
    ///
    /// # Errors
    /// The list cannot be read, or no shell runs.
    pub(crate) fn run(&self, list: &Path, kubeconfig: &Path) -> Result<Vec<Entry>> {
        let text = std::fs::read_to_string(list).with_context(|| format!("reading {}", list.display()))?;
        let home = std::env::temp_dir().join(format!("transcript-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(home.join("bin"))?;
        std::os::unix::fs::symlink(&self.program, home.join("bin/kubectl"))?;
        let files = list.parent().context("a list lies in a folder")?.join("files");
        let normal = Normal::new();
        let mut entries = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let output = self.shell(line, &home, &files, kubeconfig)?;
            let mut text = normal.text(&String::from_utf8_lossy(&output.stdout));
            if !output.stderr.is_empty() {
                text += &format!("[stderr]\n{}", normal.text(&String::from_utf8_lossy(&output.stderr)));
            }
            text += &format!("[exit {}]\n", output.status.code().unwrap_or(-1));
            entries.push(Entry { command: line.to_owned(), text });
        }
        std::fs::remove_dir_all(&home)?;
        Ok(entries)
    }

    fn shell(&self, line: &str, home: &Path, files: &Path, kubeconfig: &Path) -> Result<std::process::Output> {
        let (line, retry) = line.strip_prefix("@retry ").map_or((line, false), |line| (line, true));
        let begun = Instant::now();
        loop {
            // No command may wait for ever.
            let mut command = Command::new("timeout");
            command.args(["60", "bash", "-c", line]).current_dir(files).stdin(Stdio::null()).env_clear();
            command.env("PATH", format!("{}/bin:/usr/local/bin:/usr/bin:/bin", home.display()));
            // It lives too short to gain from collecting what it leaves, or from threads.
            command.env("GOGC", "off").env("GOMAXPROCS", "1");
            command.env("HOME", home).env("KUBECACHEDIR", home.join("cache")).env("KUBECONFIG", kubeconfig);
            let output = command.env("LC_ALL", "C").env("EDITOR", "false").output().context("running bash")?;
            if !retry || output.status.success() || begun.elapsed() > RETRY {
                return Ok(output);
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// The rules that make volatile words equal.
struct Normal {
    rules: Vec<(Regex, &'static str)>,
    address: Regex,
    port: Regex,
    age: Regex,
    gap: Regex,
}

impl Normal {
    fn new() -> Self {
        let compiled = |text: &str| Regex::new(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let rules = [
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d{4})?Z?", "<time>"),
            (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "<time>"),
            (r"^[EWI]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ", "<log> "),
            (r#"(resourceVersion\\*"?: *\\*")\d+"#, "$1<rv>"),
            (r"(resource version to be \d+, was )\d+", "$1<rv>"),
            (r"kubectl-edit-\d+", "kubectl-edit"),
            (r"/[\w./-]*/transcript-[0-9a-f]{16}", "<home>"),
            (r"(Resource Version: +)\d+", "$1<rv>"),
            (r"/tmp/(LIVE|MERGED)-\d+", "/tmp/$1"),
            (r"https?://127\.[\d.]+:\d+", "<server>"),
            (r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "<jwt>"),
        ];
        Self {
            rules: rules.map(|(text, with)| (compiled(text), with)).into(),
            address: compiled(r"10\.96\.\d+\.\d+"),
            port: compiled(r"\b3[0-2]\d{3}\b"),
            age: compiled(r"(\d+[smhdy])+"),
            gap: compiled(r" {2,}(\S)"),
        }
    }

    fn text(&self, text: &str) -> String {
        text.split('\n').map(|line| self.line(line)).collect::<Vec<_>>().join("\n")
    }

    fn line(&self, line: &str) -> String {
        let rest = line.trim_start_matches(' ');
        let indent = &line[..line.len() - rest.len()];
        let mut text = rest.to_owned();
        for (rule, with) in &self.rules {
            text = rule.replace_all(&text, *with).into_owned();
        }
        let fixed = "10.96.0.1";
        text = self
            .address
            .replace_all(&text, |f: &Captures<'_>| if &f[0] == fixed { fixed } else { "<ip>" }.to_owned())
            .into_owned();
        let allocated = |word: &str, next: Option<char>| {
            word.parse().is_ok_and(|port: u32| (30000..=32767).contains(&port)) && next != Some('.')
        };
        text = self.replace(&self.port, &text, |word, _, next| allocated(word, next).then_some("<port>"));
        let outside = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.');
        text = self.replace(&self.age, &text, |_, last, next| (outside(last) && outside(next)).then_some("<age>"));
        text = self.gap.replace_all(&text, "   $1").into_owned();
        let text = text.trim_end_matches([' ', '\t']);
        if text.is_empty() { String::new() } else { format!("{indent}{text}") }
    }

    /// Replaces matches by what is said of them, of the characters around them too.
    fn replace(
        &self,
        rule: &Regex,
        text: &str,
        say: impl Fn(&str, Option<char>, Option<char>) -> Option<&'static str>,
    ) -> String {
        let mut out = String::new();
        let mut done = 0;
        for found in rule.find_iter(text) {
            let (last, next) = (text[..found.start()].chars().next_back(), text[found.end()..].chars().next());
            if let Some(word) = say(found.as_str(), last, next) {
                out += &text[done..found.start()];
                out += word;
                done = found.end();
            }
        }
        out + &text[done..]
    }
}

/// A transcript as it is kept in a file.
pub(crate) fn write(entries: &[Entry]) -> String {
    entries.iter().map(|entry| format!("$ {}\n{}", entry.command, entry.text)).collect::<Vec<_>>().join("\n")
}

/// Reads a kept transcript.
pub(crate) fn read(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for part in format!("\n{text}").split("\n$ ").skip(1) {
        let (command, text) = part.split_once('\n').unwrap_or((part, ""));
        let text = text.trim_end_matches('\n');
        entries.push(Entry { command: command.to_owned(), text: format!("{text}\n") });
    }
    entries
}

/// Differences command by command: a label and the lines that differ.
pub(crate) fn compare(label: &str, theirs: &[Entry], ours: &[Entry]) -> Vec<(String, Vec<String>)> {
    let mut report = Vec::new();
    for (number, theirs) in theirs.iter().enumerate() {
        let label = format!("{label}: {:03} {}", number + 1, theirs.command);
        let differences = match ours.get(number) {
            Some(ours) if ours.text == theirs.text && ours.command == theirs.command => Vec::new(),
            Some(ours) => lines(&theirs.text, &ours.text),
            None => vec!["was not run".into()],
        };
        report.push((label, differences));
    }
    report
}

/// Lines that only one side has, without a search for the smallest edit.
fn lines(theirs: &str, ours: &str) -> Vec<String> {
    let (theirs, ours): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    let mut out: Vec<String> = Vec::new();
    out.extend(theirs.iter().filter(|line| !ours.contains(line)).map(|line| format!("- {line}")));
    out.extend(ours.iter().filter(|line| !theirs.contains(line)).map(|line| format!("+ {line}")));
    if out.is_empty() {
        out.push("the same lines in another order or number".into());
    }
    out
}
