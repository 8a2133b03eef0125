//! What waits for one reader: a bounded queue of items with its losses marked in place.
//!
//! Owns order, bounds, the overflow policies and the merging of gaps. Knows neither what an item is nor who fills it.
//! One writer, one reader; wakers are called after the lock is released (I11), and nothing else runs under it.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::error::Disconnect;

/// What happens to an item for which a subscription has no room.
///
/// A loss is never silent: it is counted in a [`Gap`] at its place in the stream, or ends it with an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Drop the oldest undelivered item: the reader falls behind, sees a gap, and goes on with what is recent.
    #[default]
    DropOldest,
    /// Drop the item that just arrived: the reader gets what is oldest first, then a gap.
    DropNewest,
    /// Keep only the newest item, whatever the capacity: for values that replace one another.
    Latest,
    /// End the subscription with [`SubscriptionError::Overflow`](crate::SubscriptionError::Overflow), after the items
    /// that it holds.
    Fail,
    /// Stop reading the socket until there is room. Loses nothing, but **stalls every other subscription and call of this
    /// client** and the answers to the server's pings meanwhile, so that the server may close the connection.
    Block,
}

/// A place in the stream at which something may be, or is, missing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Gap {
    /// How often the operation was sent again here, on a new connection. What the server published in between was not
    /// received, and nobody knows how much that is.
    pub reconnects: u32,
    /// Items that arrived here and were dropped by the [`Overflow`] policy.
    pub dropped: u64,
    /// How long the connection was down, in total.
    pub down_for: Duration,
    /// Why the connection was lost, the last time; `None` if it was not.
    pub cause: Option<Disconnect>,
}

/// How much a mailbox may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) items: NonZeroUsize,
    /// A single item may be larger: it is taken when there is no other.
    pub(crate) bytes: NonZeroUsize,
    pub(crate) overflow: Overflow,
}

/// The queue between the driver and one reader.
#[derive(Debug)]
pub(crate) struct Mailbox<T, E> {
    limits: Limits,
    state: Mutex<State<T, E>>,
}

#[derive(Debug)]
struct State<T, E> {
    /// The first entry is here and not in the queue, which most mailboxes never need.
    first: Option<Entry<T>>,
    /// Never two gaps next to each other.
    rest: VecDeque<Entry<T>>,
    items: usize,
    bytes: usize,
    end: End<E>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
enum Entry<T> {
    Item {
        item: T,
        bytes: usize,
    },
    /// Rare and large.
    Gap(Box<Gap>),
}

#[derive(Debug)]
enum End<E> {
    /// Items may come.
    Open,
    /// They may not; the reader has yet to learn why.
    Due(Box<E>),
    /// The reader knows, or is gone.
    Over,
}

/// What the reader took out of a mailbox at once and has not read yet, so that it needs the lock only now and then.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    entries: VecDeque<Entry<T>>,
}

