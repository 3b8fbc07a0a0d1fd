//! Blocks of headers: names and values with their lengths, compressed by zlib with a dictionary that both sides know. All
//! blocks of one side are one compressed stream, cut after each block.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// First part of the dictionary (draft-mbelshe-httpbis-spdy-00, 2.6.10.1): each with its length before it.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges \
    age allow authorization cache-control connection content-base content-encoding content-language content-length \
    content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
/// Its second part.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
/// What compression looks back on at most.
const WINDOW: usize = 32 << 10;
/// Longest block that is taken.
const BLOCK_MAX: usize = 64 << 10;
/// Number of the dictionary, its Adler-32.
const DICTIONARY: [u8; 4] = [0xe3, 0xc6, 0xa7, 0xc2];
/// Head of a compressed stream that uses no dictionary.
const PLAIN_HEAD: [u8; 2] = [0x78, 0x01];
/// A block without headers as our side sends it: a stored piece with their number, which is 0 in four bytes, and an empty
/// piece, at which the reader hands on what it has.
const NO_HEADERS: [u8; 14] = [0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// A block without headers; the first of our side begins its compressed stream.
pub(super) fn none(first: bool) -> Vec<u8> {
    if first { [&PLAIN_HEAD[..], &NO_HEADERS].concat() } else { NO_HEADERS.to_vec() }
}

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in WORDS.split(' ') {
        bytes.extend_from_slice(&u32::try_from(word.len()).unwrap_or_default().to_be_bytes());
        bytes.extend_from_slice(word.replace('_', " ").as_bytes());
    }
    bytes.extend_from_slice(TEXT.as_bytes());
    bytes
}

/// Reads the blocks of one side, in the order in which they come.
pub(super) struct Decoder {
    state: Box<DecompressorOxide>,
    /// The last of what was decompressed, as a ring; `at` is where it goes on.
    window: Vec<u8>,
    at: usize,
    begun: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        let mut window = dictionary();
        let at = window.len();
        window.resize(WINDOW, 0);
        Self { state: Box::default(), window, at, begun: false }
    }

    /// The headers of a block, names in lower case.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<BTreeMap<String, String>> {
        let mut block = block;
        if !self.begun {
            block = after_head(block)?;
            self.begun = true;
        }
        let mut plain = Vec::new();
        loop {
            let (status, read, written) =
                decompress(&mut self.state, block, &mut self.window, self.at, TINFL_FLAG_HAS_MORE_INPUT);
            plain.extend_from_slice(&self.window[self.at..self.at + written]);
            self.at = (self.at + written) % WINDOW;
            block = &block[read..];
            if plain.len() > BLOCK_MAX {
                bail!("a block of headers that is longer than {BLOCK_MAX} bytes");
            }
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput if block.is_empty() => return parse(&plain),
                other => bail!("a block of headers that cannot be decompressed: {other:?}"),
            }
        }
    }
}

/// What follows the head of a compressed stream (RFC 1950, 2.2).
fn after_head(block: &[u8]) -> Result<&[u8]> {
    let [method, flags, rest @ ..] = block else { bail!("headers of {} bytes", block.len()) };
    if method & 0x0f != 8 || u16::from_be_bytes([*method, *flags]) % 31 != 0 {
        bail!("headers that are not compressed by zlib: {method:02x} {flags:02x}");
    }
    if flags & 0x20 == 0 {
        return Ok(rest);
    }
    rest.strip_prefix(&DICTIONARY[..]).context("headers that are compressed with another dictionary")
}

fn parse(block: &[u8]) -> Result<BTreeMap<String, String>> {
    let (count, mut rest) = block.split_first_chunk::<4>().context("a block of headers that is cut off")?;
    let mut headers = BTreeMap::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let name = text(&mut rest)?;
        let value = text(&mut rest)?;
        headers.insert(name.to_ascii_lowercase(), value);
    }
    Ok(headers)
}

/// A text with its length before it.
fn text(rest: &mut &[u8]) -> Result<String> {
    let cut_off = "a block of headers that is cut off";
    let (length, after) = rest.split_first_chunk::<4>().context(cut_off)?;
    let length = usize::try_from(u32::from_be_bytes(*length))?;
    let (text, after) = after.split_at_checked(length).context(cut_off)?;
    *rest = after;
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
