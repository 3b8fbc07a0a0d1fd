//! YAML as the real server prints it: sorted keys, lists at the level of their key, quotes only where a reader would take
//! a text for something else.

use serde_json::Value;

/// A document.
pub fn print(value: &Value) -> String {
    let mut out = String::new();
    node(value, 0, &mut out);
    out
}

fn node(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                out.push_str(&format!("{pad}{}:", scalar(name, indent)));
                below(value, indent, out);
            }
        }
        Value::Array(list) if !list.is_empty() => items(list, indent, out),
        other => out.push_str(&format!("{pad}{}\n", leaf(other, indent))),
    }
}

fn items(list: &[Value], indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    for item in list {
        match item {
            Value::Object(map) if !map.is_empty() => {
                let mut text = String::new();
                node(item, indent + 2, &mut text);
                out.push_str(&format!("{pad}- {}", text.trim_start()));
            }
            Value::Array(inner) if !inner.is_empty() => {
                let mut text = String::new();
                items(inner, indent + 2, &mut text);
                out.push_str(&format!("{pad}- {}", text.trim_start()));
            }
            other => out.push_str(&format!("{pad}- {}\n", leaf(other, indent + 2))),
        }
    }
}

fn below(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            node(value, indent + 2, out);
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            items(list, indent, out);
        }
        other => out.push_str(&format!(" {}\n", leaf(other, indent + 2))),
    }
}

fn leaf(value: &Value, indent: usize) -> String {
    match value {
        Value::String(text) => scalar(text, indent),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string(),
    }
}

fn scalar(text: &str, indent: usize) -> String {
    if text.contains('\n')
        && !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t')
        && !text.starts_with([' ', '\n'])
    {
        return block(text, indent.max(2));
    }
    if looks_like_something_else(text) {
        return quoted(text);
    }
    if is_plain(text) {
        return text.to_owned();
    }
    if text.chars().any(|c| c.is_control()) {
        return quoted(text);
    }
    format!("'{}'", text.replace('\'', "''"))
}

fn block(text: &str, indent: usize) -> String {
    let (body, chomp) = match text.strip_suffix('\n') {
        Some(body) if body.ends_with('\n') => (body, "+"),
        Some(body) => (body, ""),
        None => (text, "-"),
    };
    let pad = " ".repeat(indent);
    let lines: Vec<String> =
        body.split('\n').map(|line| if line.is_empty() { String::new() } else { format!("{pad}{line}") }).collect();
    format!("|{chomp}\n{}", lines.join("\n"))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// A reader would take it for a number, a boolean, a time or nothing.
fn looks_like_something_else(text: &str) -> bool {
    let words = [
        "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", "+.inf", "-.inf", ".nan", "<<",
        "=",
    ];
    if words.contains(&text.to_ascii_lowercase().as_str()) {
        return true;
    }
    let bare = text.replace('_', "");
    let digits = bare.trim_start_matches(['-', '+']);
    let number = digits.chars().next().is_some_and(|c| c.is_ascii_digit() || c == '.')
        && (bare.parse::<f64>().is_ok()
            || digits.strip_prefix("0x").is_some_and(|rest| i64::from_str_radix(rest, 16).is_ok())
            || digits.strip_prefix("0o").is_some_and(|rest| i64::from_str_radix(rest, 8).is_ok())
            || digits.strip_prefix("0b").is_some_and(|rest| i64::from_str_radix(rest, 2).is_ok()));
    let sixty = text.contains(':')
        && text.split(':').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    number || sixty || is_time(text)
}

fn is_time(text: &str) -> bool {
    let date: Vec<&str> = text.splitn(3, '-').collect();
    let [year, month, rest] = date[..] else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let day: String = rest.chars().take_while(char::is_ascii_digit).collect();
    year.len() == 4
        && digits(year)
        && digits(month)
        && month.len() <= 2
        && (1..=2).contains(&day.len())
        && (rest.len() == day.len() || rest[day.len()..].starts_with(['T', 't', ' ']))
}

/// Whether a text needs no quotes.
fn is_plain(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let second = text.chars().nth(1);
    let starts = "#,[]{}&*!|>'\"%@`".contains(first)
        || ("-?:".contains(first) && second.is_none_or(|c| c == ' '))
        || first == ' ';
    !starts
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.contains('\t')
        && !text.chars().any(char::is_control)
        && !text.starts_with("---")
        && !text.starts_with("...")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::print;

    #[test]
    fn as_the_real_server_prints_it() {
        let value = json!({"a": "x", "b": ["1", 2, {"c": "2024-01-01T00:00:00Z", "d": []}], "e": {}, "f": {"g": "a\nb\n"},
            "h": "yes", "i": "a: b", "j": "", "k": null, "l": [[1, 2]]});
        let want = "a: x\nb:\n- \"1\"\n- 2\n- c: \"2024-01-01T00:00:00Z\"\n  d: []\ne: {}\nf:\n  g: |\n    a\n    b\n\
                    h: \"yes\"\ni: 'a: b'\nj: \"\"\nk: null\nl:\n- - 1\n  - 2\n";
        assert_eq!(print(&value), want);
    }
}
