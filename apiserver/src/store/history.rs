//! What happened to one resource, newest last, bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use super::{Key, Retention, Stored};

/// One committed write, with its objects as trees.
#[derive(Clone, Debug)]
pub struct Event {
    /// Revision of the write.
    pub revision: u64,
    /// The object that it changed.
    pub key: Arc<Key>,
    /// The object before it; nothing if it was made here.
    pub before: Option<Arc<Value>>,
    /// The object after it; nothing if it was deleted here.
    pub after: Option<Arc<Value>>,
}

/// One committed write, with its objects as they are kept.
#[derive(Clone, Debug)]
pub struct Change {
    /// Revision of the write.
    pub revision: u64,
    /// The object that it changed.
    pub key: Arc<Key>,
    /// The object before it; nothing if it was made here.
    pub before: Option<Arc<Stored>>,
    /// The object after it; nothing if it was deleted here.
    pub after: Option<Arc<Stored>>,
}

#[derive(Default)]
pub(super) struct History {
    changes: VecDeque<Change>,
    /// Text of the objects that the changes made.
    bytes: usize,
    floor: u64,
    begin: u64,
}

impl History {
    /// Watches know nothing from before this revision.
    pub(super) fn begin(&self) -> u64 {
        self.begin
    }

    pub(super) fn set_begin(&mut self, revision: u64) {
        self.begin = revision;
    }

    /// History is complete for a cursor at this revision or later.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn push(&mut self, change: Change, most: Retention) {
        self.bytes += weight(&change);
        self.changes.push_back(change);
        while self.changes.len() > 1 && (self.changes.len() > most.events || self.bytes > most.bytes) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(dropped) = self.changes.pop_front() {
            self.bytes -= weight(&dropped);
            self.floor = self.floor.max(dropped.revision);
        }
    }

    pub(super) fn forget_before(&mut self, revision: u64) {
        while self.changes.front().is_some_and(|change| change.revision <= revision) {
            self.drop_oldest();
        }
        self.floor = self.floor.max(revision);
    }

    pub(super) fn after(&self, revision: u64, limit: usize) -> Vec<Change> {
        let start = self.changes.partition_point(|change| change.revision <= revision);
        self.changes.iter().skip(start).take(limit).cloned().collect()
    }

    /// Changes after `revision`, newest first.
    pub(super) fn back_to(&self, revision: u64) -> impl Iterator<Item = &Change> {
        self.changes.iter().rev().take_while(move |change| change.revision > revision)
    }
}

fn weight(change: &Change) -> usize {
    change.after.as_ref().map_or(0, |after| after.text.len())
}
