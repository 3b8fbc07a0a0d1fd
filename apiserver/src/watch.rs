//! Watches: a cursor into the history of one resource, turned into a stream of events.
//!
//! A watcher is woken by the newest revision and reads from its own cursor, so it loses nothing, however slow it is;
//! if the history behind its cursor is gone, it is told 410 in the stream, which is where clients look for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::stream::unfold;
use serde_json::Value;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::body::order;
use crate::failure::{Failure, Outcome};
use crate::request::Form;
use crate::state::State;
use crate::store::{Change, Key, Stored, at_revision};
use crate::verbs::read::{asked_revision, list_options};
use crate::verbs::{Call, Selection, in_version, locked, text};
use crate::view::{Include, bookmark, render_event};

/// Events that are read from the history at once.
const BATCH: usize = 500;
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch that will end gets a last bookmark this long before.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// A watch without a time limit ends after this and up to as much again, so that clients spread.
const DEFAULT_LIMIT: Duration = Duration::from_secs(1800);

/// No watch lasts longer; far more seconds than that are no time of which one could wait for the end.
const LIMIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// One open watch.
pub struct Watch {
    state: Arc<Mutex<State>>,
    call: Arc<Call>,
    selection: Selection,
    form: Form,
    include: Include,
    /// How objects are kept, if they are shown as that.
    kept: Option<text::Form>,
    bookmarks: bool,
    cursor: u64,
    head: Receiver<u64>,
    ready: VecDeque<Bytes>,
    first: bool,
    ends: Instant,
    next_bookmark: Instant,
    closed: bool,
    ends_initial: bool,
}

