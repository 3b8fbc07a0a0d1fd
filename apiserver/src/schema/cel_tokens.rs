//! Where the parts of an expression stand in its text. The parser does not say, so tokens are found again in the order
//! in which the tree is walked, which is that of the text.

use std::collections::BTreeMap;

/// Tokens of one expression.
pub(super) struct Tokens {
    all: Vec<(usize, String)>,
    used: BTreeMap<String, usize>,
}

const OPERATORS: [&str; 7] = ["&&", "||", "==", "!=", "<=", ">=", "?."];

impl Tokens {
    /// Cuts a text into names, numbers, strings and signs.
    pub(super) fn of(source: &str) -> Self {
        let mut all = Vec::new();
        let mut rest = source;
        while let Some(first) = rest.chars().next() {
            let at = source.len() - rest.len();
            let length = match first {
                _ if first.is_whitespace() => first.len_utf8(),
                '"' | '\'' => string_length(rest, first),
                _ if first.is_alphanumeric() || first == '_' => {
                    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
                }
                _ => {
                    OPERATORS.iter().find(|operator| rest.starts_with(**operator)).map_or(first.len_utf8(), |o| o.len())
                }
            };
            if !first.is_whitespace() {
                all.push((at, rest[..length].to_owned()));
            }
            rest = &rest[length..];
        }
        Self { all, used: BTreeMap::new() }
    }

    /// The next occurrence of what `found` picks, or the first if there are no more.
    fn take(&mut self, key: String, found: impl Fn(&[(usize, String)], usize) -> Option<usize>) -> usize {
        let places: Vec<usize> = (0..self.all.len()).filter_map(|at| found(&self.all, at)).collect();
        let number = self.used.entry(key).or_default();
        let place = places.get(*number).or(places.first()).copied().unwrap_or(0);
        *number += 1;
        place
    }

    fn text(all: &[(usize, String)], at: usize) -> &str {
        all.get(at).map_or("", |(_, text)| text)
    }

    /// The next occurrence of a sign.
    pub(super) fn next(&mut self, sign: &str) -> usize {
        self.take(sign.to_owned(), |all, at| (Self::text(all, at) == sign).then(|| all[at].0))
    }

    /// The next use of a variable.
    pub(super) fn next_variable(&mut self, name: &str) -> usize {
        self.take(format!("variable {name}"), |all, at| {
            let field = at > 0 && Self::text(all, at - 1) == ".";
            (Self::text(all, at) == name && !field && Self::text(all, at + 1) != "(").then(|| all[at].0)
        })
    }

    /// The dot before the next selection of a field.
    pub(super) fn next_field(&mut self, name: &str) -> usize {
        self.take(format!("field {name}"), |all, at| {
            let here = Self::text(all, at) == "." && Self::text(all, at + 1) == name && Self::text(all, at + 2) != "(";
            here.then(|| all[at].0)
        })
    }

    /// The parenthesis of the next call.
    pub(super) fn next_call(&mut self, name: &str) -> usize {
        self.take(format!("call {name}"), |all, at| {
            (Self::text(all, at) == name && Self::text(all, at + 1) == "(").then(|| all[at + 1].0)
        })
    }
}

fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
