//! Objects at rest: text, which takes a tenth of the memory of a tree, and can be sent as it is; and a bounded book of
//! those that were read last as trees.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

/// One version of an object, as compact JSON in the order of the real server: kind and version first.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    /// The revision that made this version; it identifies it.
    pub revision: u64,
    /// The text; `metadata.resourceVersion` in it is the revision.
    pub text: Box<str>,
}

impl Stored {
    /// Keeps an object whose `metadata.resourceVersion` is `revision`.
    pub(super) fn new(revision: u64, object: &Value) -> Self {
        Self { revision, text: crate::body::order::text(object).into_boxed_str() }
    }

    /// The object as a tree.
    pub fn parse(&self) -> Value {
        // It was printed from a tree, and a log is checked when it is read; null is what a missing object looks like.
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// Bytes of text whose trees are kept: the objects of a small cluster, and those of a large one that are in use.
const KEPT: usize = 512 << 10;

/// Trees of what was read or written last, by revision.
#[derive(Default)]
pub(super) struct Trees {
    trees: HashMap<u64, Arc<Value>>,
    order: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Trees {
    /// The tree of a stored object.
    pub(super) fn get(&mut self, stored: &Stored) -> Arc<Value> {
        if let Some(tree) = self.trees.get(&stored.revision) {
            return Arc::clone(tree);
        }
        let tree = Arc::new(stored.parse());
        self.keep(stored, Arc::clone(&tree));
        tree
    }

    /// Notes the tree of an object that has just been stored.
    pub(super) fn keep(&mut self, stored: &Stored, tree: Arc<Value>) {
        self.trees.insert(stored.revision, tree);
        self.order.push_back((stored.revision, stored.text.len()));
        self.bytes += stored.text.len();
        while self.bytes > KEPT
            && let Some((revision, length)) = self.order.pop_front()
        {
            self.trees.remove(&revision);
            self.bytes -= length;
        }
    }
}
