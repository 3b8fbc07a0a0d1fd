//! Label and field selectors, with the parser's own complaints.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::failure::FieldError;
use crate::kinds::names;

/// A list of requirements, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq)]
enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// A LabelSelector object as text, its requirements sorted by key.
pub fn text(selector: &Value) -> String {
    let mut parts: Vec<(String, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push((key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for term in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = term["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> = term["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match term["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort();
    parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

impl Requirement {
    /// The same, or what is wrong with its key and values.
    fn checked(self) -> Result<Self, String> {
        let mut errors = FieldError::each("<nil>", &self.key.as_str().into(), names::qualified(&self.key));
        if let Operator::In(values) | Operator::NotIn(values) = &self.operator {
            for (index, value) in values.iter().enumerate() {
                let field = format!("values[{index}][{}]", self.key);
                errors.extend(FieldError::each(&field, &value.as_str().into(), names::label_value(value)));
            }
        }
        let texts: Vec<String> = errors.iter().map(FieldError::text).collect();
        match &texts[..] {
            [] => Ok(self),
            [one] => Err(one.clone()),
            all => Err(format!("[{}]", all.join(", "))),
        }
    }
}

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),h,!i`.
    pub fn parse(text: &str) -> Result<Self, String> {
        Parser { tokens: tokens(text), at: 0 }.selector().map(Self)
    }

    /// Reads `matchLabels` and `matchExpressions`; an operator that is none of the known ones selects nothing.
    pub fn of(selector: &Value) -> Self {
        let labels = selector["matchLabels"].as_object().into_iter().flatten();
        let labels = labels.map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In(BTreeSet::from([value.as_str().unwrap_or_default().to_owned()])),
        });
        let expressions = selector["matchExpressions"].as_array().into_iter().flatten().map(|expression| {
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            let operator = match expression["operator"].as_str() {
                Some("In") => Operator::In(values),
                Some("NotIn") => Operator::NotIn(values),
                Some("Exists") => Operator::Exists,
                Some("DoesNotExist") => Operator::Absent,
                _ => Operator::In(BTreeSet::new()),
            };
            Requirement { key: expression["key"].as_str().unwrap_or_default().to_owned(), operator }
        });
        Self(labels.chain(expressions).collect())
    }

    /// Whether labels fulfil every requirement.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.0.iter().all(|requirement| {
            let label = labels.and_then(|labels| labels.get(&requirement.key)).and_then(Value::as_str);
            let number = || label.and_then(|label| label.parse::<i64>().ok());
            match &requirement.operator {
                Operator::In(values) => label.is_some_and(|label| values.contains(label)),
                Operator::NotIn(values) => label.is_none_or(|label| !values.contains(label)),
                Operator::Exists => label.is_some(),
                Operator::Absent => label.is_none(),
                Operator::Greater(than) => number().is_some_and(|number| number > *than),
                Operator::Less(than) => number().is_some_and(|number| number < *than),
            }
        })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let symbol =
            ["==", "!=", "=", "!", "(", ")", ",", ">", "<"].into_iter().find(|symbol| rest.starts_with(symbol));
        let length = match symbol {
            Some(symbol) => symbol.len(),
            None if first.is_whitespace() => first.len_utf8(),
            None => rest.find(|c: char| c.is_whitespace() || "=!(),><".contains(c)).unwrap_or(rest.len()),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn next(&mut self) -> String {
        let token = self.peek().to_owned();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut all = Vec::new();
        if self.tokens.is_empty() {
            return Ok(all);
        }
        if !is_word(self.peek()) && self.peek() != "!" {
            return Err(format!("found '{}', expected: !, identifier, or 'end of string'", self.peek()));
        }
        loop {
            let requirement = self.requirement().and_then(|requirement| requirement.checked());
            all.push(requirement.map_err(|error| format!("unable to parse requirement: {error}"))?);
            match self.next().as_str() {
                "" => return Ok(all),
                "," if is_word(self.peek()) || self.peek() == "!" => {}
                "," => return Err(format!("found '{}', expected: identifier after ','", self.peek())),
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.peek() == "!";
        if absent {
            self.at += 1;
        }
        let key = self.next();
        if !is_word(&key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let operator = match self.peek() {
            _ if absent => Operator::Absent,
            "" | "," => Operator::Exists,
            "=" | "==" => Operator::In(self.exact()?),
            "!=" => Operator::NotIn(self.exact()?),
            "in" => Operator::In(self.values()?),
            "notin" => Operator::NotIn(self.values()?),
            ">" => Operator::Greater(self.number()?),
            "<" => Operator::Less(self.number()?),
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        Ok(Requirement { key, operator })
    }

    /// The value after `=`; nothing is the empty value.
    fn exact(&mut self) -> Result<BTreeSet<String>, String> {
        self.at += 1;
        match self.peek() {
            "" | "," => Ok(BTreeSet::from([String::new()])),
            word if is_word(word) => Ok(BTreeSet::from([self.next()])),
            other => Err(format!("found '{other}', expected: identifier")),
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let values = self.exact()?;
        let word = values.into_iter().next().unwrap_or_default();
        let why = "for 'Gt', 'Lt' operators, the value must be an integer";
        word.parse().map_err(|_| FieldError::invalid("values[0]", &word.as_str().into(), why).text())
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        self.at += 1;
        let open = self.next();
        if open != "(" {
            return Err(format!("found '{open}' expected: '('"));
        }
        let mut values = BTreeSet::new();
        let begin = self.at + 1;
        loop {
            match self.next().as_str() {
                ")" => return Ok(values),
                "," if matches!(self.peek(), "," | ")") => {
                    values.insert(String::new());
                }
                "," => {}
                word if is_word(word) => {
                    values.insert(word.to_owned());
                }
                other => {
                    let expected = if self.at == begin { "',', ')' or identifier" } else { "',', or ')'" };
                    return Err(format!("found '{other}', expected: {expected}"));
                }
            }
        }
    }
}

fn is_word(token: &str) -> bool {
    token.chars().next().is_some_and(|first| !"=!(),><".contains(first))
}

/// A list of `path=value` and `path!=value`, all of which must hold; an absent field compares as the empty string.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector(Vec<Term>);

/// One requirement of a field selector.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// `metadata.name`.
    pub path: String,
    /// Whether the field must differ.
    pub negated: bool,
    /// The value.
    pub value: String,
}

impl FieldSelector {
    /// Parses `a=b,c!=d`; `\` escapes a comma, an equals sign or itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let found = ["!=", "==", "="]
                .iter()
                .filter_map(|op| part.find(op).map(|at| (at, *op)))
                .min_by_key(|(at, op)| (*at, op.len() == 1));
            let Some((at, operator)) = found else {
                return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
            };
            let value = unescaped(&part[at + operator.len()..])?;
            terms.push(Term { path: part[..at].to_owned(), negated: operator == "!=", value });
        }
        Ok(Self(terms))
    }

    /// The requirements.
    pub fn terms(&self) -> &[Term] {
        &self.0
    }

    /// The one value that a field may have, if the selector says so.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|term| term.path == path && !term.negated).map(|term| term.value.as_str())
    }

    /// Whether an object fulfils every requirement; `read` gives the value of a path.
    pub fn matches(&self, read: impl Fn(&str) -> String) -> bool {
        self.0.iter().all(|term| (read(&term.path) == term.value) != term.negated)
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A value without its escapes.
fn unescaped(text: &str) -> Result<String, String> {
    let mut value = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => value.push(escaped),
                Some(other) => return Err(format!("invalid field selector: invalid escape sequence: \\{other}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            ',' | '=' => {
                return Err(format!("invalid field selector: unescaped character in value: {}", u32::from(character)));
            }
            other => value.push(other),
        }
    }
    Ok(value)
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;
