//! Tests of the mailbox, by example and with random steps.

use proptest::prelude::*;

use super::*;
use crate::error::{Disconnect, GraphQlError};

mod latest_by;
mod markers;
mod reader;

fn mailbox(items: usize, bytes: usize, overflow: Overflow) -> Mailbox<u64, &'static str> {
    let limit = |n| NonZeroUsize::new(n).unwrap();
    Mailbox::new(Limits { items: limit(items), bytes: limit(bytes), overflow })
}

fn push(mailbox: &Mailbox<u64, &'static str>, item: u64, bytes: usize) -> Pushed {
    let (pushed, waker) = mailbox.push(item, bytes);
    waker.into_iter().for_each(Waker::wake);
    pushed
}

fn read(mailbox: &Mailbox<u64, &'static str>) -> Option<String> {
    // The mailboxes of these tests are too small for batches.
    match mailbox.poll_read(&mut Batch::new(), &mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Read::Item(item))) => Some(item.to_string()),
        Poll::Ready(Some(Read::Gap(gap))) => {
            Some(format!("gap {}r {}d", gap.reconnects, gap.dropped))
        }
        Poll::Ready(Some(Read::Stale(idle_for))) => Some(format!("stale {idle_for:?}")),
        Poll::Ready(Some(Read::End(end))) => Some(end.to_owned()),
        Poll::Ready(None) => Some("over".into()),
        Poll::Pending => None,
    }
}

fn read_all(mailbox: &Mailbox<u64, &'static str>) -> Vec<String> {
    std::iter::from_fn(|| read(mailbox).filter(|text| text != "over")).collect()
}

fn reconnect() -> Gap {
    Gap { reconnects: 1, cause: Some(Disconnect::Reset(None)), ..Gap::default() }
}

#[test]
fn drop_oldest_leaves_a_gap_before_the_items_that_are_kept() {
    let mailbox = mailbox(2, 100, Overflow::DropOldest);
    for item in 1..=5 {
        push(&mailbox, item, 1);
    }
    assert_eq!(read_all(&mailbox), ["gap 0r 3d", "4", "5"]);
}

#[test]
fn drop_newest_leaves_a_gap_after_the_items_that_are_kept() {
    let mailbox = mailbox(2, 100, Overflow::DropNewest);
    assert_eq!((1..=4).map(|n| push(&mailbox, n, 1)).filter(|p| *p == Pushed::Dropped).count(), 2);
    assert_eq!(read(&mailbox).unwrap(), "1");
    push(&mailbox, 5, 1);
    assert_eq!(read_all(&mailbox), ["2", "gap 0r 2d", "5"]);
}

#[test]
fn latest_keeps_only_the_newest_item_even_if_there_is_room() {
    let mailbox = mailbox(100, 100, Overflow::Latest);
    for item in 1..=3 {
        push(&mailbox, item, 1);
    }
    assert_eq!(read_all(&mailbox), ["gap 0r 2d", "3"]);
    push(&mailbox, 4, 1);
    assert_eq!(read_all(&mailbox), ["4"]);
}

#[test]
fn fail_refuses_the_item_and_keeps_the_queue() {
    let mailbox = mailbox(1, 100, Overflow::Fail);
    assert_eq!(push(&mailbox, 1, 1), Pushed::Kept { dropped: 0 });
    assert_eq!(push(&mailbox, 2, 1), Pushed::Overflowed);
    mailbox.finish("overflow", || {});
    assert_eq!(read_all(&mailbox), ["1", "overflow"]);
}

#[test]
fn block_keeps_every_item_and_pauses_the_writer_while_the_queue_is_full() {
    let mailbox = mailbox(2, 100, Overflow::Block);
    assert_eq!(push(&mailbox, 1, 1), Pushed::Kept { dropped: 0 });
    assert!(mailbox.has_room());
    assert_eq!(push(&mailbox, 2, 1), Pushed::Full);
    assert!(!mailbox.has_room());
    assert_eq!(read(&mailbox).unwrap(), "1");
    assert!(mailbox.has_room());
    assert_eq!(push(&mailbox, 3, 1), Pushed::Full);
    assert_eq!(mailbox.close(&mut Batch::new()).unread, 2);
    assert!(mailbox.has_room(), "a dropped reader does not block the writer");
}

