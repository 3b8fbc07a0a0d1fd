//! As much HTTP/1.1 as a probe needs: one GET, one answer, connection closed by the server. Bounded in every direction.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// Longest request or response head that is read, bytes.
const HEAD_MAX: u64 = 16 << 10;
/// Longest body that a probe reads, bytes.
const BODY_MAX: u64 = 64 << 10;

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Reads the lines of a head, without the empty last one.
fn read_head(reader: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut left = reader.take(HEAD_MAX);
    loop {
        let mut line = String::new();
        if left.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection ended within the head"));
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line.to_owned());
    }
}

/// Reads a request and returns method and request target.
///
/// # Errors
/// If the connection fails or what arrives is not HTTP.
pub(crate) fn read_request(stream: &TcpStream) -> io::Result<(String, String)> {
    let lines = read_head(&mut BufReader::new(stream))?;
    let mut words = lines.first().map(|line| line.split(' ')).ok_or_else(|| invalid("empty request"))?;
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(version)) if version.starts_with("HTTP/1.") => {
            Ok((method.into(), target.into()))
        }
        _ => Err(invalid("not an HTTP/1 request")),
    }
}

/// Writes an answer with a body and further header lines.
///
/// # Errors
/// If the connection fails.
pub(crate) fn respond(
    stream: &mut TcpStream,
    status: &str,
    kind: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> io::Result<()> {
    let mut text =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes)
}

/// Head of an answer.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// Status code.
    pub(crate) status: u16,
    /// Header fields, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// First value of a header field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Sends a GET.
///
/// # Errors
/// If the connection fails.
pub(crate) fn send_get(stream: &mut TcpStream, host: &str, path: &str) -> io::Result<()> {
    stream.write_all(
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: nettool\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    )
}

/// Reads the head of an answer.
///
/// # Errors
/// If the connection fails or what arrives is not HTTP.
pub(crate) fn read_response_head(reader: &mut impl BufRead) -> io::Result<Head> {
    let lines = read_head(reader)?;
    let first = lines.first().ok_or_else(|| invalid("empty answer"))?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid(format!("not an HTTP answer: {first:?}")))?;
    let headers = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Head { status, headers })
}

/// Reads the body to the length that the head announces, or to the end of the stream.
///
/// # Errors
/// If the body is cut short, too long, or not UTF-8.
pub(crate) fn read_body(reader: &mut impl BufRead, head: &Head) -> io::Result<String> {
    let announced = head
        .header("content-length")
        .map(|value| value.parse::<u64>().map_err(|_| invalid("bad Content-Length")))
        .transpose()?;
    if announced.is_some_and(|length| length > BODY_MAX) {
        return Err(invalid("body too long"));
    }
    let mut body = Vec::new();
    reader.take(announced.unwrap_or(BODY_MAX)).read_to_end(&mut body)?;
    if announced.is_some_and(|length| length != body.len() as u64) {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection ended within the body"));
    }
    // The server closes first: reading to its FIN leaves no TIME_WAIT here, so a source port can be used again at once.
    let mut rest = [0; 64];
    if reader.read(&mut rest)? != 0 {
        return Err(invalid("bytes after the body"));
    }
    String::from_utf8(body).map_err(|_| invalid("body is not UTF-8"))
}

/// Value of a query parameter.
pub(crate) fn query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}
