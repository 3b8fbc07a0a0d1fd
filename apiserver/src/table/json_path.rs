//! JSON paths as definitions use them: fields, indices, slices, filters, and what lies at any depth.

use serde_json::Value;

use super::cells::text;

/// The first hit of a path.
pub(crate) fn first<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    hits(object, path)?.into_iter().next()
}

/// Everything that a path hits, in order; nothing for a path that cannot be read.
fn hits<'a>(object: &'a Value, path: &str) -> Option<Vec<&'a Value>> {
    let mut at = vec![object];
    let mut rest = path.trim();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            let inner = &after[..end];
            at = at.into_iter().flat_map(|value| bracket(value, inner)).collect();
            rest = &after[end + 1..];
            continue;
        }
        let deep = rest.starts_with("..");
        let (name, after) = name_of(rest.trim_start_matches('.'));
        if deep {
            at = at.into_iter().flat_map(below).collect();
        }
        at = match name.as_str() {
            "" => at,
            "*" => at.into_iter().flat_map(children).collect(),
            name => at.into_iter().filter_map(|value| value.get(name)).collect(),
        };
        rest = after;
    }
    Some(at)
}

/// A name up to the next dot or bracket; a dot may be escaped within.
fn name_of(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, character)) = chars.next() {
        match character {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &text[at..]),
            other => name.push(other),
        }
    }
    (name, "")
}

/// Where the bracket ends, which may hold others and texts in quotes.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

/// The value and everything in it.
fn below(value: &Value) -> Vec<&Value> {
    std::iter::once(value).chain(children(value).into_iter().flat_map(below)).collect()
}

fn bracket<'a>(value: &'a Value, inner: &str) -> Vec<&'a Value> {
    if let Some(condition) = inner.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        return children(value).into_iter().filter(|item| holds(item, condition)).collect();
    }
    if inner.contains(['\'', '"']) {
        let names = inner.split(',').map(|name| name.trim().trim_matches(['\'', '"']));
        return names.filter_map(|name| value.get(name)).collect();
    }
    let Value::Array(list) = value else { return Vec::new() };
    if inner == "*" {
        return list.iter().collect();
    }
    if inner.contains(':') {
        return slice(list, inner);
    }
    let place =
        |text: &str| text.trim().parse::<i64>().ok().and_then(|index| usize::try_from(wrapped(index, list)).ok());
    inner.split(',').filter_map(|index| list.get(place(index)?)).collect()
}

/// An index counted from the end if it is below zero.
fn wrapped(index: i64, list: &[Value]) -> i64 {
    if index < 0 { index + list.len() as i64 } else { index }
}

fn slice<'a>(list: &'a [Value], inner: &str) -> Vec<&'a Value> {
    let mut parts = inner.split(':').map(|part| part.trim().parse::<i64>().ok());
    let mut bound = |other: i64| wrapped(parts.next().flatten().unwrap_or(other), list).clamp(0, list.len() as i64);
    let (from, to) = (bound(0), bound(list.len() as i64));
    let step = parts.next().flatten().unwrap_or(1).max(1);
    let indices = (from..to).step_by(step as usize);
    indices.filter_map(|index| list.get(index as usize)).collect()
}

/// A condition such as `@.type=="Ready"`, or the existence of what it names.
fn holds(item: &Value, condition: &str) -> bool {
    let operators = ["==", "!=", "<=", ">=", "<", ">"];
    let found = operators.iter().filter_map(|operator| condition.find(operator).map(|at| (at, *operator))).min();
    let side = |text: &str| -> Option<String> {
        match text.trim().strip_prefix('@') {
            Some(path) => first(item, path).map(self::text),
            None => Some(text.trim().trim_matches(['\'', '"']).to_owned()),
        }
    };
    let Some((at, operator)) = found else {
        return condition.trim().strip_prefix('@').is_some_and(|path| first(item, path).is_some());
    };
    // Of operators at one place the longer one is meant.
    let operator = operators.into_iter().find(|known| condition[at..].starts_with(known)).unwrap_or(operator);
    let (Some(left), Some(right)) = (side(&condition[..at]), side(&condition[at + operator.len()..])) else {
        return false;
    };
    let order = match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => left.partial_cmp(&right),
        _ => Some(left.cmp(&right)),
    };
    order.is_some_and(|order| match operator {
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        "<=" => order.is_le(),
        ">=" => order.is_ge(),
        "<" => order.is_lt(),
        _ => order.is_gt(),
    })
}

#[cfg(test)]
#[path = "json_path_tests.rs"]
mod tests;
