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
    /// Stop reading the socket until there is room. Loses nothing, but **stalls every other subscription of this
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
    /// Never two gaps next to each other.
    entries: VecDeque<Entry<T>>,
    items: usize,
    bytes: usize,
    end: End<E>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
enum Entry<T> {
    Item { item: T, bytes: usize },
    Gap(Gap),
}

#[derive(Debug)]
enum End<E> {
    /// Items may come.
    Open,
    /// They may not; the reader has yet to learn why.
    Due(E),
    /// The reader knows, or is gone.
    Over,
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
        let state = State { entries: VecDeque::new(), items: 0, bytes: 0, end: End::Open, reader: None, writer: None };
        Self { limits, state: Mutex::new(state) }
    }

    /// Adds an item of so many bytes, or applies the policy.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Pushed {
        let mut state = self.lock();
        if !matches!(state.end, End::Open) {
            return Pushed::Closed;
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
                return Pushed::Dropped;
            }
            Overflow::Fail if state.has_no_room(bytes, self.limits) => return Pushed::Overflowed,
            Overflow::DropNewest | Overflow::Fail | Overflow::Block => {}
        }
        state.entries.push_back(Entry::Item { item, bytes });
        state.items += 1;
        state.bytes += bytes;
        let full = self.limits.overflow == Overflow::Block && state.has_no_room(0, self.limits);
        wake(state, |state| state.reader.take());
        if full { Pushed::Full } else { Pushed::Kept { dropped } }
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
            state.end = End::Due(end);
            wake(state, |state| state.reader.take());
        }
    }

    /// The reader goes: drops what is held, and everything from now on. Returns how many items those were.
    pub(crate) fn close(&self) -> usize {
        let mut state = self.lock();
        state.end = End::Over;
        let entries = std::mem::take(&mut state.entries);
        let items = std::mem::take(&mut state.items);
        state.bytes = 0;
        wake(state, |state| state.writer.take());
        drop(entries);
        items
    }

    /// The next thing for the reader; `None` once the end was read.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Option<Read<T, E>>> {
        let mut state = self.lock();
        match state.entries.pop_front() {
            Some(Entry::Item { item, bytes }) => {
                state.items -= 1;
                state.bytes -= bytes;
                if !state.has_no_room(0, self.limits) {
                    wake(state, |state| state.writer.take());
                }
                Poll::Ready(Some(Read::Item(item)))
            }
            Some(Entry::Gap(gap)) => Poll::Ready(Some(Read::Gap(gap))),
            None => match std::mem::replace(&mut state.end, End::Over) {
                End::Open => {
                    state.end = End::Open;
                    let old = replace_waker(&mut state.reader, cx);
                    drop(state);
                    drop(old);
                    Poll::Pending
                }
                End::Due(end) => Poll::Ready(Some(Read::End(end))),
                End::Over => Poll::Ready(None),
            },
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
    fn has_no_room(&self, bytes: usize, limits: Limits) -> bool {
        self.items > 0 && (self.items >= limits.items.get() || self.bytes + bytes > limits.bytes.get())
    }

    fn push_gap(&mut self, gap: Gap) {
        if let Some(Entry::Gap(last)) = self.entries.back_mut() {
            last.merge(gap);
        } else {
            self.entries.push_back(Entry::Gap(gap));
        }
    }

    /// Drops the first item and leaves a gap in its place, merged with those on either side.
    fn drop_oldest(&mut self) {
        let mut gap = self.pop_gap().unwrap_or_default();
        if let Some(Entry::Item { bytes, .. }) = self.entries.pop_front() {
            self.items -= 1;
            self.bytes -= bytes;
            gap.dropped += 1;
        }
        if let Some(next) = self.pop_gap() {
            gap.merge(next);
        }
        self.entries.push_front(Entry::Gap(gap));
    }

    fn pop_gap(&mut self) -> Option<Gap> {
        match self.entries.pop_front()? {
            Entry::Gap(gap) => Some(gap),
            item @ Entry::Item { .. } => {
                self.entries.push_front(item);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mailbox(items: usize, bytes: usize, overflow: Overflow) -> Mailbox<u64, &'static str> {
        let limit = |n| NonZeroUsize::new(n).unwrap();
        Mailbox::new(Limits { items: limit(items), bytes: limit(bytes), overflow })
    }

    fn read(mailbox: &Mailbox<u64, &'static str>) -> Option<String> {
        match mailbox.poll_read(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Read::Item(item))) => Some(item.to_string()),
            Poll::Ready(Some(Read::Gap(gap))) => Some(format!("gap {}r {}d", gap.reconnects, gap.dropped)),
            Poll::Ready(Some(Read::End(end))) => Some(end.to_owned()),
            Poll::Ready(None) => Some("over".into()),
            Poll::Pending => None,
        }
    }

    fn read_all(mailbox: &Mailbox<u64, &'static str>) -> Vec<String> {
        std::iter::from_fn(|| read(mailbox).filter(|text| text != "over")).collect()
    }

    fn reconnect() -> Gap {
        Gap { reconnects: 1, cause: Some(Disconnect::Requested), ..Gap::default() }
    }

    #[test]
    fn drop_oldest_leaves_a_gap_before_what_is_kept() {
        let mailbox = mailbox(2, 100, Overflow::DropOldest);
        for item in 1..=5 {
            mailbox.push(item, 1);
        }
        assert_eq!(read_all(&mailbox), ["gap 0r 3d", "4", "5"]);
    }

    #[test]
    fn drop_newest_leaves_a_gap_after_what_is_kept() {
        let mailbox = mailbox(2, 100, Overflow::DropNewest);
        assert_eq!((1..=4).map(|n| mailbox.push(n, 1)).filter(|p| *p == Pushed::Dropped).count(), 2);
        assert_eq!(read(&mailbox).unwrap(), "1");
        mailbox.push(5, 1);
        assert_eq!(read_all(&mailbox), ["2", "gap 0r 2d", "5"]);
    }

    #[test]
    fn latest_keeps_the_newest_whatever_the_capacity() {
        let mailbox = mailbox(100, 100, Overflow::Latest);
        for item in 1..=3 {
            mailbox.push(item, 1);
        }
        assert_eq!(read_all(&mailbox), ["gap 0r 2d", "3"]);
        mailbox.push(4, 1);
        assert_eq!(read_all(&mailbox), ["4"]);
    }

    #[test]
    fn fail_refuses_the_item_and_keeps_what_is_held() {
        let mailbox = mailbox(1, 100, Overflow::Fail);
        assert_eq!(mailbox.push(1, 1), Pushed::Kept { dropped: 0 });
        assert_eq!(mailbox.push(2, 1), Pushed::Overflowed);
        mailbox.finish("overflow");
        assert_eq!(read_all(&mailbox), ["1", "overflow"]);
    }

    #[test]
    fn block_keeps_everything_and_says_when_to_pause_and_go_on() {
        let mailbox = mailbox(2, 100, Overflow::Block);
        let cx = &mut Context::from_waker(Waker::noop());
        assert_eq!(mailbox.push(1, 1), Pushed::Kept { dropped: 0 });
        assert!(mailbox.poll_room(cx).is_ready());
        assert_eq!(mailbox.push(2, 1), Pushed::Full);
        assert!(mailbox.poll_room(cx).is_pending());
        assert_eq!(read(&mailbox).unwrap(), "1");
        assert!(mailbox.poll_room(cx).is_ready());
        assert_eq!(mailbox.push(3, 1), Pushed::Full);
        assert_eq!(mailbox.close(), 2);
        assert!(mailbox.poll_room(cx).is_ready(), "a reader that is gone blocks nobody");
    }

    #[test]
    fn bytes_are_bounded_and_one_item_always_fits() {
        let mailbox = mailbox(100, 10, Overflow::DropOldest);
        assert_eq!(mailbox.push(1, 50), Pushed::Kept { dropped: 0 });
        assert_eq!(mailbox.push(2, 6), Pushed::Kept { dropped: 1 });
        assert_eq!(mailbox.push(3, 4), Pushed::Kept { dropped: 0 });
        assert_eq!(mailbox.push(4, 1), Pushed::Kept { dropped: 1 });
        assert_eq!(read_all(&mailbox), ["gap 0r 2d", "3", "4"]);
    }

    #[test]
    fn neighbouring_gaps_merge_and_keep_their_place() {
        let mailbox = mailbox(2, 100, Overflow::DropOldest);
        mailbox.push_gap(reconnect());
        mailbox.push_gap(reconnect());
        mailbox.push(1, 1);
        mailbox.push_gap(reconnect());
        mailbox.push(2, 1);
        mailbox.push(3, 1);
        assert_eq!(read_all(&mailbox), ["gap 3r 1d", "2", "3"]);
    }

    #[test]
    fn the_first_end_counts_and_comes_after_what_is_held() {
        let mailbox = mailbox(2, 100, Overflow::DropOldest);
        mailbox.push(1, 1);
        mailbox.finish("first");
        mailbox.finish("second");
        assert_eq!(mailbox.push(2, 1), Pushed::Closed);
        mailbox.push_gap(reconnect());
        assert_eq!(read_all(&mailbox), ["1", "first"]);
        assert_eq!(read(&mailbox).unwrap(), "over");
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push(usize),
        Gap,
        Read,
    }

    proptest! {
        /// I4: every item is read or counted, in a gap that lies between its neighbours. I5: no reconnect is lost.
        #[test]
        fn i4_every_item_is_read_in_order_or_counted_at_its_place(
            overflow in prop::sample::select(vec![Overflow::DropOldest, Overflow::DropNewest, Overflow::Latest]),
            items in 1..4_usize,
            steps in prop::collection::vec(prop_oneof![
                4 => (1..5_usize).prop_map(Step::Push),
                1 => Just(Step::Gap),
                2 => Just(Step::Read),
            ], 0..60),
        ) {
            let mailbox = mailbox(items, 9, overflow);
            let (mut pushed, mut seen, mut reconnects, mut gaps) = (0, 0, 0, 0);
            let mut check = |read: Read<u64, &str>| {
                match read {
                    Read::Item(item) => {
                        seen += 1;
                        prop_assert_eq!(item, seen);
                    }
                    Read::Gap(gap) => {
                        seen += gap.dropped;
                        gaps += gap.reconnects;
                    }
                    Read::End(_) => prop_assert!(false, "no end was set"),
                }
                Ok(())
            };
            let cx = &mut Context::from_waker(Waker::noop());
            for step in steps {
                match step {
                    Step::Push(bytes) => {
                        pushed += 1;
                        mailbox.push(pushed, bytes);
                    }
                    Step::Gap => {
                        reconnects += 1;
                        mailbox.push_gap(reconnect());
                    }
                    Step::Read => {
                        if let Poll::Ready(Some(read)) = mailbox.poll_read(cx) {
                            check(read)?;
                        }
                    }
                }
                let state = mailbox.lock();
                prop_assert!(state.items <= items && (state.bytes <= 9 || state.items == 1));
                prop_assert!(state.entries.len() <= 2 * state.items + 1);
            }
            while let Poll::Ready(Some(read)) = mailbox.poll_read(cx) {
                check(read)?;
            }
            prop_assert_eq!(seen, pushed);
            prop_assert_eq!(gaps, reconnects);
        }
    }
}
