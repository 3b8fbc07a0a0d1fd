//! How often a Job has succeeded and failed: what its status says, and what its pods add to that.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::pods::{has_failed, has_succeeded, index, is_indexed, is_tracked};
use crate::controllers::object::{list, number, text, uid};

/// The ends of a Job's pods.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// Counted for good; of an indexed Job only `indexes` are.
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Uids of pods that are seen to have ended and are still to be counted.
    pub(super) new_successes: Vec<String>,
    pub(super) new_failures: Vec<String>,
    /// Indexes that have succeeded.
    pub(super) indexes: BTreeSet<u64>,
    /// Pods that have ended and have their finalizer still.
    pub(super) ended: Vec<Arc<Value>>,
    pub(super) indexed: bool,
}

impl Tally {
    /// Adds up the status of a Job and what its pods say.
    pub(super) fn of(job: &Value, pods: &[Arc<Value>]) -> Self {
        let status = &job["status"];
        let indexed = is_indexed(job);
        let mut tally = Self {
            succeeded: number(status, "/succeeded").unsigned_abs(),
            failed: number(status, "/failed").unsigned_abs(),
            indexes: if indexed { parse(text(status, "/completedIndexes")) } else { BTreeSet::new() },
            indexed,
            ..Self::default()
        };
        let noted = |list_name: &str| -> Vec<String> {
            let uids = list(status, &format!("/uncountedTerminatedPods/{list_name}")).iter();
            uids.filter_map(|uid| uid.as_str().map(str::to_owned)).collect()
        };
        let tracked = |uid_: &str| pods.iter().any(|pod| uid(pod) == uid_ && is_tracked(pod));
        // Of those that have lost their finalizer, only the counting was left to do.
        let (waiting, done): (Vec<_>, Vec<_>) = noted("succeeded").into_iter().partition(|uid| tracked(uid));
        tally.succeeded += done.len() as u64;
        tally.new_successes = waiting;
        let (waiting, done): (Vec<_>, Vec<_>) = noted("failed").into_iter().partition(|uid| tracked(uid));
        tally.failed += done.len() as u64;
        tally.new_failures = waiting;
        for pod in pods.iter().filter(|pod| is_tracked(pod)) {
            tally.see(job, pod);
        }
        tally
    }

    fn see(&mut self, job: &Value, pod: &Arc<Value>) {
        let noted = |list: &[String]| list.iter().any(|known| known == uid(pod));
        if has_succeeded(pod) {
            match (self.indexed, index(pod)) {
                (true, Some(index)) => _ = self.indexes.insert(index),
                (true, None) => {}
                (false, _) if !noted(&self.new_successes) => self.new_successes.push(uid(pod).to_owned()),
                (false, _) => {}
            }
        } else if has_failed(job, pod) {
            if !noted(&self.new_failures) {
                self.new_failures.push(uid(pod).to_owned());
            }
        } else {
            return;
        }
        self.ended.push(Arc::clone(pod));
    }

    /// All successes.
    pub(super) fn successes(&self) -> u64 {
        match self.indexed {
            true => self.indexes.len() as u64,
            false => self.succeeded + self.new_successes.len() as u64,
        }
    }

    /// All failures.
    pub(super) fn failures(&self) -> u64 {
        self.failed + self.new_failures.len() as u64
    }

    /// `uncountedTerminatedPods` as long as pods have their finalizers.
    pub(super) fn uncounted(&self) -> Value {
        let mut uncounted = json!({});
        for (name, uids) in [("succeeded", &self.new_successes), ("failed", &self.new_failures)] {
            if !uids.is_empty() {
                uncounted[name] = json!(uids);
            }
        }
        uncounted
    }
}

/// Reads indexes, such as `0-2,5`.
pub(super) fn parse(text: &str) -> BTreeSet<u64> {
    let ranges = text.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u64>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

/// Writes indexes: neighbours as `0,1`, three and more in a row as `0-2`.
pub(super) fn print(indexes: &BTreeSet<u64>) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let parts: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        })
        .collect();
    parts.join(",")
}
