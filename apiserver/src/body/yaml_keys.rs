//! Keys that a YAML text has twice in one mapping, with the line of the second, as the real server warns of them.

use std::collections::BTreeSet;

/// `line 6: key "a" already set in map`, for each; only block mappings are looked at.
pub(super) fn duplicates(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<(usize, BTreeSet<&str>)> = Vec::new();
    let mut literal: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        let rest = line.trim_start();
        if rest.is_empty() || rest.starts_with('#') {
            continue;
        }
        let indent = line.len() - rest.len();
        if literal.is_some_and(|above| indent > above) {
            continue;
        }
        literal = None;
        if rest.starts_with("---") {
            open.clear();
            continue;
        }
        let (mut indent, mut rest) = (indent, rest);
        open.retain(|(at, _)| *at <= indent);
        while let Some(item) = rest.strip_prefix("- ") {
            // Each element of a list begins a mapping of its own.
            open.retain(|(at, _)| *at <= indent);
            let inner = item.trim_start();
            indent += rest.len() - inner.len();
            rest = inner;
        }
        let Some((key, value)) = key_of(rest) else { continue };
        if value.starts_with(['|', '>']) {
            literal = Some(indent);
        }
        match open.iter_mut().find(|(at, _)| *at == indent) {
            Some((_, keys)) => {
                if !keys.insert(key) {
                    found.push(format!("line {}: key \"{key}\" already set in map", number + 1));
                }
            }
            None => open.push((indent, BTreeSet::from([key]))),
        }
    }
    found
}

/// The key of a line and what follows it.
fn key_of(line: &str) -> Option<(&str, &str)> {
    if let Some(quote) = line.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        let (key, rest) = line[1..].split_once(quote)?;
        return Some((key, rest.trim_start().strip_prefix(':')?.trim_start()));
    }
    match line.split_once(": ") {
        Some((key, value)) => Some((key.trim_end(), value.trim_start())),
        None => Some((line.trim_end().strip_suffix(':')?, "")),
    }
}

#[cfg(test)]
#[path = "yaml_keys_tests.rs"]
mod tests;
