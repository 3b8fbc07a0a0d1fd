//! String formats that the real server checks; it ignores those that it does not know.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::kinds::names;

/// Whether a text has the format.
pub fn has_format(text: &str, format: &str) -> bool {
    match format.replace('-', "").as_str() {
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "datetime" => is_time(text),
        "date" => text.len() == 10 && is_time(&format!("{text}T00:00:00Z")),
        "byte" => !text.is_empty() && STANDARD.decode(text).is_ok(),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "hostname" => is_hostname(text),
        "email" => text.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !host.is_empty() && !text.contains([' ', ',']) && !host.contains('@')
        }),
        "mac" => is_mac(text),
        "uri" => {
            text.starts_with('/')
                || text.split_once(':').is_some_and(|(scheme, rest)| {
                    !rest.is_empty() && scheme.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
                })
        }
        "duration" => is_duration(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && digits.chars().all(|c| c.is_ascii_hexdigit())
        }
        "k8sshortname" => names::label(text).is_empty(),
        "k8slongname" => names::subdomain(text).is_empty(),
        _ => true,
    }
}

/// RFC 3339, where the separator may be lower case or a blank.
fn is_time(text: &str) -> bool {
    text.is_ascii() && text.len() >= 20 && text.parse::<jiff::Timestamp>().is_ok()
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let bare = text.replace('-', "");
    let sections: Vec<usize> = text.split('-').map(str::len).collect();
    let shaped = matches!(sections[..], [8, 4, 4, 4, 12] | [32]);
    let variant = |text: &str| text.chars().nth(16).is_some_and(|c| "89abAB".contains(c));
    shaped
        && bare.len() == 32
        && bare.chars().all(|c| c.is_ascii_hexdigit())
        && version.is_none_or(|version| bare.chars().nth(12) == Some(version) && (version == '3' || variant(&bare)))
}

fn is_hostname(text: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '-';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(word) && !label.starts_with('-') && !label.ends_with('-')
    };
    let (labels, last) = text.rsplit_once('.').map_or((None, text), |(labels, last)| (Some(labels), last));
    let fits = match labels {
        None => label(last),
        // What comes last is a domain of the top, which has two letters at least.
        Some(labels) => labels.split('.').all(label) && last.len() >= 2 && last.len() <= 63 && last.chars().all(word),
    };
    text.len() <= 255 && fits
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts.iter().all(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))
}

/// `1h30m`, or a number and a unit in words.
fn is_duration(text: &str) -> bool {
    let units = [
        "ns",
        "us",
        "µs",
        "μs",
        "ms",
        "s",
        "m",
        "h",
        "d",
        "w",
        "ns",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "milli",
        "millis",
        "millisecond",
        "milliseconds",
        "sec",
        "secs",
        "second",
        "seconds",
        "min",
        "mins",
        "minute",
        "minutes",
        "hr",
        "hour",
        "hours",
        "day",
        "days",
        "wk",
        "week",
        "weeks",
    ];
    let mut rest = text.trim().trim_start_matches(['-', '+']);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let after = rest[digits..].trim_start();
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').unwrap_or(after.len());
        if digits == 0 || !units.contains(&&after[..end]) {
            return false;
        }
        rest = after[end..].trim_start();
        parts += 1;
    }
    parts > 0
}

#[cfg(test)]
mod tests {
    use super::has_format;

    #[test]
    fn known_and_unknown_formats() {
        let good = [
            ("cidr", "10.0.0.0/8"),
            ("ipv4", "10.0.0.1"),
            ("ipv6", "fd00::1"),
            ("date-time", "2024-01-01T00:00:00Z"),
            ("date", "2024-02-29"),
            ("byte", "eA=="),
            ("uuid4", "11111111-1111-4111-8111-111111111111"),
            ("hostname", "a.example"),
            ("email", "a@b.c"),
            ("mac", "00:11:22:33:44:55"),
            ("duration", "1h30m"),
            ("uri", "https://a.example"),
            ("whatever", "x"),
        ];
        for (format, text) in good {
            assert!(has_format(text, format), "{format} {text}");
        }
        let bad = [
            ("cidr", "10.0.0.0"),
            ("ipv4", "fd00::1"),
            ("ipv6", "10.0.0.1"),
            ("date-time", "2024-01-01"),
            ("date", "2023-02-29"),
            ("byte", "%"),
            ("uuid4", "11111111-1111-3111-8111-111111111111"),
            ("hostname", "-a"),
            ("email", "ab"),
            ("mac", "00:11"),
            ("duration", "1x"),
            ("uri", "a"),
        ];
        for (format, text) in bad {
            assert!(!has_format(text, format), "{format} {text}");
        }
    }
}
