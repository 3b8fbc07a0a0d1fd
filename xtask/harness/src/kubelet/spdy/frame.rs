//! Frames of SPDY/3.1: eight bytes of head, then a payload. The first bit tells control frames from data.

use anyhow::{Context, Result, bail};
use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The first two bytes of a control frame of this version.
const CONTROL: [u8; 2] = [0x80, 3];
/// Types of control frames.
const SYN_STREAM: u8 = 1;
const SYN_REPLY: u8 = 2;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const HEADERS: u8 = 8;
/// Flag of the last frame of one side.
const FIN: u8 = 1;
/// Longest payload of a control frame that is taken; headers of Kubernetes' streams are some dozen bytes.
const CONTROL_MAX: usize = 64 << 10;
/// Longest payload that the head of a frame can name.
const LENGTH_MAX: usize = (1 << 24) - 1;

/// What a client may send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A stream is opened; with `last` the client will send nothing on it.
    Open {
        id: u32,
        last: bool,
        block: Bytes,
    },
    /// More headers of a stream.
    Headers {
        block: Bytes,
    },
    Data {
        id: u32,
        last: bool,
        data: Bytes,
    },
    /// The client wants no more of a stream.
    Reset {
        id: u32,
    },
    /// To be sent back.
    Ping {
        id: u32,
    },
    /// Settings, windows, goodbye: nothing to do.
    Other,
}

/// Reads a frame; none if the client has ended the connection between two.
///
/// # Errors
/// If it ends within one, or sends what is none.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>> {
    let mut head = [0; 8];
    if from.read(&mut head[..1]).await.unwrap_or(0) == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await.context("the client left within a frame")?;
    let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
    let control = head[0] & 0x80 != 0;
    if control && (head[..2] != CONTROL || head[2] != 0) {
        bail!("no frame of SPDY/3.1: {head:02x?}");
    }
    if control && length > CONTROL_MAX {
        bail!("a control frame of {length} bytes; at most {CONTROL_MAX} are taken");
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await.context("the client left within a frame")?;
    let (payload, last) = (Bytes::from(payload), head[4] & FIN != 0);
    if !control {
        let id = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        return Ok(Some(Frame::Data { id, last, data: payload }));
    }
    let id = || -> Result<u32> {
        let bytes = payload.first_chunk().with_context(|| format!("a control frame of {length} bytes has no id"))?;
        Ok(u32::from_be_bytes(*bytes))
    };
    let block = |from: usize| -> Result<Bytes> {
        if length < from {
            bail!("a frame with headers of {length} bytes; {from} come before them");
        }
        Ok(payload.slice(from..))
    };
    Ok(Some(match head[3] {
        // The id of a stream has 31 bits; then come an associated stream, a priority and an unused byte.
        SYN_STREAM => Frame::Open { id: id()? & 0x7fff_ffff, last, block: block(10)? },
        HEADERS => Frame::Headers { block: block(4)? },
        RST_STREAM => Frame::Reset { id: id()? & 0x7fff_ffff },
        PING => Frame::Ping { id: id()? },
        _ => Frame::Other,
    }))
}

fn control(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&CONTROL[..], &[0, kind, 0], &length[..], payload].concat()
}

/// Bytes of a stream; more than a frame can hold become several.
pub(super) fn data(id: u32, last: bool, data: &[u8]) -> Vec<u8> {
    let mut frames = Vec::with_capacity(data.len() + 8);
    let mut rest = data;
    loop {
        let (now, later) = rest.split_at(rest.len().min(LENGTH_MAX));
        let [_, length @ ..] = u32::try_from(now.len()).unwrap_or(u32::MAX).to_be_bytes();
        let flags = if last && later.is_empty() { FIN } else { 0 };
        frames.extend_from_slice(&id.to_be_bytes());
        frames.push(flags);
        frames.extend_from_slice(&length);
        frames.extend_from_slice(now);
        if later.is_empty() {
            return frames;
        }
        rest = later;
    }
}

/// The answer to an opened stream, without headers; the first one of a connection is told apart.
pub(super) fn reply(id: u32, first: bool) -> Vec<u8> {
    control(SYN_REPLY, &[&id.to_be_bytes(), &super::header::none(first)[..]].concat())
}

/// The answer to a ping.
pub(super) fn ping(id: u32) -> Vec<u8> {
    control(PING, &id.to_be_bytes())
}

/// No more streams are taken: that of the highest number is named, and that all is well.
pub(super) fn go_away() -> Vec<u8> {
    control(GO_AWAY, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])
}
