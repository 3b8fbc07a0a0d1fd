//! Amounts such as `500m`, `1Gi` and `1e3`: read exactly, printed in the one form that the real server prints.

use std::cmp::Ordering;

use serde_json::Value;

/// An amount in billionths; finer ones are rounded up.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Amount {
    nano: i128,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

const NANO: i128 = 1_000_000_000;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const MALFORMED: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const SUFFIX: &str = "unable to parse quantity's suffix";

fn parse(text: &str) -> Result<Amount, &'static str> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    if number.is_empty() || number.matches('.').count() > 1 || number == "." {
        return Err(MALFORMED);
    }
    if !suffix.chars().all(|c| c.is_ascii_digit() || "eEinumkKMGTP+-".contains(c)) {
        return Err(MALFORMED);
    }
    // Letters, a sign, digits: anything else is no suffix at all.
    let tail = suffix.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let tail = tail.strip_prefix(['+', '-']).unwrap_or(tail);
    if !tail.chars().all(|c| c.is_ascii_digit()) {
        return Err(MALFORMED);
    }
    let (factor_two, factor_ten, form) = match BINARY.iter().position(|known| *known == suffix) {
        Some(index) => (10 * (index as u32 + 1), 0, Form::Binary),
        None => match DECIMAL.iter().find(|(known, _)| *known == suffix) {
            Some((_, exponent)) => (0, *exponent, Form::Decimal),
            None => {
                let exponent = suffix.strip_prefix(['e', 'E']).ok_or(SUFFIX)?;
                (0, exponent.parse::<i32>().map_err(|_| SUFFIX)?, Form::Exponent)
            }
        },
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: String = format!("{whole}{fraction}");
    let mut value: i128 = digits.trim_start_matches('0').parse().or(if digits.trim_matches('0').is_empty() {
        Ok(0)
    } else {
        Err(MALFORMED)
    })?;
    // value * 10^(factor_ten - fraction + 9) * 2^factor_two, rounded away from zero.
    let exponent = factor_ten - fraction.len() as i32 + 9;
    value = value.checked_mul(1i128 << factor_two.min(60)).ok_or(MALFORMED)?;
    let nano = match u32::try_from(exponent) {
        Ok(up) => 10i128.checked_pow(up).and_then(|factor| value.checked_mul(factor)).unwrap_or(i128::MAX),
        Err(_) => {
            let divisor = 10i128.checked_pow(exponent.unsigned_abs()).unwrap_or(i128::MAX);
            value / divisor + i128::from(value % divisor != 0)
        }
    };
    Ok(Amount { nano: if negative { -nano } else { nano }, form })
}

fn print(amount: Amount) -> String {
    let (sign, mut value) = if amount.nano < 0 { ("-", -amount.nano) } else { ("", amount.nano) };
    let small = value < 1024 * NANO;
    if amount.form == Form::Binary && !small && value % NANO == 0 {
        value /= NANO;
        let mut suffix = 0;
        while value % 1024 == 0 && suffix < BINARY.len() {
            value /= 1024;
            suffix += 1;
        }
        let suffix = if suffix == 0 { "" } else { BINARY[suffix - 1] };
        return format!("{sign}{value}{suffix}");
    }
    if value == 0 {
        return "0".into();
    }
    let mut exponent = -9;
    while value % 1000 == 0 && exponent < 18 {
        value /= 1000;
        exponent += 3;
    }
    if amount.form == Form::Exponent {
        let suffix = if exponent == 0 { String::new() } else { format!("e{exponent}") };
        return format!("{sign}{value}{suffix}");
    }
    let suffix = DECIMAL.iter().find(|(_, known)| *known == exponent).map_or("", |(suffix, _)| suffix);
    format!("{sign}{value}{suffix}")
}

/// The form in which an amount is printed, or why it is none.
pub fn canonical(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err(MALFORMED);
    }
    parse(text).map(print)
}

/// Compares two amounts; what is none counts as nothing.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    amount(a).nano.cmp(&amount(b).nano)
}

/// The sum of two amounts, in the form of the first.
pub fn add(a: &Value, b: &Value) -> Value {
    let (a, b) = (amount(a), amount(b));
    Value::from(print(Amount { nano: a.nano.saturating_add(b.nano), form: a.form }))
}

/// An amount as a number.
pub fn number(value: &Value) -> f64 {
    amount(value).nano as f64 / NANO as f64
}

/// What is none counts as nothing.
fn amount(value: &Value) -> Amount {
    let none = Amount { nano: 0, form: Form::Decimal };
    value.as_str().and_then(|text| parse(text).ok()).unwrap_or(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_in_one_form() {
        for (text, want) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("100", "100"),
            ("1000", "1k"),
            ("0", "0"),
            ("1e3", "1e3"),
            ("1e4", "10e3"),
            ("1Ki", "1Ki"),
            ("512Ki", "512Ki"),
            ("0.1Ki", "102400m"),
            ("1500m", "1500m"),
            ("2000000", "2M"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-5", "-5"),
            ("64Mi", "64Mi"),
            ("110", "110"),
            ("1E", "1E"),
            ("01", "1"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(want), "{text}");
        }
        for text in ["", "x", "1x", ".", "1.1.1", "1 Gi"] {
            assert_eq!(canonical(text), Err(MALFORMED), "{text}");
        }
        assert_eq!(canonical("1Kii"), Err(SUFFIX));
        assert!(compare(&Value::from("1Gi"), &Value::from("1G")).is_gt());
        let sum = |a: &str, b: &str| add(&Value::from(a), &Value::from(b));
        assert_eq!((sum("500m", "1"), sum("1Gi", "512Mi")), ("1500m".into(), "1536Mi".into()));
        assert!((number(&Value::from("250m")) - 0.25).abs() < 1e-9);
    }
}
