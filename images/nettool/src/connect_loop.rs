//! `connect-loop`: a new connection and request every so often. What it measures is what a user would notice: errors, the
//! slowest connect, and SYNs that had to be sent twice (a lost packet that no error shows).

use std::collections::BTreeMap;
use std::io::BufReader;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::client::{self, Source};
use crate::outcome::Outcome;
use crate::stop::Until;
use crate::target::{Scheme, Target};
use crate::{http, sys};

/// Arguments of `connect-loop`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Time between the starts of two connections.
    #[arg(long, default_value = "20ms", value_parser = crate::parse_duration)]
    every: Duration,
    /// How long to go on; without it, until SIGTERM.
    #[arg(long, value_parser = crate::parse_duration)]
    duration: Option<Duration>,
    /// Longest time for one connection and its request.
    #[arg(long, default_value = "5s", value_parser = crate::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    source: Source,
    /// `http://…` (a request on each connection) or `tcp://…`.
    target: Target,
}

#[derive(Default, Serialize)]
struct Report {
    attempts: u64,
    ok: u64,
    errors: u64,
    outcomes: BTreeMap<Outcome, u64>,
    /// First errors, with the time since the start.
    first_errors: Vec<String>,
    syn_retransmits: u64,
    max_connect_us: u64,
    max_latency_us: u64,
    /// Longest time between the ends of two good requests.
    max_gap_us: u64,
    elapsed_us: u64,
    /// How often each workload answered, by name.
    answered_by: BTreeMap<String, u64>,
}

/// Runs until told to stop, then prints one JSON document.
///
/// # Errors
/// Only if signals cannot be waited for or the result cannot be printed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.target.scheme != Scheme::Udp, "connect-loop needs http:// or tcp://");
    let until = Until::start(args.duration)?;
    let started = Instant::now();
    let mut report = Report::default();
    let mut last_good = started;
    while !until.reached() {
        let tick = Instant::now();
        report.attempts += 1;
        let outcome = match once(args, &mut report) {
            Ok(outcome) => outcome,
            Err(error) => {
                if report.first_errors.len() < 10 {
                    report.first_errors.push(format!("{:.3}s: {error}", started.elapsed().as_secs_f64()));
                }
                Outcome::of_error(&error)
            }
        };
        *report.outcomes.entry(outcome).or_default() += 1;
        if outcome == Outcome::Ok {
            report.ok += 1;
            report.max_gap_us = report.max_gap_us.max(last_good.elapsed().as_micros() as u64);
            last_good = Instant::now();
        } else {
            report.errors += 1;
        }
        report.max_latency_us = report.max_latency_us.max(tick.elapsed().as_micros() as u64);
        std::thread::sleep(args.every.saturating_sub(tick.elapsed()));
    }
    report.max_gap_us = report.max_gap_us.max(last_good.elapsed().as_micros() as u64);
    report.elapsed_us = started.elapsed().as_micros() as u64;
    crate::print_json(&report)
}

fn once(args: &Args, report: &mut Report) -> std::io::Result<Outcome> {
    let client::Connected { mut stream, took, .. } = client::tcp(args.target.address, args.source, args.timeout)?;
    report.max_connect_us = report.max_connect_us.max(took.as_micros() as u64);
    report.syn_retransmits += u64::from(sys::tcp_info(&stream)?.total_retransmits);
    if args.target.scheme == Scheme::Tcp {
        return Ok(Outcome::Ok);
    }
    http::send_get(&mut stream, &args.target.address.to_string(), &args.target.path)?;
    let mut reader = BufReader::new(stream);
    let head = http::read_response_head(&mut reader)?;
    http::read_body(&mut reader, &head)?;
    if let Some(pod) = head
        .header("x-nettool-whoami")
        .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())
        .and_then(|answer| answer.get("pod").and_then(|pod| pod.as_str()).map(str::to_owned))
    {
        *report.answered_by.entry(pod).or_default() += 1;
    }
    Ok(match head.status {
        200..=299 => Outcome::Ok,
        400..=499 => Outcome::Http4xx,
        500..=599 => Outcome::Http5xx,
        _ => Outcome::BadBody,
    })
}
