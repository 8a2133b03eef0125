//! The mailbox of one reader: a bounded queue of items, in which gaps mark the places of losses.
//!
//! Owns the order, the limits, the overflow policies and the merging of gaps. Must know neither
//! what an item is nor where it comes from. A mailbox has one writer and one reader. Wakers are
//! called after the lock is released (I11), and no application code runs under it.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

mod queue;

use self::queue::{Entry, Stage, State};
use super::overflow::Overflow;
use crate::response::Gap;

/// The capacity of a mailbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) items: NonZeroUsize,
    /// A larger item is accepted if no other item is in the queue.
    pub(crate) bytes: NonZeroUsize,
    pub(crate) overflow: Overflow,
}

impl Limits {
    /// The limits of a mailbox that is never used.
    pub(crate) const NONE: Self =
        Self { items: NonZeroUsize::MIN, bytes: NonZeroUsize::MIN, overflow: Overflow::DropNewest };
}

/// The queue between the driver and one reader.
#[derive(Debug)]
pub(crate) struct Mailbox<T, E> {
    limits: Limits,
    state: Mutex<State<T, E>>,
}

/// Entries that the reader has taken out of its mailbox and not read yet. Taking several at once
/// means fewer locks.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    entries: VecDeque<Entry<T>>,
    /// Whether the writer may continue. The reader must tell the driver.
    pub(crate) released: bool,
}

impl<T> Batch<T> {
    pub(crate) fn new() -> Self {
        Self { entries: VecDeque::new(), released: false }
    }
}

/// An element that the reader gets.
#[derive(Debug)]
pub(crate) enum Read<T, E> {
    Item(T),
    Gap(Gap),
    Stale(Duration),
    /// Nothing follows.
    End(E),
}

/// The result of closing a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Closed {
    /// The number of unread items.
    pub(crate) unread: usize,
    /// Whether the operation had not ended before.
    pub(crate) was_open: bool,
}

/// The result of pushing an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pushed {
    /// The item is in the queue. `dropped` is the number of other items that were dropped for it.
    Kept { dropped: usize },
    /// The item was dropped, and a gap counts it.
    Dropped,
    /// The item is in the queue, and the writer must pause: [`Overflow::Block`].
    Full,
    /// The item was dropped, and the writer must end the subscription: [`Overflow::Fail`].
    Overflowed,
    /// The item was not accepted. Once the reader has caught up, the writer must continue after the
    /// previous item: [`Overflow::Rewind`].
    Rewind,
    /// The operation has ended, or the reader is gone.
    Closed,
    /// The reader has had this item before. A mailbox never returns this, only
    /// [`Writer::push`](super::writer::Writer::push) does.
    Repeated,
}

