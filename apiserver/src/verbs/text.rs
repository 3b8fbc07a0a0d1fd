//! Objects and lists that are sent as they are kept: text to text, without a tree between.
//!
//! That holds for plain reads of built-in kinds, whose stored form is what clients are shown. Custom resources are read
//! through their definition, which may have changed since, and Events have two forms.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::read::{Page, list_metadata};
use crate::body::order;
use crate::registry::Resource;
use crate::store::Stored;

/// Bytes of a list that are handed on at once.
const PIECE: usize = 64 << 10;

/// The beginning that the stored text of a resource's objects has.
pub struct Form {
    /// `{"kind":"Service","apiVersion":"v1",`
    head: String,
}

impl Form {
    /// That of a resource; nothing if its objects are not shown as they are kept.
    pub fn of(resource: &Resource) -> Option<Self> {
        let plain = resource.custom.is_none() && resource.plural != "events";
        let head = || format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", resource.kind, resource.api_version());
        plain.then(|| Self { head: head() })
    }

    /// The object's text, if that is what a client is shown.
    pub fn object<'a>(&self, stored: &'a Stored) -> Option<&'a str> {
        stored.text.starts_with(&self.head).then_some(&*stored.text)
    }

    /// What follows type and version, which items of a list do not repeat.
    fn item<'a>(&self, stored: &'a Stored) -> Option<&'a str> {
        stored.text.strip_prefix(&self.head)
    }

    /// The body of a list, or nothing if one of its objects is not shown as it is kept.
    pub fn list(self, resource: &Resource, page: &Page) -> Option<ListText> {
        let begin = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", resource.list_kind, resource.api_version());
        let metadata = list_metadata(resource, page.revision, page.more.clone(), page.remaining);
        let metadata = order::typed(&metadata, "meta.v1.ListMeta");
        let begin = format!("{begin}\"metadata\":{metadata},\"items\":[");
        let mut length = begin.len() + END.len() + page.items.len().saturating_sub(1);
        for stored in &page.items {
            length += self.item(stored)?.len() + 1;
        }
        let items = page.items.iter().map(Arc::clone).collect();
        Some(ListText { form: self, begin, items, first: true, left: length as u64 })
    }
}

const END: &str = "]}\n";

/// The body of a list that is written while it is sent: only what is on its way takes memory.
pub struct ListText {
    form: Form,
    /// What has not been sent of the beginning.
    begin: String,
    items: VecDeque<Arc<Stored>>,
    first: bool,
    left: u64,
}

impl ListText {
    fn piece(&mut self) -> String {
        let mut piece = std::mem::take(&mut self.begin);
        piece.reserve(PIECE);
        while piece.len() < PIECE {
            let Some(stored) = self.items.pop_front() else {
                piece.push_str(END);
                break;
            };
            piece.push_str(if std::mem::take(&mut self.first) { "{" } else { ",{" });
            piece.push_str(self.form.item(&stored).unwrap_or_default());
        }
        piece
    }
}

impl http_body::Body for ListText {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = self.piece();
        self.left = self.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A line of a watch.
pub fn event(kind: &str, object: &str) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"))
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