#[test]
fn bytes_are_limited_but_a_single_item_always_fits() {
    let mailbox = mailbox(7, 10, Overflow::DropOldest);
    assert_eq!(push(&mailbox, 1, 50), Pushed::Kept { dropped: 0 });
    assert_eq!(push(&mailbox, 2, 6), Pushed::Kept { dropped: 1 });
    assert_eq!(push(&mailbox, 3, 4), Pushed::Kept { dropped: 0 });
    assert_eq!(push(&mailbox, 4, 1), Pushed::Kept { dropped: 1 });
    assert_eq!(read_all(&mailbox), ["gap 0r 2d", "3", "4"]);
}

#[test]
fn adjacent_gaps_merge_and_keep_their_place() {
    let mailbox = mailbox(2, 100, Overflow::DropOldest);
    mailbox.push_gap(reconnect());
    mailbox.push_gap(reconnect());
    push(&mailbox, 1, 1);
    mailbox.push_gap(reconnect());
    push(&mailbox, 2, 1);
    push(&mailbox, 3, 1);
    assert_eq!(read_all(&mailbox), ["gap 3r 1d", "2", "3"]);
}

#[test]
fn the_first_end_counts_and_is_read_after_the_items_in_the_queue() {
    let mailbox = mailbox(2, 100, Overflow::DropOldest);
    push(&mailbox, 1, 1);
    mailbox.finish("first", || {});
    mailbox.finish("second", || {});
    assert_eq!(push(&mailbox, 2, 1), Pushed::Closed);
    mailbox.push_gap(reconnect());
    assert_eq!(read_all(&mailbox), ["1", "first"]);
    assert_eq!(read(&mailbox).unwrap(), "over");
}

#[test]
fn items_in_the_batch_of_the_reader_no_longer_count() {
    let (mailbox, mut batch) = (mailbox(16, 100, Overflow::Block), Batch::new());
    let cx = &mut Context::from_waker(Waker::noop());
    for item in 1..16 {
        assert_eq!(push(&mailbox, item, 1), Pushed::Kept { dropped: 0 });
    }
    assert_eq!(push(&mailbox, 16, 1), Pushed::Full);
    let mut read = |batch: &mut _| {
        assert!(matches!(mailbox.poll_read(batch, cx), Poll::Ready(Some(Read::Item(_)))));
    };
    read(&mut batch);
    assert_eq!((mailbox.lock().items, batch.entries.len()), (13, 2));
    read(&mut batch);
    read(&mut batch);
    assert_eq!((mailbox.lock().items, batch.entries.len()), (13, 0));
    read(&mut batch);
    assert_eq!((mailbox.lock().items, batch.entries.len()), (10, 2));
    assert_eq!(mailbox.close(&mut batch).unread, 12);
    assert!(batch.entries.is_empty());
}

#[test]
fn a_batch_has_at_most_32_items_and_an_eighth_of_the_bytes() {
    let cx = &mut Context::from_waker(Waker::noop());
    for (bytes, expected) in [(1_000_000, 32), (8_000, 10)] {
        let (mailbox, mut batch) = (mailbox(1_000, bytes, Overflow::DropOldest), Batch::new());
        for item in 0..60 {
            push(&mailbox, item, 100);
        }
        assert!(mailbox.poll_read(&mut batch, cx).is_ready());
        assert_eq!(batch.entries.len(), expected);
    }
}

#[test]
fn every_policy_counts_bytes() {
    let newest = mailbox(7, 10, Overflow::DropNewest);
    assert_eq!(
        [push(&newest, 1, 6), push(&newest, 2, 6)],
        [Pushed::Kept { dropped: 0 }, Pushed::Dropped]
    );
    let fail = mailbox(7, 10, Overflow::Fail);
    assert_eq!(
        [push(&fail, 1, 6), push(&fail, 2, 6)],
        [Pushed::Kept { dropped: 0 }, Pushed::Overflowed]
    );
    let block = mailbox(7, 10, Overflow::Block);
    assert_eq!(
        [push(&block, 1, 6), push(&block, 2, 6)],
        [Pushed::Kept { dropped: 0 }, Pushed::Full]
    );
}

