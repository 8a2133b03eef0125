//! Tests of the markers between items, and of merging gaps.

use super::*;

#[test]
fn one_stale_marker_between_two_items_has_the_longest_idle_time() {
    let mailbox = mailbox(4, 100, Overflow::DropOldest);
    let seconds = Duration::from_secs;
    mailbox.push_stale(seconds(1));
    push(&mailbox, 1, 1);
    mailbox.push_stale(seconds(5));
    mailbox.push_gap(reconnect());
    mailbox.push_stale(seconds(7));
    mailbox.push_gap(reconnect());
    mailbox.push_stale(seconds(3));
    push(&mailbox, 2, 1);
    mailbox.push_stale(seconds(2));
    assert_eq!(read_all(&mailbox), ["stale 1s", "1", "stale 7s", "gap 2r 0d", "2", "stale 2s"]);
}

#[test]
fn a_marker_wakes_the_reader_and_none_is_added_after_the_end() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let (mailbox, count) =
        (mailbox(4, 100, Overflow::DropOldest), std::sync::Arc::new(Count(0.into())));
    let waker = Waker::from(count.clone());
    let read = || mailbox.poll_read(&mut Batch::new(), &mut Context::from_waker(&waker));
    assert!(read().is_pending());
    mailbox.push_stale(Duration::from_secs(1));
    assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert!(matches!(read(), Poll::Ready(Some(Read::Stale(_)))));
    assert!(read().is_pending());
    let (_, woken, _) = mailbox.push_instead(None, 1, 1);
    assert!(woken.is_some_and(|woken| woken.will_wake(&waker)));
    assert!(matches!(read(), Poll::Ready(Some(Read::Item(1)))));
    mailbox.finish("end", || {});
    mailbox.push_stale(Duration::from_secs(1));
    assert!(matches!(read(), Poll::Ready(Some(Read::End("end")))));
    assert!(matches!(read(), Poll::Ready(None)));
}

#[test]
fn a_merged_gap_is_resumed_if_every_part_was_and_has_the_latest_errors() {
    let sent = |resumed, message: &str| {
        let message = message.to_owned();
        let errors = if message.is_empty() {
            vec![]
        } else {
            vec![GraphQlError { message, ..GraphQlError::default() }]
        };
        Gap { restarts: 1, resumed, errors, ..Gap::default() }
    };
    let dropped = Gap { dropped: 1, ..Gap::default() };
    for (gaps, resumed, message) in [
        (vec![sent(true, "a"), sent(true, "")], true, "a"),
        (vec![sent(true, "a"), sent(false, "b")], false, "b"),
        (vec![sent(false, ""), sent(true, "b")], false, "b"),
        (vec![sent(true, "a"), dropped.clone()], true, "a"),
        (vec![dropped.clone(), sent(true, "b")], true, "b"),
        (vec![dropped.clone(), sent(false, "b"), dropped], false, "b"),
    ] {
        let restarts = gaps.iter().map(|gap| gap.restarts).sum::<u32>();
        let merged = gaps.into_iter().reduce(|mut gap, later| {
            gap.merge(later);
            gap
        });
        let merged = merged.unwrap();
        assert_eq!(
            (merged.resumed, merged.restarts, &*merged.errors[0].message),
            (resumed, restarts, message)
        );
        assert_eq!(merged.is_lossless(), resumed && merged.dropped == 0);
    }
}

#[test]
fn a_merged_gap_has_the_sums_and_the_latest_cause() {
    let gap = |seconds, cause| Gap {
        reconnects: 1,
        dropped: 2,
        down_for: Duration::from_secs(seconds),
        cause,
        ..Gap::default()
    };
    let mut merged = gap(1, Some(Disconnect::Reset(None)));
    merged.merge(gap(2, Some(Disconnect::Silent(Duration::ZERO))));
    merged.merge(gap(3, None));
    assert_eq!(
        (merged.reconnects, merged.dropped, merged.down_for),
        (3, 6, Duration::from_secs(6))
    );
    assert!(matches!(merged.cause, Some(Disconnect::Silent(_))));
}