impl<T, E> Mailbox<T, E> {
    pub(crate) fn overflow(&self) -> Overflow {
        self.limits.overflow
    }

    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            first: None,
            rest: VecDeque::new(),
            items: 0,
            bytes: 0,
            next_place: 0,
            end: None,
            stage: Stage::Open,
            writer_waits: false,
            established: false,
            reader: None,
        };
        Self { limits, state: Mutex::new(state) }
    }

    /// Adds an item of `bytes` bytes, or applies the overflow policy. Returns the waker of the
    /// reader, which the caller must wake.
    #[must_use]
    pub(crate) fn push(&self, item: T, bytes: usize) -> (Pushed, Option<Waker>) {
        let mut state = self.lock();
        if state.stage != Stage::Open {
            return (Pushed::Closed, None);
        }
        let mut dropped = 0;
        match self.limits.overflow {
            Overflow::DropOldest | Overflow::LatestBy => {
                while state.has_no_room(bytes, self.limits) {
                    state.drop_oldest();
                    dropped += 1;
                }
            }
            Overflow::Latest => {
                while state.items > 0 {
                    state.replace_oldest();
                    dropped += 1;
                }
            }
            Overflow::DropNewest if state.has_no_room(bytes, self.limits) => {
                state.push_gap(Gap { dropped: 1, ..Gap::default() });
                return (Pushed::Dropped, None);
            }
            Overflow::Fail if state.has_no_room(bytes, self.limits) => {
                return (Pushed::Overflowed, None);
            }
            Overflow::Rewind if state.has_no_room(bytes, self.limits) => {
                state.writer_waits = true;
                // The reader may wait in `poll_established` without reading.
                return (Pushed::Rewind, state.reader.take());
            }
            Overflow::DropNewest | Overflow::Fail | Overflow::Block | Overflow::Rewind => {}
        }
        state.push_back(Entry::Item { item, bytes });
        state.items += 1;
        state.bytes += bytes;
        let full = self.limits.overflow == Overflow::Block && !state.has_room(self.limits);
        state.writer_waits |= full;
        (if full { Pushed::Full } else { Pushed::Kept { dropped } }, state.reader.take())
    }

    /// Like [`push`](Self::push), but replaces the item at `old_place` if it is still in the
    /// queue. Also returns the place of the new item.
    #[must_use]
    pub(crate) fn push_instead(
        &self,
        old_place: Option<u64>,
        item: T,
        bytes: usize,
    ) -> (Pushed, Option<Waker>, u64) {
        let mut state = self.lock();
        let mut made_room = 0;
        while let (Some(place), Stage::Open) = (old_place, state.stage) {
            let (items, total_bytes) = (state.items, state.bytes);
            let Some(old) = state.item_at(place) else { break };
            if items > 1 && total_bytes - *old.bytes + bytes > self.limits.bytes.get() {
                // This may drop the item at `place` itself. Then the new item goes to the back,
                // where it is not the next to be dropped.
                state.drop_oldest();
                made_room += 1;
                continue;
            }
            let old_bytes = std::mem::replace(old.bytes, bytes);
            *old.item = item;
            state.bytes = total_bytes - old_bytes + bytes;
            // A gap precedes the items that follow the loss. The place of the lost item now holds
            // the new one, so the gap goes to the front.
            state.push_front_gap(Gap { dropped: 1, replaced: 1, ..Gap::default() });
            return (Pushed::Kept { dropped: made_room + 1 }, state.reader.take(), place);
        }
        drop(state);
        let (mut pushed, waker) = self.push(item, bytes);
        if let Pushed::Kept { dropped } = &mut pushed {
            *dropped += made_room;
        }
        // Still the place of this item: there is no other writer, and reading changes no places.
        (pushed, waker, self.lock().next_place.wrapping_sub(1))
    }

    /// Adds an item without a key under [`Overflow::LatestBy`]. It takes no other item's place.
    #[must_use]
    pub(crate) fn push_or_drop(&self, item: T, bytes: usize) -> (Pushed, Option<Waker>) {
        let mut state = self.lock();
        if state.stage == Stage::Open && state.has_no_room(bytes, self.limits) {
            state.push_gap(Gap { dropped: 1, ..Gap::default() });
            return (Pushed::Dropped, None);
        }
        drop(state);
        self.push(item, bytes)
    }

    /// Adds a gap. Gaps are never dropped, only merged with adjacent gaps (I5).
    pub(crate) fn push_gap(&self, gap: Gap) {
        let mut state = self.lock();
        if state.stage == Stage::Open {
            state.push_gap(gap);
            wake(state);
        }
    }

    /// Adds a marker that no item arrived for this long.
    pub(crate) fn push_stale(&self, idle_for: Duration) {
        let mut state = self.lock();
        if state.stage == Stage::Open {
            state.push_stale(idle_for);
            wake(state);
        }
    }

    /// Records that the server has read the operation.
    pub(crate) fn establish(&self) {
        let mut state = self.lock();
        state.established = true;
        wake(state);
    }

    /// Sets the end. Items in the queue can still be read before it. Only the first end counts
    /// (I1). For that one, `before_wake` is called under the lock, before the reader can see the
    /// end.
    pub(crate) fn finish(&self, end: E, before_wake: impl FnOnce()) {
        let mut state = self.lock();
        if state.stage == Stage::Open {
            state.end = Some(Box::new(end));
            state.stage = Stage::Finished;
            before_wake();
            wake(state);
        }
    }

    /// Called when the reader is dropped. Drops the queue and all later items.
    pub(crate) fn close(&self, batch: &mut Batch<T>) -> Closed {
        let mut state = self.lock();
        let was_open = std::mem::replace(&mut state.stage, Stage::Closed) == Stage::Open;
        let end = state.end.take();
        let queue = (state.first.take(), std::mem::take(&mut state.rest));
        let items = std::mem::take(&mut state.items);
        state.bytes = 0;
        // The queue is dropped after the lock is released, so that the writer does not wait for it.
        drop(state);
        drop((queue, end));
        let taken = std::mem::take(&mut batch.entries);
        let taken = taken.iter().filter(|entry| matches!(entry, Entry::Item { .. })).count();
        Closed { unread: items + taken, was_open }
    }

    /// Returns the next element for the reader, or `None` once the end was read.
    pub(crate) fn poll_read(
        &self,
        batch: &mut Batch<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Read<T, E>>> {
        if let Some(entry) = batch.entries.pop_front() {
            return Poll::Ready(Some(entry.into()));
        }
        let mut state = self.lock();
        let Some(entry) = state.first.take() else { return Self::poll_take_end(state, batch, cx) };
        if let Entry::Item { bytes, .. } = entry {
            state.items -= 1;
            state.bytes -= bytes;
        }
        if !state.rest.is_empty() {
            state.fill(batch, self.limits);
            state.first = state.rest.pop_front();
        }
        if state.writer_waits
            && self.limits.overflow == Overflow::Block
            && state.has_room(self.limits)
        {
            state.release_writer(batch);
        }
        Poll::Ready(Some(entry.into()))
    }

    /// Returns the end, or waits. The queue is empty.
    fn poll_take_end(
        mut state: MutexGuard<'_, State<T, E>>,
        batch: &mut Batch<T>,
        cx: &Context<'_>,
    ) -> Poll<Option<Read<T, E>>> {
        match state.stage {
            Stage::Open => {
                state.release_writer(batch);
                wait(state, cx);
                Poll::Pending
            }
            Stage::Finished | Stage::Closed => {
                state.stage = Stage::Closed;
                Poll::Ready(state.end.take().map(|end| Read::End(*end)))
            }
        }
    }

    /// Returns whether the next element is an item. Pending while the queue is empty.
    pub(crate) fn poll_is_item(&self, batch: &mut Batch<T>, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        match batch.entries.front().or(state.first.as_ref()) {
            Some(entry) => Poll::Ready(matches!(entry, Entry::Item { .. })),
            None if state.stage == Stage::Open => {
                state.release_writer(batch);
                wait(state, cx);
                Poll::Pending
            }
            None => Poll::Ready(false),
        }
    }

    /// Whether the writer may continue under [`Overflow::Block`]: there is room, or the mailbox is
    /// closed.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.lock();
        state.stage != Stage::Open || state.has_room(self.limits)
    }

    /// Ready with `None` once the server has read the operation, or with a copy of the end.
    ///
    /// A writer that waits for the reader counts as proof: it has delivered an item, and cannot
    /// report anything else before the reader reads.
    pub(crate) fn poll_established(&self, cx: &Context<'_>) -> Poll<Option<E>>
    where
        E: Clone,
    {
        let state = self.lock();
        match state.stage {
            Stage::Open if state.established || state.writer_waits => Poll::Ready(None),
            Stage::Open | Stage::Finished | Stage::Closed => Self::poll_copy_of_end(state, cx),
        }
    }

    /// Ready with a copy of the end, for a reader that does not read for now. Anything that arrives
    /// wakes it.
    pub(crate) fn poll_over(&self, cx: &Context<'_>) -> Poll<Option<E>>
    where
        E: Clone,
    {
        Self::poll_copy_of_end(self.lock(), cx)
    }

    fn poll_copy_of_end(state: MutexGuard<'_, State<T, E>>, cx: &Context<'_>) -> Poll<Option<E>>
    where
        E: Clone,
    {
        match state.stage {
            Stage::Open => {
                wait(state, cx);
                Poll::Pending
            }
            Stage::Finished | Stage::Closed => Poll::Ready(state.end.as_deref().cloned()),
        }
    }

    /// Whether this mailbox stalls the connection, under [`Overflow::Block`].
    pub(crate) fn blocks(&self) -> bool {
        self.limits.overflow == Overflow::Block && self.lock().writer_waits
    }

    /// Drops all items, in the queue and in the reader's batch. A gap takes their place, and counts
    /// what the reader has dropped itself. Returns the number of items.
    pub(crate) fn discard(&self, batch: &mut Batch<T>, dropped: u64) -> usize {
        let mut state = self.lock();
        for entry in batch.entries.drain(..).rev() {
            if let Entry::Item { bytes, .. } = entry {
                state.items += 1;
                state.bytes += bytes;
            }
            state.push_front(entry);
        }
        let discarded = state.items;
        while state.items > 0 {
            state.drop_oldest();
        }
        if dropped > 0 {
            state.push_front_gap(Gap { dropped, ..Gap::default() });
        }
        batch.released |=
            self.limits.overflow == Overflow::Block && std::mem::take(&mut state.writer_waits);
        discarded
    }

    /// Forgets that the server has read the operation, so that it must be proven again.
    pub(crate) fn forget_established(&self) {
        self.lock().established = false;
    }

    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        // Poisoning is ignored, because nothing under this lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, E> From<Entry<T>> for Read<T, E> {
    fn from(entry: Entry<T>) -> Self {
        match entry {
            Entry::Item { item, .. } => Self::Item(item),
            Entry::Gap(gap) => Self::Gap(*gap),
            Entry::Stale(idle_for) => Self::Stale(idle_for),
        }
    }
}

/// Releases the lock, then wakes the reader (I11).
fn wake<T, E>(mut state: MutexGuard<'_, State<T, E>>) {
    let waker = state.reader.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Stores the reader's waker. Drops the previous one after the lock is released, because dropping a
/// waker runs code of the runtime (I11).
fn wait<T, E>(mut state: MutexGuard<'_, State<T, E>>, cx: &Context<'_>) {
    let slot = &mut state.reader;
    if slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        return;
    }
    let old = slot.replace(cx.waker().clone());
    drop(state);
    drop(old);
}

#[cfg(test)]
mod tests;
