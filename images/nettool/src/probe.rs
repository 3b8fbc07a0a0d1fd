//! `probe`: requests to targets, each with its outcome, latency and what the answer said.

use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::client::{self, Source};
use crate::outcome::Outcome;
use crate::target::{Scheme, Target};
use crate::{http, sys};

/// Arguments of `probe`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Requests to each target.
    #[arg(long, short = 'n', default_value_t = 1)]
    count: u32,
    /// Time between the starts of two requests.
    #[arg(long, default_value = "0ms", value_parser = crate::parse_duration)]
    interval: Duration,
    /// Longest time for one request, connect included.
    #[arg(long, default_value = "1s", value_parser = crate::parse_duration)]
    timeout: Duration,
    /// Requests under way at a time, for each target.
    #[arg(long, default_value_t = 1)]
    parallel: u32,
    /// Stop a target after this many requests in a row that were not answered.
    #[arg(long)]
    give_up_after: Option<u32>,
    #[command(flatten)]
    source: Source,
    /// One JSON object a line as requests end, in place of one document.
    #[arg(long)]
    lines: bool,
    /// Fail if a request was not answered: for programs that look at the exit code only.
    #[arg(long)]
    fail: bool,
    /// `http://A.B.C.D:PORT/path`, `tcp://A.B.C.D:PORT` or `udp://A.B.C.D:PORT`.
    #[arg(required = true)]
    targets: Vec<Target>,
}

/// What came of one request.
#[derive(Debug, Serialize)]
struct Attempt {
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    outcome: Outcome,
    /// From the first packet to the last byte.
    latency_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_us: Option<u64>,
    /// How long an earlier connection still held the source port, if one was asked for; no part of the latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    port_wait_us: Option<u64>,
    /// Own address and port as the socket saw them.
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// What the workload says of itself, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    whoami: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syn_retransmits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct TargetReport<'a> {
    target: &'a str,
    attempts: Vec<Attempt>,
}

/// Runs all requests, target after target.
///
/// # Errors
/// Only if the result cannot be printed: a failed request is a result.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (mut reports, mut unanswered) = (Vec::new(), 0);
    for target in &args.targets {
        let attempts = run_target(args, target);
        unanswered += attempts.iter().filter(|attempt| attempt.outcome != Outcome::Ok).count();
        if args.lines {
            for mut attempt in attempts {
                attempt.target = Some(target.text.clone());
                crate::print_json(&attempt)?;
            }
        } else {
            reports.push(TargetReport { target: &target.text, attempts });
        }
    }
    if !args.lines {
        crate::print_json(&serde_json::json!({ "targets": reports }))?;
    }
    anyhow::ensure!(!args.fail || unanswered == 0, "{unanswered} requests were not answered");
    Ok(())
}

fn run_target(args: &Args, target: &Target) -> Vec<Attempt> {
    if args.parallel <= 1 {
        return run_share(args, target, args.count);
    }
    let lanes = args.parallel.min(args.count).min(256);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..lanes)
            .map(|lane| {
                let share = args.count / lanes + u32::from(lane < args.count % lanes);
                scope.spawn(move || run_share(args, target, share))
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

fn run_share(args: &Args, target: &Target, count: u32) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let mut silent = 0;
    for number in 0..count {
        let started = Instant::now();
        let attempt = attempt(args, target, number);
        silent = if attempt.outcome == Outcome::Ok { 0 } else { silent + 1 };
        attempts.push(attempt);
        if args.give_up_after.is_some_and(|limit| silent >= limit) {
            break;
        }
        if number + 1 < count {
            std::thread::sleep(args.interval.saturating_sub(started.elapsed()));
        }
    }
    attempts
}

fn attempt(args: &Args, target: &Target, number: u32) -> Attempt {
    let mut attempt = Attempt {
        target: None,
        outcome: Outcome::Local,
        latency_us: 0,
        connect_us: None,
        port_wait_us: None,
        local: None,
        status: None,
        body: None,
        whoami: None,
        syn_retransmits: None,
        error: None,
    };
    let started = Instant::now();
    let result = match target.scheme {
        Scheme::Udp => udp(args, target, number, &mut attempt),
        Scheme::Http | Scheme::Tcp => tcp(args, target, &mut attempt),
    };
    let waited = attempt.port_wait_us.unwrap_or(0);
    attempt.latency_us = (started.elapsed().as_micros() as u64).saturating_sub(waited);
    match result {
        Ok(outcome) => attempt.outcome = outcome,
        Err(error) => {
            attempt.outcome = Outcome::of_error(&error);
            attempt.error = Some(error.to_string());
        }
    }
    attempt
}

fn tcp(args: &Args, target: &Target, attempt: &mut Attempt) -> io::Result<Outcome> {
    let client::Connected { mut stream, took, waited } = client::tcp(target.address, args.source, args.timeout)?;
    attempt.connect_us = Some(took.as_micros() as u64);
    attempt.port_wait_us = args.source.source_port.map(|_| waited.as_micros() as u64);
    attempt.local = stream.local_addr().ok();
    attempt.syn_retransmits = sys::tcp_info(&stream).ok().map(|info| info.total_retransmits);
    if target.scheme == Scheme::Tcp {
        return Ok(Outcome::Ok);
    }
    http::send_get(&mut stream, &target.address.to_string(), &target.path)?;
    let mut reader = BufReader::new(stream);
    let head = http::read_response_head(&mut reader)?;
    attempt.status = Some(head.status);
    attempt.whoami = head.header("x-nettool-whoami").and_then(|text| serde_json::from_str(text).ok());
    attempt.body = Some(http::read_body(&mut reader, &head)?);
    Ok(match head.status {
        200..=299 => Outcome::Ok,
        400..=499 => Outcome::Http4xx,
        500..=599 => Outcome::Http5xx,
        _ => Outcome::BadBody,
    })
}

fn udp(args: &Args, target: &Target, number: u32, attempt: &mut Attempt) -> io::Result<Outcome> {
    let socket = client::udp(target.address, args.source)?;
    attempt.local = socket.local_addr().ok();
    socket.set_read_timeout(Some(args.timeout))?;
    let payload = format!("probe {number} of {}", std::process::id());
    socket.send(payload.as_bytes())?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    let answer: Value = serde_json::from_slice(&buffer[..length])?;
    let right = answer.get("payload").and_then(Value::as_str) == Some(payload.as_str());
    attempt.whoami = Some(answer);
    Ok(if right { Outcome::Ok } else { Outcome::BadBody })
}
