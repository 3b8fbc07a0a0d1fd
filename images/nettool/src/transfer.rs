//! `transfer`: one long connection whose content is known byte by byte.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::client::{self, Source};
use crate::outcome::Outcome;
use crate::stop::Until;
use crate::target::{Scheme, Target};
use crate::{content, http, sys};

/// How often the loop looks whether it has to stop while nothing arrives.
const POLL: Duration = Duration::from_millis(50);

/// Arguments of `transfer`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to go on; without it, until SIGTERM or the end of the stream.
    #[arg(long, value_parser = crate::parse_duration)]
    duration: Option<Duration>,
    /// Bytes to ask for.
    #[arg(long, default_value_t = 1 << 40)]
    bytes: u64,
    /// Bytes a second to ask for; 0 is as fast as it goes.
    #[arg(long, default_value_t = 256 << 10)]
    rate: u64,
    /// Give up after so long without a byte.
    #[arg(long, default_value = "15s", value_parser = crate::parse_duration)]
    stall: Duration,
    #[command(flatten)]
    source: Source,
    /// `http://A.B.C.D:PORT` of a `nettool serve`.
    target: Target,
}

#[derive(Serialize)]
struct Report {
    /// `ok` if the stream ended as announced or was stopped from here while it was going.
    outcome: Outcome,
    complete: bool,
    bytes: u64,
    /// Offset of the first wrong byte.
    corrupt_at: Option<u64>,
    max_gap_us: u64,
    /// Gaps of more than 200 ms (the least time for a TCP retransmission): seconds since the start, milliseconds long.
    gaps: Vec<(f64, u64)>,
    /// Retransmissions by this side.
    retransmits: u32,
    /// Retransmissions by the sender, known only when the stream is complete.
    sender_retransmits: Option<u32>,
    out_of_order: u32,
    connect_us: u64,
    elapsed_us: u64,
    whoami: Option<Value>,
    error: Option<String>,
}

/// Runs until told to stop or the stream ends, then prints one JSON document.
///
/// # Errors
/// Only if signals cannot be waited for or the result cannot be printed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.target.scheme == Scheme::Http, "transfer needs http://");
    let until = Until::start(args.duration)?;
    let mut report = Report {
        outcome: Outcome::Ok,
        complete: false,
        bytes: 0,
        corrupt_at: None,
        max_gap_us: 0,
        gaps: Vec::new(),
        retransmits: 0,
        sender_retransmits: None,
        out_of_order: 0,
        connect_us: 0,
        elapsed_us: 0,
        whoami: None,
        error: None,
    };
    let started = Instant::now();
    if let Err(error) = receive(args, &until, started, &mut report) {
        report.outcome = Outcome::of_error(&error);
        report.error = Some(error.to_string());
    }
    report.elapsed_us = started.elapsed().as_micros() as u64;
    crate::print_json(&report)
}

fn receive(args: &Args, until: &Until, started: Instant, report: &mut Report) -> std::io::Result<()> {
    let client::Connected { mut stream, took, .. } =
        client::tcp(args.target.address, args.source, Duration::from_secs(5))?;
    report.connect_us = took.as_micros() as u64;
    http::send_get(
        &mut stream,
        &args.target.address.to_string(),
        &format!("/bytes?n={}&rate={}", args.bytes, args.rate),
    )?;
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let head = http::read_response_head(&mut reader)?;
    report.whoami = head.header("x-nettool-whoami").and_then(|text| serde_json::from_str(text).ok());
    if head.status != 200 {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("HTTP status {}", head.status)));
    }
    reader.get_ref().set_read_timeout(Some(POLL))?;
    let result = verify(args, until, started, &mut reader, report);
    let info = sys::tcp_info(reader.get_ref())?;
    (report.retransmits, report.out_of_order) = (info.total_retransmits, info.out_of_order);
    result
}

fn verify(
    args: &Args,
    until: &Until,
    started: Instant,
    reader: &mut BufReader<TcpStream>,
    report: &mut Report,
) -> std::io::Result<()> {
    let (mut last, mut scratch) = (Instant::now(), Vec::new());
    while report.bytes < args.bytes {
        if until.reached() {
            return note_gap(report, started, last, args.stall);
        }
        let length = match reader.fill_buf() {
            Ok([]) => return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the stream ended early")),
            Ok(chunk) => {
                let length = chunk.len().min((args.bytes - report.bytes) as usize);
                if report.corrupt_at.is_none() {
                    report.corrupt_at = content::first_difference(report.bytes, &chunk[..length], &mut scratch);
                }
                length
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                if last.elapsed() >= args.stall {
                    return note_gap(report, started, last, args.stall);
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        reader.consume(length);
        report.bytes += length as u64;
        note_gap(report, started, last, args.stall)?;
        last = Instant::now();
    }
    reader.get_ref().set_read_timeout(Some(args.stall))?;
    let mut trailer = String::new();
    reader.take(64).read_to_string(&mut trailer)?;
    report.complete = true;
    report.sender_retransmits = trailer.trim().strip_prefix("retransmits=").and_then(|count| count.parse().ok());
    Ok(())
}

/// Records the time since the last byte; more than `stall` is an error.
fn note_gap(report: &mut Report, started: Instant, last: Instant, stall: Duration) -> std::io::Result<()> {
    let gap = last.elapsed();
    report.max_gap_us = report.max_gap_us.max(gap.as_micros() as u64);
    if gap > Duration::from_millis(200) && report.gaps.len() < 100 {
        report.gaps.push(((last - started).as_secs_f64(), gap.as_millis() as u64));
    }
    if gap >= stall {
        return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no byte for too long"));
    }
    Ok(())
}
