//! What was measured, and how it is shown: the median of the rounds, with the least and the most.

use crate::Args;
use crate::subject::Memory;

/// One round of one server.
pub(crate) struct Round {
    /// Objects created in a second.
    pub(crate) rate: f64,
    /// Lags of events in microseconds, while everything was created.
    pub(crate) flood: Vec<u64>,
    /// The same for changes at a steady pace.
    pub(crate) paced: Vec<u64>,
    /// Seconds in which each client listed everything at once.
    pub(crate) whole: Vec<f64>,
    /// The same in pages.
    pub(crate) pages: Vec<f64>,
    /// Bytes of everything.
    pub(crate) bytes: u64,
    /// Memory before anything was created.
    pub(crate) before: Memory,
    /// Memory when everything was there.
    pub(crate) filled: Memory,
    /// The most memory that there was.
    pub(crate) peak: u64,
}

const MEGA: f64 = 1e6;

/// The value below which this part of all lies.
fn part(sorted: &[u64], part: f64) -> f64 {
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or_default() as f64
}

/// Milliseconds of the median, the 99th of a hundred, and the last.
fn lags(all: &[u64]) -> [f64; 3] {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    [part(&sorted, 0.5), part(&sorted, 0.99), part(&sorted, 1.0)].map(|micros| micros / 1e3)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// Digits as they mean something.
fn digits(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Round {
    pub(crate) fn brief(&self) -> String {
        let [median, late, last] = lags(&self.flood).map(digits);
        let memory = digits(self.filled.now as f64 / MEGA);
        format!("{:.0} objects/s, lag {median}/{late}/{last} ms, {memory} MB", self.rate)
    }
}

/// Servers side by side.
pub(crate) struct Table {
    title: String,
    names: Vec<String>,
    rows: Vec<(&'static str, Vec<String>)>,
}

impl Table {
    pub(crate) fn new(args: &Args) -> Self {
        let title = format!(
            "{} Services and {} endpoints in as many EndpointSlices; {} clients create, {} watch both; {} changes at {}/s; \
             {} rounds, median (least–most)",
            args.services, args.endpoints, args.writers, args.watchers, args.updates, args.pace, args.rounds
        );
        Self { title, names: Vec::new(), rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: &str, rounds: &[Round]) {
        self.names.push(name.to_owned());
        let mut row = |what: &'static str, of: &dyn Fn(&Round) -> f64| {
            let values: Vec<f64> = rounds.iter().map(of).collect();
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let text = format!("{} ({}–{})", digits(median(&values)), digits(least), digits(most));
            match self.rows.iter_mut().find(|(known, _)| *known == what) {
                Some((_, cells)) => cells.push(text),
                None => self.rows.push((what, vec![text])),
            }
        };
        row("objects created, 1/s", &|round| round.rate);
        row("watch lag while creating, median, ms", &|round| lags(&round.flood)[0]);
        row("watch lag while creating, 99 %, ms", &|round| lags(&round.flood)[1]);
        row("watch lag while creating, most, ms", &|round| lags(&round.flood)[2]);
        row("watch lag of changes, median, ms", &|round| lags(&round.paced)[0]);
        row("watch lag of changes, 99 %, ms", &|round| lags(&round.paced)[1]);
        row("watch lag of changes, most, ms", &|round| lags(&round.paced)[2]);
        row("list of everything by all at once, median, s", &|round| median(&round.whole));
        row("the same in pages of 500, median, s", &|round| median(&round.pages));
        row("bytes of everything, MB", &|round| round.bytes as f64 / MEGA);
        row("memory when empty, MB", &|round| round.before.now as f64 / MEGA);
        row("memory when full, MB", &|round| round.filled.now as f64 / MEGA);
        row("of that the API server alone, MB", &|round| round.filled.server as f64 / MEGA);
        row("most memory, with lists, MB", &|round| round.peak as f64 / MEGA);
    }

    /// As Markdown.
    pub(crate) fn text(&self) -> String {
        let line = |first: &str, cells: &[String]| format!("| {first} | {} |\n", cells.join(" | "));
        let mut text = format!("{}\n\n{}", self.title, line("", &self.names));
        text += &format!("|---{}|\n", "|---:".repeat(self.names.len()));
        for (what, cells) in &self.rows {
            text += &line(what, cells);
        }
        text
    }
}
