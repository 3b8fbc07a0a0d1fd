//! What happened to one resource, newest last, bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use super::Key;

/// One committed write.
#[derive(Clone, Debug)]
pub struct Event {
    /// Revision of the write.
    pub revision: u64,
    /// The object that it changed.
    pub key: Key,
    /// The object before it; nothing if it was made here.
    pub before: Option<Arc<Value>>,
    /// The object after it; nothing if it was deleted here.
    pub after: Option<Arc<Value>>,
}

#[derive(Default)]
pub(super) struct History {
    events: VecDeque<Event>,
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

    pub(super) fn push(&mut self, event: Event, most: usize) {
        self.events.push_back(event);
        while self.events.len() > most.max(1) {
            if let Some(dropped) = self.events.pop_front() {
                self.floor = dropped.revision;
            }
        }
    }

    pub(super) fn forget_before(&mut self, revision: u64) {
        while self.events.front().is_some_and(|event| event.revision <= revision) {
            self.events.pop_front();
        }
        self.floor = self.floor.max(revision);
    }

    pub(super) fn after(&self, revision: u64, limit: usize) -> Vec<Event> {
        let start = self.events.partition_point(|event| event.revision <= revision);
        self.events.iter().skip(start).take(limit).cloned().collect()
    }

    /// Events after `revision`, newest first.
    pub(super) fn back_to(&self, revision: u64) -> impl Iterator<Item = &Event> {
        self.events.iter().rev().take_while(move |event| event.revision > revision)
    }
}
