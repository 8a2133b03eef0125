//! Tests of the reader's operations besides reading.

use super::*;

#[test]
fn an_operation_is_established_until_the_reader_asks_again() {
    let mailbox = mailbox(2, 100, Overflow::DropOldest);
    let cx = Context::from_waker(Waker::noop());
    assert!(mailbox.poll_established(&cx).is_pending());
    push(&mailbox, 1, 1);
    mailbox.establish();
    assert_eq!(mailbox.poll_established(&cx), Poll::Ready(None));
    mailbox.forget_established();
    assert!(mailbox.poll_established(&cx).is_pending() && mailbox.poll_over(&cx).is_pending());
    mailbox.finish("end", || {});
    for _ in 0..2 {
        assert_eq!(mailbox.poll_established(&cx), Poll::Ready(Some("end")));
        assert_eq!(mailbox.poll_over(&cx), Poll::Ready(Some("end")));
    }
    assert_eq!(read_all(&mailbox), ["1", "end"]);
}

#[test]
fn an_operation_whose_writer_waits_for_the_reader_is_established() {
    let cx = Context::from_waker(Waker::noop());
    for overflow in [Overflow::Block, Overflow::Rewind] {
        let mailbox = mailbox(1, 100, overflow);
        push(&mailbox, 1, 1);
        push(&mailbox, 2, 1);
        assert_eq!(mailbox.poll_established(&cx), Poll::Ready(None));
        assert_eq!(mailbox.blocks(), overflow == Overflow::Block);
    }
}

/// Otherwise the two would wait for each other, because this reader does not read.
#[test]
fn a_reader_that_waits_for_established_is_woken_when_the_writer_waits_for_it() {
    let cx = Context::from_waker(Waker::noop());
    for (overflow, kept, waits) in
        [(Overflow::Block, 1, Pushed::Full), (Overflow::Rewind, 2, Pushed::Rewind)]
    {
        let mailbox = mailbox(2, 100, overflow);
        for item in 0..kept {
            push(&mailbox, item, 1);
        }
        assert!(mailbox.poll_established(&cx).is_pending());
        let (pushed, reader) = mailbox.push(kept, 1);
        assert!(pushed == waits && reader.is_some(), "{pushed:?}");
        assert_eq!(mailbox.poll_established(&cx), Poll::Ready(None));
    }
}

#[test]
fn discarded_items_become_one_gap_and_make_room() {
    let (mailbox, mut batch) = (mailbox(16, 100, Overflow::Block), Batch::new());
    let cx = &mut Context::from_waker(Waker::noop());
    for item in 1..=16 {
        push(&mailbox, item, 1);
    }
    assert!(matches!(mailbox.poll_read(&mut batch, cx), Poll::Ready(Some(Read::Item(1)))));
    assert_eq!(batch.entries.len(), 2, "the batch has items as well");
    batch.released = false;
    mailbox.push_gap(reconnect());
    for item in 17..=20 {
        push(&mailbox, item, 1);
    }
    assert!(mailbox.blocks());
    assert_eq!(mailbox.discard(&mut batch, 0), 19);
    assert!(batch.released && !mailbox.blocks() && mailbox.has_room());
    assert_eq!(mailbox.discard(&mut batch, 0), 0);
    push(&mailbox, 21, 1);
    let Poll::Ready(Some(Read::Gap(gap))) = mailbox.poll_read(&mut batch, cx) else {
        panic!("no gap")
    };
    assert_eq!((gap.reconnects, gap.dropped), (1, 19));
    assert!(matches!(mailbox.poll_read(&mut batch, cx), Poll::Ready(Some(Read::Item(21)))));
    let state = mailbox.lock();
    assert_eq!((state.items, state.bytes), (0, 0));
}

#[test]
fn a_reader_can_tell_whether_the_next_element_is_an_item_without_reading_it() {
    let (mailbox, mut batch) = (mailbox(16, 100, Overflow::Rewind), Batch::new());
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(mailbox.poll_is_item(&mut batch, cx).is_pending());
    mailbox.push_gap(reconnect());
    for item in 1..=18 {
        push(&mailbox, item, 1);
    }
    assert_eq!(mailbox.poll_is_item(&mut batch, cx), Poll::Ready(false));
    assert!(matches!(mailbox.poll_read(&mut batch, cx), Poll::Ready(Some(Read::Gap(_)))));
    for item in 1..=16 {
        assert_eq!(mailbox.poll_is_item(&mut batch, cx), Poll::Ready(true), "{item}");
        assert!(!batch.released);
        assert!(matches!(mailbox.poll_read(&mut batch, cx), Poll::Ready(Some(Read::Item(_)))));
    }
    assert!(mailbox.poll_is_item(&mut batch, cx).is_pending());
    assert!(batch.released, "the writer waited until all was read");
    mailbox.finish("end", || {});
    assert_eq!(mailbox.poll_is_item(&mut batch, cx), Poll::Ready(false));
}
