//! Messages of one operation that are held, in order, until its writer takes them.

use std::{collections::VecDeque, ops::Range};

use crate::response::End;

/// Items, and perhaps the end that follows them.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    items: VecDeque<HeldItem>,
    pub(crate) end: Option<End>,
    bytes: usize,
    /// The last item that was taken out was put back.
    is_whole: bool,
}

/// An item: where its payload is in its frame.
#[derive(Debug)]
pub(crate) struct HeldItem {
    pub(crate) frame: Box<str>,
    pub(crate) payload: Range<usize>,
}

impl Backlog {
    /// Adds an item. Nothing follows the end.
    pub(crate) fn push(&mut self, frame: &str, payload: Range<usize>) {
        if self.end.is_none() {
            self.bytes += cost(frame);
            self.items.push_back(HeldItem { frame: frame.into(), payload });
        }
    }

    pub(crate) fn pop(&mut self) -> Option<HeldItem> {
        let item = self.items.pop_front()?;
        self.bytes -= cost(&item.frame);
        self.is_whole = false;
        Some(item)
    }

    /// Puts the item back that was taken out last, because it was not accepted.
    #[cfg(feature = "client")]
    pub(crate) fn put_back(&mut self, item: HeldItem) {
        self.bytes += cost(&item.frame);
        self.items.push_front(item);
        self.is_whole = true;
    }

    /// Whether it begins with the item that was not accepted, so that nothing is missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.end.is_none()
    }

    /// How many items are left.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// What it costs, in bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What an item costs: its text, its place in a queue that may be half empty, what the allocator
/// adds, and what `Overlap` remembers of it.
fn cost(frame: &str) -> usize {
    frame.len() + 160
}
