//! The queue of a mailbox, and the operations that the overflow policies need.

use std::{collections::VecDeque, task::Waker, time::Duration};

use super::{Batch, Gap, Limits, Overflow};

#[derive(Debug)]
pub(super) struct State<T, E> {
    /// The first entry. It is stored outside of `rest`, because most mailboxes never hold more than
    /// one entry and then need no allocation.
    pub(super) first: Option<Entry<T>>,
    /// The other entries. Two gaps are never adjacent.
    pub(super) rest: VecDeque<Entry<T>>,
    pub(super) items: usize,
    pub(super) bytes: usize,
    /// The place of the next entry at the back. Places are consecutive, and an entry keeps its
    /// place.
    pub(super) next_place: u64,
    pub(super) end: Option<Box<E>>,
    pub(super) stage: Stage,
    /// Whether the writer waits: under `Block` for room, under `Rewind` until the queue is empty.
    pub(super) writer_waits: bool,
    /// Whether the server has read the operation. The reader resets this to ask again.
    pub(super) established: bool,
    pub(super) reader: Option<Waker>,
}

#[derive(Debug)]
pub(super) enum Entry<T> {
    Item {
        item: T,
        bytes: usize,
    },
    /// Boxed, because gaps are rare and large.
    Gap(Box<Gap>),
    /// No item arrived for this long.
    Stale(Duration),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Items may arrive.
    Open,
    /// The end is set, and the reader has not read it.
    Finished,
    /// The reader has read the end, or is gone.
    Closed,
}

impl<T, E> State<T, E> {
    /// Moves entries from the queue into the reader's batch. Takes at most an eighth of the
    /// capacity, because entries in the batch no longer count and policies no longer affect them.
    pub(super) fn fill(&mut self, batch: &mut Batch<T>, limits: Limits) {
        // An item in the batch could not be replaced by a newer one.
        if matches!(limits.overflow, Overflow::Latest | Overflow::LatestBy) {
            return;
        }
        let (mut count, mut room) = (0, limits.bytes.get() / 8);
        for entry in self.rest.iter().take(BATCH.min(limits.items.get() / 8)) {
            if let Entry::Item { bytes, .. } = *entry {
                if bytes > room {
                    break;
                }
                room -= bytes;
                self.items -= 1;
                self.bytes -= bytes;
            }
            count += 1;
        }
        batch.entries.extend(self.rest.drain(..count));
    }

    pub(super) fn has_no_room(&self, bytes: usize, limits: Limits) -> bool {
        self.items > 0
            && (self.items >= limits.items.get() || self.bytes + bytes > limits.bytes.get())
    }

    /// Whether there is room for another item, however small.
    pub(super) fn has_room(&self, limits: Limits) -> bool {
        !self.has_no_room(0, limits)
    }

    /// Lets the writer continue, if it waits. The reader must tell the driver.
    pub(super) fn release_writer(&mut self, batch: &mut Batch<T>) {
        batch.released |= std::mem::take(&mut self.writer_waits);
    }

    pub(super) fn push_back(&mut self, entry: Entry<T>) {
        match self.first {
            None => self.first = Some(entry),
            Some(_) => self.rest.push_back(entry),
        }
        self.next_place = self.next_place.wrapping_add(1);
    }

    pub(super) fn push_front(&mut self, entry: Entry<T>) {
        if let Some(second) = self.first.replace(entry) {
            self.rest.push_front(second);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry<T>> {
        let first = self.first.take();
        self.first = self.rest.pop_front();
        first
    }

    /// Returns the item at a place, if it is still in the queue.
    pub(super) fn item_at(&mut self, place: u64) -> Option<ItemMut<'_, T>> {
        let from_the_back = usize::try_from(self.next_place.wrapping_sub(place)).ok()?;
        let len = self.rest.len() + usize::from(self.first.is_some());
        let entry = match len.checked_sub(from_the_back)? {
            0 => self.first.as_mut(),
            index => self.rest.get_mut(index - 1),
        };
        match entry? {
            Entry::Item { item, bytes } => Some(ItemMut { item, bytes }),
            Entry::Gap(_) | Entry::Stale(_) => None,
        }
    }

    pub(super) fn push_front_gap(&mut self, gap: Gap) {
        match self.pop_gap() {
            Some(mut first) => {
                first.merge(gap);
                self.push_front(Entry::Gap(first));
            }
            None => self.push_front(Entry::Gap(Box::new(gap))),
        }
    }

    /// Adds a stale marker, or extends the one since the last item. One between two items is
    /// enough.
    pub(super) fn push_stale(&mut self, idle_for: Duration) {
        let markers = self.rest.iter_mut().rev().chain(&mut self.first);
        for marker in markers.take_while(|entry| !matches!(entry, Entry::Item { .. })) {
            if let Entry::Stale(known) = marker {
                *known = (*known).max(idle_for);
                return;
            }
        }
        self.push_back(Entry::Stale(idle_for));
    }

    pub(super) fn push_gap(&mut self, gap: Gap) {
        if let Some(Entry::Gap(last)) = self.rest.back_mut().or(self.first.as_mut()) {
            last.merge(gap);
        } else {
            self.push_back(Entry::Gap(Box::new(gap)));
        }
    }

    /// Drops the first item. A gap takes its place and is merged with adjacent gaps.
    pub(super) fn drop_oldest(&mut self) {
        self.drop_first(0);
    }

    /// Like [`drop_oldest`](Self::drop_oldest), for an item that a newer one replaces.
    pub(super) fn replace_oldest(&mut self) {
        self.drop_first(1);
    }

    fn drop_first(&mut self, replaced: u64) {
        let mut gap = self.pop_gap().unwrap_or_default();
        loop {
            match self.pop_front() {
                Some(Entry::Item { bytes, .. }) => {
                    self.items -= 1;
                    self.bytes -= bytes;
                    gap.dropped += 1;
                    gap.replaced += replaced;
                    break;
                }
                Some(Entry::Gap(next)) => gap.merge(*next),
                // A stale marker before a loss has no meaning for the reader.
                Some(Entry::Stale(_)) => {}
                None => break,
            }
        }
        if let Some(next) = self.pop_gap() {
            gap.merge(*next);
        }
        self.push_front(Entry::Gap(gap));
    }

    pub(super) fn pop_gap(&mut self) -> Option<Box<Gap>> {
        match self.pop_front()? {
            Entry::Gap(gap) => Some(gap),
            other @ (Entry::Item { .. } | Entry::Stale(_)) => {
                self.push_front(other);
                None
            }
        }
    }
}

/// A mutable reference to an item in the queue.
pub(super) struct ItemMut<'a, T> {
    pub(super) item: &'a mut T,
    pub(super) bytes: &'a mut usize,
}

/// The maximum number of entries that a reader takes at once, besides the one that it reads.
const BATCH: usize = 32;
