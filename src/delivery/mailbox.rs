//! What waits for one reader: a bounded queue of items with its losses marked in place.
//!
//! Owns order, bounds, the overflow policies and the merging of gaps. Knows neither what an item is
//! nor who fills it. One writer, one reader; wakers are called after the lock is released (I11),
//! and nothing else runs under it.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

mod held;

use self::held::{Entry, Stage, State};
use super::overflow::Overflow;
use crate::response::Gap;

/// How much a mailbox may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) items: NonZeroUsize,
    /// A single item may be larger: it is taken when there is no other.
    pub(crate) bytes: NonZeroUsize,
    pub(crate) overflow: Overflow,
}

impl Limits {
    /// Where nothing is held.
    pub(crate) const NONE: Self =
        Self { items: NonZeroUsize::MIN, bytes: NonZeroUsize::MIN, overflow: Overflow::DropNewest };
}

/// The queue between the driver and one reader.
#[derive(Debug)]
pub(crate) struct Mailbox<T, E> {
    limits: Limits,
    state: Mutex<State<T, E>>,
}

/// What the reader took out of a mailbox at once and has not read yet, so that it needs the lock
/// only now and then.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    entries: VecDeque<Entry<T>>,
    /// What the writer waited for has come, and it is to be told.
    pub(crate) released: bool,
}

impl<T> Batch<T> {
    pub(crate) fn new() -> Self {
        Self { entries: VecDeque::new(), released: false }
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

/// What the reader gets.
#[derive(Debug)]
pub(crate) enum Read<T, E> {
    Item(T),
    Gap(Gap),
    Stale(Duration),
    /// The last thing.
    End(E),
}

/// What a reader leaves behind that goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Closed {
    /// Items.
    pub(crate) unread: usize,
    /// There was no end before: this is one.
    pub(crate) was_open: bool,
}

/// What became of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pushed {
    /// It is kept; so many others were dropped for it.
    Kept { dropped: usize },
    /// It was dropped and counted.
    Dropped,
    /// It is kept, and the writer must pause: [`Overflow::Block`].
    Full,
    /// It was dropped, and the writer must end the subscription: [`Overflow::Fail`].
    Overflowed,
    /// It was not taken, and the writer must begin again after the one before, once the reader has
    /// caught up: [`Overflow::Rewind`].
    Rewind,
    /// Nobody reads here.
    Closed,
}

