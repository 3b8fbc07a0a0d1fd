//! Times as Go reads and prints them.

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{Engine, alphabet};
use jiff::Timestamp;

/// What is wrong with a time, in the words of Go's parser; `micro` times must have six digits after the point.
pub fn time_error(text: &str, micro: bool) -> Option<String> {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let wrong = |rest: &str, want: &str| {
        Some(format!("parsing time {} as {layout:?}: cannot parse {} as {want:?}", quoted(text), quoted(rest)))
    };
    let mut rest = text;
    for (element, width) in [
        ("2006", 4),
        ("-", 1),
        ("01", 2),
        ("-", 1),
        ("02", 2),
        ("T", 1),
        ("15", 2),
        (":", 1),
        ("04", 2),
        (":", 1),
        ("05", 2),
    ] {
        let fits = match width {
            1 => rest.starts_with(element),
            width => rest.len() >= width && rest.bytes().take(width).all(|byte| byte.is_ascii_digit()),
        };
        if !fits {
            return wrong(rest, element);
        }
        rest = &rest[width..];
    }
    let digits = rest.strip_prefix('.').map_or(0, |after| after.bytes().take_while(u8::is_ascii_digit).count());
    if micro {
        if digits < 6 {
            return wrong(rest, ".000000");
        }
        rest = &rest[7..];
    } else if digits > 0 {
        rest = &rest[digits + 1..];
    }
    let zone = rest == "Z"
        || (rest.len() == 6
            && rest.starts_with(['+', '-'])
            && rest.as_bytes()[3] == b':'
            && rest[1..3].parse::<u8>().is_ok()
            && rest[4..].parse::<u8>().is_ok());
    if !zone {
        return match rest.strip_prefix('Z') {
            Some(extra) => Some(format!("parsing time {}: extra text: {}", quoted(text), quoted(extra))),
            None => wrong(rest, "Z07:00"),
        };
    }
    if text.parse::<Timestamp>().is_ok() {
        return None;
    }
    let part = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap_or(0);
    let what = if !(1..=12).contains(&part(5..7)) {
        "month"
    } else if part(11..13) > 23 {
        "hour"
    } else if part(14..16) > 59 {
        "minute"
    } else if part(17..19) > 59 {
        "second"
    } else {
        "day"
    };
    Some(format!("parsing time {text:?}: {what} out of range"))
}

/// A text as errors about times show it: bytes beyond ASCII, and control characters, by their numbers.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

/// The time in the form in which it is kept: whole seconds, or six digits.
pub fn printed(text: &str, micro: bool) -> Option<String> {
    let time: Timestamp = text.parse().ok()?;
    Some(match micro {
        true => time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        false => crate::clock::seconds(time),
    })
}

/// Bytes in base64 as they are printed: without line breaks, and with nothing in the bits that are left over.
pub fn bytes_printed(text: &str) -> Option<String> {
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let one_line: String = text.chars().filter(|char| !matches!(char, '\n' | '\r')).collect();
    let bytes = GeneralPurpose::new(&alphabet::STANDARD, config).decode(one_line).ok()?;
    Some(STANDARD.encode(bytes))
}

/// What is wrong with bytes in base64, in the words of Go's decoder.
pub fn base64_error(text: &str) -> Option<String> {
    let at = |position: usize| Some(format!("illegal base64 data at input byte {position}"));
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let bytes: Vec<(usize, u8)> =
        text.bytes().enumerate().filter(|(_, byte)| *byte != b'\n' && *byte != b'\r').collect();
    let mut quantum = 0;
    let mut index = 0;
    while index < bytes.len() {
        let (position, byte) = bytes[index];
        if byte == b'=' {
            match quantum {
                0 | 1 => return at(position),
                2 => match bytes.get(index + 1) {
                    None => return at(text.len()),
                    Some((next, byte)) if *byte != b'=' => return at(*next),
                    Some(_) => index += 1,
                },
                _ => {}
            }
            return bytes.get(index + 1).and_then(|(next, _)| at(*next));
        }
        if !known(byte) {
            return at(position);
        }
        quantum = (quantum + 1) % 4;
        index += 1;
    }
    if quantum == 0 { None } else { at(text.len() - quantum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_about_times() {
        let micro = time_error("2024-01-01T00:00:05Z", true).unwrap();
        assert!(
            micro.ends_with("as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\""),
            "{micro}"
        );
        assert_eq!(time_error("2024-01-01T00:00:05.123456Z", true), None);
        assert_eq!(time_error("2024-01-01T00:00:05.1+01:00", false), None);
        let word = time_error("soon", false).unwrap();
        assert!(word.ends_with("cannot parse \"soon\" as \"2006\""), "{word}");
        assert_eq!(
            time_error("2024-13-01T00:00:00Z", false).unwrap(),
            "parsing time \"2024-13-01T00:00:00Z\": month out of range"
        );
        assert_eq!(printed("2024-01-01T01:00:00.5+01:00", false).unwrap(), "2024-01-01T00:00:00Z");
    }

    #[test]
    fn complaints_about_bytes() {
        for (text, want) in
            [("%%%", Some(0)), ("eA", Some(0)), ("eA=", Some(3)), ("eA==", None), ("", None), ("eA==x", Some(4))]
        {
            let want = want.map(|at: usize| format!("illegal base64 data at input byte {at}"));
            assert_eq!(base64_error(text), want, "{text}");
        }
    }
}