#[test]
fn a_writer_that_waits_is_released_once() {
    for (overflow, released) in [(Overflow::Block, [1, 0, 0]), (Overflow::Rewind, [0, 0, 1])] {
        let (mailbox, mut batch) = (mailbox(2, 100, overflow), Batch::new());
        for item in 1..=3 {
            let pushed = push(&mailbox, item, 1);
            let expected = match (overflow, item) {
                (Overflow::Block, 2..) => Pushed::Full,
                (Overflow::Rewind, 3) => Pushed::Rewind,
                _ => Pushed::Kept { dropped: 0 },
            };
            assert_eq!(pushed, expected);
            if overflow == Overflow::Block && item == 2 {
                break;
            }
        }
        let read = |batch: &mut Batch<u64>| {
            let _ = mailbox.poll_read(batch, &mut Context::from_waker(Waker::noop()));
            u32::from(std::mem::take(&mut batch.released))
        };
        assert_eq!(
            [read(&mut batch), read(&mut batch), read(&mut batch)],
            released,
            "{overflow:?}"
        );
        assert_eq!(read(&mut batch), 0);
    }
}

#[test]
fn items_that_were_read_no_longer_count() {
    let (mailbox, mut batch) = (mailbox(8, 100, Overflow::Fail), Batch::new());
    let cx = &mut Context::from_waker(Waker::noop());
    push(&mailbox, 1, 1);
    push(&mailbox, 2, 1);
    for _ in 0..2 {
        assert!(matches!(mailbox.poll_read(&mut batch, cx), Poll::Ready(Some(Read::Item(_)))));
    }
    for item in 3..=10 {
        assert_eq!(push(&mailbox, item, 1), Pushed::Kept { dropped: 0 }, "{item}");
    }
}

#[test]
fn bytes_are_limited_regardless_of_the_batch() {
    let (mailbox, mut batch) = (mailbox(800, 8_000, Overflow::DropOldest), Batch::new());
    let cx = &mut Context::from_waker(Waker::noop());
    push(&mailbox, 1, 100);
    push(&mailbox, 2, 7_900);
    assert!(matches!(mailbox.poll_read(&mut batch, cx), Poll::Ready(Some(Read::Item(_)))));
    push(&mailbox, 3, 7_900);
    assert!(mailbox.lock().bytes <= 8_000, "{} bytes", mailbox.lock().bytes);
}

#[test]
fn block_has_room_again_as_soon_as_an_item_was_read() {
    let (mailbox, mut batch) = (mailbox(16, 100, Overflow::Block), Batch::new());
    let cx = &mut Context::from_waker(Waker::noop());
    for item in 1..=16 {
        push(&mailbox, item, 1);
    }
    for item in 17..33 {
        assert!(matches!(mailbox.poll_read(&mut batch, cx), Poll::Ready(Some(Read::Item(_)))));
        assert!(mailbox.has_room(), "before {item}");
        push(&mailbox, item, 1);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(usize),
    Gap,
    Stale,
    Read,
}

proptest! {
    /// I4: every item is read, or a gap between its neighbours counts it. I5: no reconnect is lost.
    #[test]
    fn i4_every_item_is_read_in_order_or_counted_at_its_place(
        overflow in prop::sample::select(
            vec![Overflow::DropOldest, Overflow::DropNewest, Overflow::Latest],
        ),
        items in prop_oneof![1..4_usize, 8..40_usize],
        steps in prop::collection::vec(prop_oneof![
            5 => (1..5_usize).prop_map(Step::Push),
            1 => (5..200_usize).prop_map(Step::Push),
            1 => Just(Step::Gap),
            1 => Just(Step::Stale),
            2 => Just(Step::Read),
        ], 0..200),
    ) {
        let (mailbox, mut batch) = (mailbox(items, items * 4, overflow), Batch::new());
        let (mut pushed, mut seen, mut reconnects, mut gaps, mut stale) = (0, 0, 0, 0, 0);
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
                Read::Stale(_) => stale += 1,
                Read::End(_) => prop_assert!(false, "no end was set"),
            }
            Ok(())
        };
        let cx = &mut Context::from_waker(Waker::noop());
        for step in steps {
            match step {
                Step::Push(bytes) => {
                    pushed += 1;
                    push(&mailbox, pushed, bytes);
                }
                Step::Gap => {
                    reconnects += 1;
                    mailbox.push_gap(reconnect());
                }
                Step::Stale => mailbox.push_stale(Duration::from_secs(1)),
                Step::Read => {
                    if let Poll::Ready(Some(read)) = mailbox.poll_read(&mut batch, cx) {
                        check(read)?;
                    }
                }
            }
            let state = mailbox.lock();
            let entries = state.rest.len() + usize::from(state.first.is_some());
            let is_item = |entry: &&Entry<_>| matches!(entry, Entry::Item { .. });
            let queued = state.first.iter().chain(&state.rest).filter(is_item).count();
            prop_assert!(state.items <= items && (state.bytes <= items * 4 || queued <= 1));
            prop_assert!(entries <= 4 * state.items + 3 && batch.entries.len() <= items / 8);
            prop_assert!(state.first.is_some() || state.rest.is_empty());
        }
        while let Poll::Ready(Some(read)) = mailbox.poll_read(&mut batch, cx) {
            check(read)?;
        }
        prop_assert_eq!(seen, pushed);
        prop_assert_eq!(gaps, reconnects);
        let state = mailbox.lock();
        prop_assert_eq!((state.items, state.bytes), (0, 0));
    }
}