impl Watch {
    /// Opens a watch; what is wrong with the request is said before the stream begins.
    pub fn open(shared: &Arc<Mutex<State>>, call: Arc<Call>, form: Form) -> Outcome<Self> {
        let (selection, _) = list_options(&call, true)?;
        let asked = asked_revision(&call.query, true)?;
        let limit = call.query.number("timeoutSeconds")?.filter(|seconds| *seconds != 0);
        let bookmarks = call.query.flag("allowWatchBookmarks");
        let initial = call.query.flag("sendInitialEvents");
        let mut state = locked(shared);
        let spread = u64::from(state.chance.below(DEFAULT_LIMIT.as_secs() as u32));
        let limit = match limit {
            Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LIMIT_MAX),
            None => DEFAULT_LIMIT + Duration::from_secs(spread),
        };
        let current = state.store.revision();
        let ahead = asked.filter(|revision| *revision > current);
        let now = Instant::now();
        let mut watch = Self {
            state: Arc::clone(shared),
            selection,
            form,
            kept: text::Form::of(&call.resource).filter(|_| form == Form::Object),
            include: Include::parse(call.query.get("includeObject")),
            bookmarks,
            cursor: current,
            head: state.store.head(),
            ready: VecDeque::new(),
            first: true,
            ends: now + limit,
            next_bookmark: now
                + match limit.saturating_sub(BOOKMARK_BEFORE_END) {
                    Duration::ZERO => BOOKMARK_EVERY,
                    before_end => BOOKMARK_EVERY.min(before_end),
                },
            closed: false,
            ends_initial: false,
            call,
        };
        if let (Some(revision), true) = (ahead, initial) {
            // Nobody can tell what is there at a revision that has not come yet.
            let failure = Failure::too_large_revision(revision, current);
            watch.push_line("ERROR", &failure.status());
            watch.closed = true;
        } else if asked.unwrap_or(0) == 0 || initial {
            watch.load_initial(&state);
        } else {
            watch.cursor = asked.unwrap_or(current);
        }
        if bookmarks && initial && ahead.is_none() {
            watch.push_bookmark(current, true, state.clock.now());
        }
        // Without a revision the end of the initial events is told by the first bookmark.
        watch.ends_initial = bookmarks && !initial && asked.is_none();
        Ok(watch)
    }

    fn load_initial(&mut self, state: &State) {
        let storage = Arc::clone(&self.call.resource.storage);
        let call = Arc::clone(&self.call);
        for (key, stored) in state.store.list_stored(&storage, call.namespace()) {
            if self.selected(state, key, stored) {
                self.push("ADDED", stored, state);
            }
        }
    }

    fn selected(&self, state: &State, key: &Key, stored: &Stored) -> bool {
        let name = &self.call.target.name;
        (name.is_empty() || key.name == *name)
            && (self.selection.is_empty() || self.selection.matches(&state.store.tree(stored)))
    }

    fn push(&mut self, kind: &str, stored: &Stored, state: &State) {
        match self.kept.as_ref().and_then(|form| form.object(stored)) {
            Some(text) => self.ready.push_back(text::event(kind, text)),
            None => self.push_tree(kind, &state.store.tree(stored), state.clock.now()),
        }
    }

    fn push_tree(&mut self, kind: &str, object: &Value, now: jiff::Timestamp) {
        let object = in_version(object, &self.call.resource);
        let view = render_event(object, self.form, self.include, &self.call.resource, now, self.first);
        self.first = false;
        self.push_line(kind, &view);
    }

    fn push_bookmark(&mut self, revision: u64, ends_initial: bool, now: jiff::Timestamp) {
        let mark = bookmark(&self.call.resource, self.form, self.include, revision, ends_initial, self.first, now);
        self.first = false;
        self.push_line("BOOKMARK", &mark);
    }

    fn push_line(&mut self, kind: &str, object: &Value) {
        let mut line = order::event(kind, object).into_bytes();
        line.push(b'\n');
        self.ready.push_back(Bytes::from(line));
    }

    /// Moves what happened since the cursor into `ready`.
    fn advance(&mut self) {
        let shared = Arc::clone(&self.state);
        let state = locked(&shared);
        let resource = Arc::clone(&self.call.resource.storage);
        match state.store.watched_after(&resource, self.cursor, BATCH) {
            Ok(events) => {
                let whole = events.len() < BATCH;
                for change in &events {
                    self.cursor = change.revision;
                    self.push_change(change, &state);
                }
                if whole {
                    // A watch from a revision that has not come yet waits for it.
                    self.cursor = self.cursor.max(state.store.revision());
                    // Its clients begin anew with what the definition says now, or learn that it is gone.
                    self.closed = !self.is_served(&state);
                }
            }
            Err(gone) => {
                self.push_line("ERROR", &Failure::expired(gone.to_string()).status());
                self.closed = true;
            }
        }
    }

    /// Whether the resource is still what it was when the watch began.
    fn is_served(&self, state: &State) -> bool {
        let own = &self.call.resource;
        let Some(custom) = &own.custom else { return true };
        let now = state.registry.find(&own.group, &own.version, &own.plural);
        now.and_then(|now| now.custom.as_ref()).is_some_and(|now| now.identity == custom.identity)
    }

    fn push_change(&mut self, change: &Change, state: &State) {
        let namespace = self.call.namespace();
        if !namespace.is_empty() && change.key.namespace != namespace {
            return;
        }
        let selected = |stored: &&Arc<Stored>| self.selected(state, &change.key, stored);
        let before = change.before.as_ref().filter(selected);
        let after = change.after.as_ref().filter(selected);
        match (before, after) {
            (None, Some(after)) => self.push("ADDED", after, state),
            (Some(_), Some(after)) => self.push("MODIFIED", after, state),
            // It is gone for this watcher: as it was, at the revision at which it went.
            (Some(before), None) => {
                let gone = at_revision(&state.store.tree(before), change.revision);
                self.push_tree("DELETED", &gone, state.clock.now());
            }
            (None, None) => {}
        }
    }

    /// The next line; nothing when the watch has ended.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some((line, self));
            }
            if self.closed || Instant::now() >= self.ends {
                return None;
            }
            self.head.mark_unchanged();
            self.advance();
            if !self.ready.is_empty() || self.closed {
                continue;
            }
            if self.bookmarks && Instant::now() >= self.next_bookmark {
                self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                let ends_initial = std::mem::take(&mut self.ends_initial);
                let now = locked(&self.state).clock.now();
                self.push_bookmark(self.cursor, ends_initial, now);
                continue;
            }
            let wake = if self.bookmarks { self.next_bookmark.min(self.ends) } else { self.ends };
            tokio::select! {
                changed = self.head.changed() => if changed.is_err() { return None },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// The lines of the stream.
    pub fn lines(self) -> impl Stream<Item = Bytes> + Send {
        unfold(self, Self::next)
    }
}
