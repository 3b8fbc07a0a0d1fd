//! `cargo xtask tidy`: what the compiler does not check. Arrows between rooms, file sizes and headers, and the
//! licences of everything that is linked.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::build;

/// Longest source file, in lines.
const LINES_MAX: usize = 800;

/// Licences that may be linked; an SPDX expression passes if one of its alternatives needs nothing else.
const LICENCES: [&str; 14] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "0BSD",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
];

/// Rooms of the product (`src/ROOM`) and the other rooms that each may name by `crate::ROOM`. Wiring (`operator`,
/// `agent`, `cli`) is imported by nobody but `main.rs` and itself.
const ARROWS: [(&str, &[&str]); 10] = [
    ("api", &["api"]),
    ("sys", &["sys"]),
    ("telemetry", &["telemetry", "api"]),
    ("k8s", &["k8s", "api"]),
    ("node", &["node", "api", "sys", "telemetry"]),
    ("datapath", &["datapath", "api", "sys", "telemetry"]),
    ("cni", &["cni", "api", "sys", "telemetry"]),
    ("operator", &["operator", "api", "k8s", "telemetry", "sys"]),
    ("agent", &["agent", "api", "k8s", "telemetry", "sys", "node", "datapath", "cni"]),
    ("cli", &["cli", "api", "k8s", "telemetry", "sys", "node", "datapath", "cni", "operator", "agent"]),
];

/// Checks everything and prints every finding.
pub(crate) fn run() -> Result<ExitCode> {
    let root = build::repository()?;
    let mut findings = Vec::new();
    let mut files = Vec::new();
    for file in sources(&root)? {
        let text = std::fs::read_to_string(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        findings.extend(file_findings(&file, &text));
        files.push((root.join(file), text));
    }
    let metadata = metadata()?;
    findings.extend(licence_findings(&metadata));
    findings.extend(dependency_findings(&metadata, &files));
    for finding in &findings {
        eprintln!("{finding}");
    }
    println!("tidy: {} findings", findings.len());
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All Rust sources under version control or about to be, relative to the root.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let sh = build::shell()?;
    let listed = cmd!(sh, "git ls-files --cached --others --exclude-standard *.rs").quiet().read()?;
    Ok(listed.lines().map(PathBuf::from).filter(|file| root.join(file).is_file()).collect())
}

/// Findings within one file.
fn file_findings(file: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push(format!("{}: {lines} lines; the most is {LINES_MAX}: one concept a file", file.display()));
    }
    if !text.starts_with("//!") {
        findings.push(format!("{}:1: no `//!` header that says what the file owns", file.display()));
    }
    for (number, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            findings.push(format!("{}:{}: trailing white space", file.display(), number + 1));
        }
        if let Some(finding) = arrow_finding(file, line) {
            findings.push(format!("{}:{}: {finding}", file.display(), number + 1));
        }
    }
    findings
}

/// A `crate::ROOM` that the file's own room must not name.
fn arrow_finding(file: &Path, line: &str) -> Option<String> {
    let room = file.strip_prefix("src").ok()?.components().next()?.as_os_str().to_str()?;
    let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == room)?;
    let code = line.split("//").next().unwrap_or(line);
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` in a macro and `other_crate::` are no arrows of this crate.
        if code[..at].ends_with(|character: char| character.is_alphanumeric() || character == '_') {
            continue;
        }
        let named: String =
            code[at + "crate::".len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let is_room = ARROWS.iter().any(|(name, _)| *name == named);
        if is_room && !allowed.contains(&named.as_str()) {
            return Some(format!("room `{room}` must not know room `{named}`"));
        }
    }
    None
}

fn metadata() -> Result<serde_json::Value> {
    let sh = build::shell()?;
    let cargo = build::cargo();
    let text = cmd!(sh, "{cargo} metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu")
        .quiet()
        .read()?;
    serde_json::from_str(&text).context("reading the output of cargo metadata")
}

/// Dependencies of our packages that no source file of theirs names.
fn dependency_findings(metadata: &serde_json::Value, files: &[(PathBuf, String)]) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own: Vec<(PathBuf, &serde_json::Value)> = packages
        .iter()
        .filter(|package| package["source"].is_null())
        .filter_map(|package| Some((Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(), package)))
        .collect();
    // The innermost package that a file lies in.
    let owner = |file: &Path| {
        own.iter().map(|(dir, _)| dir).filter(|dir| file.starts_with(dir)).max_by_key(|d| d.as_os_str().len())
    };
    let mut findings = Vec::new();
    for (dir, package) in &own {
        let texts: Vec<&str> =
            files.iter().filter(|(file, _)| owner(file) == Some(dir)).map(|(_, text)| text.as_str()).collect();
        for dependency in package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let name = dependency["rename"].as_str().or(dependency["name"].as_str()).unwrap_or_default();
            if !texts.iter().any(|text| names(text, &name.replace('-', "_"))) {
                findings
                    .push(format!("{}: no source file names the dependency {name}", dir.join("Cargo.toml").display()));
            }
        }
    }
    findings
}

/// Whether code, not only a comment, has this identifier.
fn names(text: &str, identifier: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).any(|code| {
        code.match_indices(identifier)
            .any(|(at, _)| !code[..at].ends_with(is_part) && !code[at + identifier.len()..].starts_with(is_part))
    })
}

/// Packages whose licence is not in the list.
fn licence_findings(metadata: &serde_json::Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    packages
        .iter()
        .filter_map(|package| {
            let expression = package["license"].as_str().unwrap_or_default();
            (!licence_allowed(expression)).then(|| {
                let name = package["name"].as_str().unwrap_or("?");
                format!("{name}: licence {expression:?} is not in the list of xtask/src/tidy.rs")
            })
        })
        .collect()
}

/// An SPDX expression of the shapes that crates use: alternatives by `OR` or `/`, conjunctions by `AND`, parentheses.
fn licence_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    conjunction_parts(&expression, " AND ").iter().all(|part| {
        let part = strip_parentheses(part);
        conjunction_parts(part, " OR ").iter().any(|alternative| {
            let alternative = strip_parentheses(alternative);
            LICENCES.contains(&alternative) || (alternative.contains(" AND ") && licence_allowed(alternative))
        })
    })
}

/// Splits at `separator` outside of parentheses.
fn conjunction_parts<'a>(expression: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, character) in expression.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && at >= start && expression[at..].starts_with(separator) => {
                parts.push(expression[start..at].trim());
                start = at + separator.len();
            }
            _ => {}
        }
    }
    parts.push(expression[start..].trim());
    parts
}

fn strip_parentheses(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(text).trim()
}

#[cfg(test)]
#[path = "tidy_tests.rs"]
mod tests;