impl<T, E> Mailbox<T, E> {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            first: None,
            rest: VecDeque::new(),
            items: 0,
            bytes: 0,
            next_place: 0,
            end: None,
            stage: Stage::Open,
            awaited: false,
            established: false,
            reader: None,
        };
        Self { limits, state: Mutex::new(state) }
    }

    /// Adds an item of so many bytes, or applies the policy. Returns the reader that is to be
    /// woken.
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
                state.awaited = true;
                // It may wait without reading: `poll_established`.
                return (Pushed::Rewind, state.reader.take());
            }
            Overflow::DropNewest | Overflow::Fail | Overflow::Block | Overflow::Rewind => {}
        }
        state.push_back(Entry::Item { item, bytes });
        state.items += 1;
        state.bytes += bytes;
        let full = self.limits.overflow == Overflow::Block && state.has_no_room(0, self.limits);
        state.awaited |= full;
        (if full { Pushed::Full } else { Pushed::Kept { dropped } }, state.reader.take())
    }

    /// As [`push`](Self::push), but instead of the item at that place, if it still waits there.
    /// Returns the item's place, too.
    #[must_use]
    pub(crate) fn push_instead(
        &self,
        place: Option<u64>,
        item: T,
        bytes: usize,
    ) -> (Pushed, Option<Waker>, u64) {
        let mut state = self.lock();
        let mut made_room = 0;
        while let (Some(place), Stage::Open) = (place, state.stage) {
            let (items, all) = (state.items, state.bytes);
            let Some(held) = state.item_at(place) else { break };
            if items > 1 && all - *held.bytes + bytes > self.limits.bytes.get() {
                // It may be the one to be replaced: then the new one goes to the back, where it is
                // not the next to be dropped.
                state.drop_oldest();
                made_room += 1;
                continue;
            }
            let old_bytes = std::mem::replace(held.bytes, bytes);
            *held.item = item;
            state.bytes = all - old_bytes + bytes;
            // Before the first of all, as what replaced it has its place.
            state.push_front_gap(Gap { dropped: 1, replaced: 1, ..Gap::default() });
            return (Pushed::Kept { dropped: made_room + 1 }, state.reader.take(), place);
        }
        drop(state);
        let (mut pushed, waker) = self.push(item, bytes);
        if let Pushed::Kept { dropped } = &mut pushed {
            *dropped += made_room;
        }
        // Nobody else writes, and a reader moves no place.
        (pushed, waker, self.lock().next_place.wrapping_sub(1))
    }

    /// Marks a place. Never dropped, only merged with a mark next to it (I5).
    pub(crate) fn push_gap(&self, gap: Gap) {
        let mut state = self.lock();
        if state.stage == Stage::Open {
            state.push_gap(gap);
            wake(state);
        }
    }

    /// Marks that nothing arrived for so long.
    pub(crate) fn push_stale(&self, idle_for: Duration) {
        let mut state = self.lock();
        if state.stage == Stage::Open {
            state.push_stale(idle_for);
            wake(state);
        }
    }

    /// The server is known to have the operation.
    pub(crate) fn establish(&self) {
        let mut state = self.lock();
        state.established = true;
        wake(state);
    }

    /// Nothing will follow; what is held can still be read. The first end counts (I1): only then
    /// `settle` is called, before the reader can learn of it, and under the lock.
    pub(crate) fn finish(&self, end: E, settle: impl FnOnce()) {
        let mut state = self.lock();
        if state.stage == Stage::Open {
            state.end = Some(Box::new(end));
            state.stage = Stage::Due;
            settle();
            wake(state);
        }
    }

    /// The reader goes: drops what is held, and everything from now on.
    pub(crate) fn close(&self, batch: &mut Batch<T>) -> Closed {
        let mut state = self.lock();
        let was_open = std::mem::replace(&mut state.stage, Stage::Over) == Stage::Open;
        let end = state.end.take();
        let entries = (
            state.first.take(),
            std::mem::take(&mut state.rest),
            std::mem::take(&mut batch.entries),
        );
        let taken = entries.2.iter().filter(|entry| matches!(entry, Entry::Item { .. })).count();
        let items = std::mem::take(&mut state.items);
        state.bytes = 0;
        drop(state);
        drop((entries, end));
        Closed { unread: items + taken, was_open }
    }

    /// The next thing for the reader; `None` once the end was read.
    pub(crate) fn poll_read(
        &self,
        batch: &mut Batch<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Read<T, E>>> {
        if let Some(entry) = batch.entries.pop_front() {
            return Poll::Ready(Some(entry.into()));
        }
        let mut state = self.lock();
        let Some(entry) = state.first.take() else { return Self::poll_end(state, batch, cx) };
        if let Entry::Item { bytes, .. } = entry {
            state.items -= 1;
            state.bytes -= bytes;
        }
        if !state.rest.is_empty() {
            state.fill(batch, self.limits);
            state.first = state.rest.pop_front();
        }
        if state.awaited
            && self.limits.overflow == Overflow::Block
            && !state.has_no_room(0, self.limits)
        {
            state.awaited = false;
            batch.released = true;
        }
        Poll::Ready(Some(entry.into()))
    }

    /// Nothing is held.
    fn poll_end(
        mut state: MutexGuard<'_, State<T, E>>,
        batch: &mut Batch<T>,
        cx: &Context<'_>,
    ) -> Poll<Option<Read<T, E>>> {
        match state.stage {
            Stage::Open => {
                batch.released |= std::mem::take(&mut state.awaited);
                wait(state, cx);
                Poll::Pending
            }
            Stage::Due | Stage::Over => {
                state.stage = Stage::Over;
                Poll::Ready(state.end.take().map(|end| Read::End(*end)))
            }
        }
    }

    /// Whether the next thing to read is an item; ready as soon as there is anything.
    pub(crate) fn poll_is_item(&self, batch: &mut Batch<T>, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        match batch.entries.front().or(state.first.as_ref()) {
            Some(entry) => Poll::Ready(matches!(entry, Entry::Item { .. })),
            None if state.stage == Stage::Open => {
                batch.released |= std::mem::take(&mut state.awaited);
                wait(state, cx);
                Poll::Pending
            }
            None => Poll::Ready(false),
        }
    }

    /// Whether the writer has nothing to wait for under [`Overflow::Block`]: there is room, or
    /// nobody reads any more.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.lock();
        state.stage != Stage::Open || !state.has_no_room(0, self.limits)
    }

    /// For the reader: ready once the server is known to have the operation, or with its end, which
    /// stays to be read.
    ///
    /// A writer that waits for the reader has brought it something, and will not say more before
    /// something is read.
    pub(crate) fn poll_established(&self, cx: &Context<'_>) -> Poll<Option<E>>
    where
        E: Clone,
    {
        let state = self.lock();
        match state.stage {
            Stage::Open if state.established || state.awaited => Poll::Ready(None),
            Stage::Open | Stage::Due | Stage::Over => Self::poll_finished(state, cx),
        }
    }

    /// For a reader that reads nothing for now: ready with the end, which stays to be read. Woken
    /// by anything that comes.
    pub(crate) fn poll_over(&self, cx: &Context<'_>) -> Poll<Option<E>>
    where
        E: Clone,
    {
        Self::poll_finished(self.lock(), cx)
    }

    fn poll_finished(state: MutexGuard<'_, State<T, E>>, cx: &Context<'_>) -> Poll<Option<E>>
    where
        E: Clone,
    {
        match state.stage {
            Stage::Open => {
                wait(state, cx);
                Poll::Pending
            }
            Stage::Due | Stage::Over => Poll::Ready(state.end.as_deref().cloned()),
        }
    }

    /// Whether the socket waits for the reader, under [`Overflow::Block`].
    pub(crate) fn blocks(&self) -> bool {
        self.limits.overflow == Overflow::Block && self.lock().awaited
    }

    /// Drops what the reader holds and what waits for it, and leaves a gap. Returns how many items
    /// those were.
    pub(crate) fn discard(&self, batch: &mut Batch<T>) -> usize {
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
        batch.released |=
            self.limits.overflow == Overflow::Block && std::mem::take(&mut state.awaited);
        discarded
    }

    /// Forgets that the server is known to have the operation, to be told again.
    pub(crate) fn forget_established(&self) {
        self.lock().established = false;
    }

    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        // Nothing that can panic half-way runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Stores the reader's waker unless it is there already; drops the one before it once the lock is
/// released.
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