impl<T> Batch<T> {
    pub(crate) fn new() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<T, E> From<Entry<T>> for Read<T, E> {
    fn from(entry: Entry<T>) -> Self {
        match entry {
            Entry::Item { item, .. } => Self::Item(item),
            Entry::Gap(gap) => Self::Gap(*gap),
        }
    }
}

/// What the reader gets.
#[derive(Debug)]
pub(crate) enum Read<T, E> {
    Item(T),
    Gap(Gap),
    /// The last thing.
    End(E),
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
            end: End::Open,
            reader: None,
            writer: None,
        };
        Self { limits, state: Mutex::new(state) }
    }

    /// Adds an item of so many bytes, or applies the policy. Returns the reader that is to be woken.
    #[must_use]
    pub(crate) fn push(&self, item: T, bytes: usize) -> (Pushed, Option<Waker>) {
        let mut state = self.lock();
        if !matches!(state.end, End::Open) {
            return (Pushed::Closed, None);
        }
        let mut dropped = 0;
        match self.limits.overflow {
            Overflow::DropOldest => {
                while state.has_no_room(bytes, self.limits) {
                    state.drop_oldest();
                    dropped += 1;
                }
            }
            Overflow::Latest => {
                while state.items > 0 {
                    state.drop_oldest();
                    dropped += 1;
                }
            }
            Overflow::DropNewest if state.has_no_room(bytes, self.limits) => {
                state.push_gap(Gap { dropped: 1, ..Gap::default() });
                return (Pushed::Dropped, None);
            }
            Overflow::Fail if state.has_no_room(bytes, self.limits) => return (Pushed::Overflowed, None),
            Overflow::DropNewest | Overflow::Fail | Overflow::Block => {}
        }
        state.push_back(Entry::Item { item, bytes });
        state.items += 1;
        state.bytes += bytes;
        let full = self.limits.overflow == Overflow::Block && state.has_no_room(0, self.limits);
        (if full { Pushed::Full } else { Pushed::Kept { dropped } }, state.reader.take())
    }

    /// Marks a place. Never dropped, only merged with a mark next to it (I5).
    pub(crate) fn push_gap(&self, gap: Gap) {
        let mut state = self.lock();
        if matches!(state.end, End::Open) {
            state.push_gap(gap);
            wake(state, |state| state.reader.take());
        }
    }

    /// Nothing will follow; what is held can still be read. The first end counts (I1).
    pub(crate) fn finish(&self, end: E) {
        let mut state = self.lock();
        if matches!(state.end, End::Open) {
            state.end = End::Due(Box::new(end));
            wake(state, |state| state.reader.take());
        }
    }

    /// The reader goes: drops what is held, and everything from now on. Returns how many items those were.
    pub(crate) fn close(&self, batch: &mut Batch<T>) -> usize {
        let mut state = self.lock();
        state.end = End::Over;
        let entries = (state.first.take(), std::mem::take(&mut state.rest), std::mem::take(&mut batch.entries));
        let taken = entries.2.iter().filter(|entry| matches!(entry, Entry::Item { .. })).count();
        let items = std::mem::take(&mut state.items);
        state.bytes = 0;
        wake(state, |state| state.writer.take());
        drop(entries);
        items + taken
    }

    /// The next thing for the reader; `None` once the end was read.
    pub(crate) fn poll_read(&self, batch: &mut Batch<T>, cx: &mut Context<'_>) -> Poll<Option<Read<T, E>>> {
        if let Some(entry) = batch.entries.pop_front() {
            return Poll::Ready(Some(entry.into()));
        }
        let mut state = self.lock();
        let Some(entry) = state.first.take() else { return Self::poll_end(state, cx) };
        if let Entry::Item { bytes, .. } = entry {
            state.items -= 1;
            state.bytes -= bytes;
        }
        if !state.rest.is_empty() {
            state.fill(batch, self.limits);
            state.first = state.rest.pop_front();
        }
        if !state.has_no_room(0, self.limits) {
            wake(state, |state| state.writer.take());
        }
        Poll::Ready(Some(entry.into()))
    }

    /// Nothing is held.
    fn poll_end(mut state: MutexGuard<'_, State<T, E>>, cx: &Context<'_>) -> Poll<Option<Read<T, E>>> {
        match std::mem::replace(&mut state.end, End::Over) {
            End::Open => {
                state.end = End::Open;
                let old = replace_waker(&mut state.reader, cx);
                drop(state);
                drop(old);
                Poll::Pending
            }
            End::Due(end) => Poll::Ready(Some(Read::End(*end))),
            End::Over => Poll::Ready(None),
        }
    }

    /// For the writer under [`Overflow::Block`]: ready when there is room, or nobody to wait for.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if matches!(state.end, End::Open) && state.has_no_room(0, self.limits) {
            let old = replace_waker(&mut state.writer, cx);
            drop(state);
            drop(old);
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        // Nothing that can panic half-way runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, E> State<T, E> {
    /// Takes for the reader what it may go on with: an eighth of what may be held, so that little is held besides and what
    /// is read is not much older than it must be. What is taken is not held any more.
    fn fill(&mut self, batch: &mut Batch<T>, limits: Limits) {
        if limits.overflow == Overflow::Latest {
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

    fn has_no_room(&self, bytes: usize, limits: Limits) -> bool {
        self.items > 0 && (self.items >= limits.items.get() || self.bytes + bytes > limits.bytes.get())
    }

    fn push_back(&mut self, entry: Entry<T>) {
        match self.first {
            None => self.first = Some(entry),
            Some(_) => self.rest.push_back(entry),
        }
    }

    fn push_front(&mut self, entry: Entry<T>) {
        if let Some(second) = self.first.replace(entry) {
            self.rest.push_front(second);
        }
    }

    fn pop_front(&mut self) -> Option<Entry<T>> {
        let first = self.first.take();
        self.first = self.rest.pop_front();
        first
    }

    fn push_gap(&mut self, gap: Gap) {
        if let Some(Entry::Gap(last)) = self.rest.back_mut().or(self.first.as_mut()) {
            last.merge(gap);
        } else {
            self.push_back(Entry::Gap(Box::new(gap)));
        }
    }

    /// Drops the first item and leaves a gap in its place, merged with those on either side.
    fn drop_oldest(&mut self) {
        let mut gap = self.pop_gap().unwrap_or_default();
        if let Some(Entry::Item { bytes, .. }) = self.pop_front() {
            self.items -= 1;
            self.bytes -= bytes;
            gap.dropped += 1;
        }
        if let Some(next) = self.pop_gap() {
            gap.merge(*next);
        }
        self.push_front(Entry::Gap(gap));
    }

    fn pop_gap(&mut self) -> Option<Box<Gap>> {
        match self.pop_front()? {
            Entry::Gap(gap) => Some(gap),
            item @ Entry::Item { .. } => {
                self.push_front(item);
                None
            }
        }
    }
}

impl Gap {
    /// Extends this gap by one that follows it directly.
    fn merge(&mut self, later: Self) {
        self.reconnects += later.reconnects;
        self.dropped += later.dropped;
        self.down_for += later.down_for;
        self.cause = later.cause.or(self.cause.take());
    }
}

/// Releases the lock, then wakes (I11).
fn wake<T, E>(mut state: MutexGuard<'_, State<T, E>>, waker: impl FnOnce(&mut State<T, E>) -> Option<Waker>) {
    let waker = waker(&mut state);
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Stores the waker of `cx` unless it is there already; returns the one to drop once the lock is released.
fn replace_waker(slot: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    if slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        return None;
    }
    slot.replace(cx.waker().clone())
}

/// Entries that a reader takes at once, at most, besides the one that it reads.
const BATCH: usize = 32;

#[cfg(test)]
mod tests;
