//! `udp-stream`: numbered datagrams on one socket, echoed by `nettool serve`.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::client::{self, Source};
use crate::outcome::Outcome;
use crate::stop::Until;
use crate::target::{Scheme, Target};

/// How long to wait for the last echoes.
const DRAIN: Duration = Duration::from_millis(500);

/// Arguments of `udp-stream`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Time between two datagrams.
    #[arg(long, default_value = "10ms", value_parser = crate::parse_duration)]
    every: Duration,
    /// How long to go on; without it, until SIGTERM.
    #[arg(long, value_parser = crate::parse_duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    source: Source,
    /// `udp://A.B.C.D:PORT` of a `nettool serve`.
    target: Target,
}

#[derive(Default, Serialize)]
struct Report {
    sent: u64,
    received: u64,
    lost: u64,
    /// First numbers that never came back.
    first_lost: Vec<u64>,
    duplicates: u64,
    reordered: u64,
    /// Errors of the socket (ICMP errors come back as such), by class.
    errors: BTreeMap<Outcome, u64>,
    /// Answers that do not parse.
    garbled: u64,
    max_gap_us: u64,
    max_rtt_us: u64,
    elapsed_us: u64,
    answered_by: BTreeMap<String, u64>,
    /// Source ports that the server saw: more than one means that the translation changed under way.
    peer_ports: BTreeMap<u16, u64>,
}

#[derive(Default)]
struct Tracker {
    report: Report,
    sent_at: Vec<Instant>,
    seen: Vec<bool>,
    highest: Option<usize>,
    last: Option<Instant>,
}

/// Runs until told to stop, then prints one JSON document.
///
/// # Errors
/// If the socket cannot be made or the result cannot be printed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.target.scheme == Scheme::Udp, "udp-stream needs udp://");
    let until = Until::start(args.duration)?;
    let socket = client::udp(args.target.address, args.source)?;
    let started = Instant::now();
    let mut tracker = Tracker::default();
    while !until.reached() {
        let next = started + args.every * (tracker.sent_at.len() as u32 + 1);
        tracker.send(&socket);
        tracker.receive_until(&socket, next)?;
    }
    let end = Instant::now() + DRAIN;
    while Instant::now() < end && tracker.report.received < tracker.report.sent {
        tracker.receive_until(&socket, (Instant::now() + Duration::from_millis(10)).min(end))?;
    }
    let mut report = tracker.finish();
    report.elapsed_us = started.elapsed().as_micros() as u64;
    crate::print_json(&report)
}

impl Tracker {
    fn send(&mut self, socket: &UdpSocket) {
        let number = self.sent_at.len();
        self.sent_at.push(Instant::now());
        self.seen.push(false);
        self.report.sent += 1;
        if let Err(error) = socket.send(number.to_string().as_bytes()) {
            *self.report.errors.entry(Outcome::of_error(&error)).or_default() += 1;
        }
    }

    fn receive_until(&mut self, socket: &UdpSocket, end: Instant) -> anyhow::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(length) => self.take(&buffer[..length]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    return Ok(());
                }
                Err(error) => *self.report.errors.entry(Outcome::of_error(&error)).or_default() += 1,
            }
        }
    }

    fn take(&mut self, datagram: &[u8]) {
        let answer: Value = serde_json::from_slice(datagram).unwrap_or_default();
        let number = answer.get("payload").and_then(Value::as_str).and_then(|text| text.parse::<usize>().ok());
        let Some(number) = number.filter(|number| *number < self.seen.len()) else {
            self.report.garbled += 1;
            return;
        };
        if std::mem::replace(&mut self.seen[number], true) {
            self.report.duplicates += 1;
            return;
        }
        self.report.received += 1;
        if self.highest.is_some_and(|highest| number < highest) {
            self.report.reordered += 1;
        }
        self.highest = self.highest.max(Some(number));
        self.report.max_rtt_us = self.report.max_rtt_us.max(self.sent_at[number].elapsed().as_micros() as u64);
        if let Some(last) = self.last.replace(Instant::now()) {
            self.report.max_gap_us = self.report.max_gap_us.max(last.elapsed().as_micros() as u64);
        }
        if let Some(pod) = answer.get("pod").and_then(Value::as_str) {
            *self.report.answered_by.entry(pod.to_owned()).or_default() += 1;
        }
        if let Some(port) = answer.get("peer_port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()) {
            *self.report.peer_ports.entry(port).or_default() += 1;
        }
    }

    fn finish(mut self) -> Report {
        let lost: Vec<u64> =
            self.seen.iter().enumerate().filter(|(_, seen)| !**seen).map(|(number, _)| number as u64).collect();
        self.report.lost = lost.len() as u64;
        self.report.first_lost = lost.into_iter().take(10).collect();
        self.report
    }
}

#[cfg(test)]
#[path = "udp_stream_tests.rs"]
mod tests;