proptest! {
    /// I4 under `Rewind`: a writer that continues after the last item that was kept loses nothing,
    /// and is released once.
    #[test]
    fn i4_a_writer_that_rewinds_loses_nothing_and_is_released_when_the_queue_is_empty(
        items in prop_oneof![1..4_usize, 8..40_usize],
        steps in prop::collection::vec(prop_oneof![
            5 => (1..5_usize).prop_map(Step::Push),
            1 => (5..200_usize).prop_map(Step::Push),
            1 => Just(Step::Gap),
            1 => Just(Step::Stale),
            3 => Just(Step::Read),
        ], 0..200),
    ) {
        let (mailbox, mut batch) = (mailbox(items, items * 4, Overflow::Rewind), Batch::new());
        let (mut kept, mut seen, mut gaps, mut rewound) = (0, 0, 0, false);
        let cx = &mut Context::from_waker(Waker::noop());
        for step in steps.into_iter().chain(std::iter::repeat_n(Step::Read, 300)) {
            match step {
                // The operation was completed, so the server sends nothing.
                Step::Push(_) if rewound => {}
                Step::Push(bytes) => match push(&mailbox, kept + 1, bytes) {
                    Pushed::Rewind => rewound = true,
                    pushed => {
                        prop_assert_eq!(pushed, Pushed::Kept { dropped: 0 });
                        kept += 1;
                    }
                },
                Step::Gap => {
                    gaps += 1;
                    mailbox.push_gap(reconnect());
                }
                Step::Stale => mailbox.push_stale(Duration::from_secs(1)),
                Step::Read => {
                    let read = mailbox.poll_read(&mut batch, cx);
                    let released = std::mem::take(&mut batch.released);
                    let is_empty = read.is_pending();
                    prop_assert_eq!(released, rewound && is_empty, "once, when all was read");
                    rewound &= !released;
                    match read {
                        Poll::Ready(Some(Read::Item(item))) => {
                            seen += 1;
                            prop_assert_eq!(item, seen);
                        }
                        Poll::Ready(Some(Read::Gap(gap))) => {
                            prop_assert_eq!(gap.dropped, 0);
                            gaps -= gap.reconnects;
                        }
                        Poll::Ready(Some(Read::Stale(_))) | Poll::Pending => {}
                        Poll::Ready(Some(Read::End(_)) | None) => {
                            prop_assert!(false, "no end was set");
                        }
                    }
                }
            }
            let state = mailbox.lock();
            prop_assert!(state.items <= items && (state.bytes <= items * 4 || state.items == 1));
        }
        prop_assert_eq!((seen, gaps, rewound), (kept, 0, false));
    }
}
