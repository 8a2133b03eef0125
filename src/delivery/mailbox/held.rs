//! What is held, in order, and what the policies do to it.

use std::{collections::VecDeque, task::Waker, time::Duration};

use super::{Batch, Gap, Limits, Overflow};

#[derive(Debug)]
pub(super) struct State<T, E> {
    /// The first entry is here and not in the queue, which most mailboxes never need.
    pub(super) first: Option<Entry<T>>,
    /// Never two gaps next to each other.
    pub(super) rest: VecDeque<Entry<T>>,
    pub(super) items: usize,
    pub(super) bytes: usize,
    /// The place that the next entry at the back gets: places rise by one, and an entry keeps its
    /// own.
    pub(super) next_place: u64,
    pub(super) end: Option<Box<E>>,
    pub(super) stage: Stage,
    /// The writer waits: under `Block` for room, under `Rewind` until nothing is held.
    pub(super) awaited: bool,
    /// The server is known to have the operation; unset by who wants to know.
    pub(super) established: bool,
    pub(super) reader: Option<Waker>,
}

#[derive(Debug)]
pub(super) enum Entry<T> {
    Item {
        item: T,
        bytes: usize,
    },
    /// Rare and large.
    Gap(Box<Gap>),
    /// Nothing had arrived for so long.
    Stale(Duration),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Items may come.
    Open,
    /// They may not; the reader has yet to learn why.
    Due,
    /// The reader knows, or is gone.
    Over,
}

impl<T, E> State<T, E> {
    /// Takes for the reader what it may go on with: an eighth of what may be held, so that little
    /// is held besides and what is read is not much older than it must be. What is taken is not
    /// held any more.
    pub(super) fn fill(&mut self, batch: &mut Batch<T>, limits: Limits) {
        // What was taken is not replaced by what is newer.
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

    /// The item at a place, with its bytes, if it is held.
    pub(super) fn item_at(&mut self, place: u64) -> Option<ItemMut<'_, T>> {
        let from_the_back = usize::try_from(self.next_place.wrapping_sub(place)).ok()?;
        let held = self.rest.len() + usize::from(self.first.is_some());
        let entry = match held.checked_sub(from_the_back)? {
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

    /// One mark between two items is enough, however often nothing arrived.
    pub(super) fn push_stale(&mut self, idle_for: Duration) {
        let marks = self.rest.iter_mut().rev().chain(&mut self.first);
        for mark in marks.take_while(|entry| !matches!(entry, Entry::Item { .. })) {
            if let Entry::Stale(known) = mark {
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

    /// Drops the first item and leaves a gap in its place, merged with those on either side.
    pub(super) fn drop_oldest(&mut self) {
        self.drop_first(0);
    }

    /// As [`drop_oldest`](Self::drop_oldest), for a newer one that takes its place.
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
                // That nothing arrived is no news before a loss.
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

/// An item where it is held.
pub(super) struct ItemMut<'a, T> {
    pub(super) item: &'a mut T,
    pub(super) bytes: &'a mut usize,
}

/// Entries that a reader takes at once, at most, besides the one that it reads.
const BATCH: usize = 32;
