//! The numbers of a subscription's items (`sequence_by`). They show what the server has left out,
//! and what it repeats. No I/O and no clock.

use crate::response::Gap;

/// What is known of the numbers that were read.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The number of the last item.
    last: Option<u64>,
    /// How many items after the last one were counted in gaps already.
    counted: u64,
    /// How many items in a row were taken for repetitions.
    repeated: u64,
    /// The request for what is missing, until its answer begins.
    asked: Option<Asked>,
    /// The server has just been asked, or was sent a request without a position. If the next item
    /// is behind a jump, the server does not have what is missing.
    is_asking_useless: bool,
    /// How many requests in a row have brought nothing.
    in_vain: u32,
    /// How many items must be read before the next request.
    items_until_request: u32,
}

/// A request for missing items. Items are skipped until its answer begins.
#[derive(Debug)]
struct Asked {
    /// How many items were missing in front of the first skipped one.
    missing: u64,
    /// How many items were skipped, because the server will send them again.
    skipped: u64,
}

/// What the number of an item means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// It is the next item.
    Next,
    /// It was read before.
    Repeated,
    /// This many items are missing in front of it.
    Missing(u64),
    /// The numbers have started again from the beginning. This many items before it were taken for
    /// repetitions and left out.
    Restarted(u64),
    /// Items are missing in front of it. Ask the server for them. It will send this item again,
    /// too, so this one is skipped.
    Ask,
}

impl Numbers {
    /// The last item that was read in an earlier life of the stream has this number.
    pub(super) fn start_after(&mut self, number: u64) {
        self.last = Some(number);
    }

    /// An item arrived. `can_ask` says whether the server can be asked for what is missing.
    pub(super) fn check(&mut self, number: u64, can_ask: bool) -> Found {
        let Some(last) = self.last else {
            self.accept(number);
            return Found::Next;
        };
        if number <= last {
            self.repeated += 1;
            if self.repeated <= MAX_REPEATED {
                return Found::Repeated;
            }
            let left_out = self.repeated - 1;
            self.accept(number);
            return Found::Restarted(left_out);
        }
        let missing = (number - last - 1).saturating_sub(self.counted);
        if missing == 0 {
            if self.is_asking_useless {
                self.in_vain = 0;
            }
            self.accept(number);
            return Found::Next;
        }
        if can_ask && self.may_ask() {
            self.asked = Some(Asked { missing, skipped: 1 });
            self.items_until_request = ITEMS_PER_REQUEST;
            return Found::Ask;
        }
        if self.is_asking_useless {
            self.in_vain += 1;
        }
        self.accept(number);
        Found::Missing(missing)
    }

    /// An item arrived. Skips it if the answer to a request has not begun. Returns whether it did.
    pub(super) fn skip(&mut self) -> bool {
        self.asked.as_mut().map(|asked| asked.skipped += 1).is_some()
    }

    /// A gap was read.
    pub(super) fn gap(&mut self, gap: &Gap) {
        self.counted = self.counted.saturating_add(gap.dropped).saturating_add(gap.missing);
        if gap.is_answer {
            self.asked = None;
        }
        if gap.times_sent() > 0 && gap.resumed && !gap.is_answer {
            self.in_vain = 0;
        }
        // A request without a position cannot bring what is missing either.
        self.is_asking_useless |= gap.is_answer || gap.times_sent() > 0 && !gap.resumed;
    }

    /// The stream ends. If it ends before the answer to a request, returns a gap for the missing
    /// and the skipped items.
    pub(super) fn end(&mut self) -> Option<Gap> {
        let Asked { missing, skipped } = self.asked.take()?;
        Some(Gap { missing, dropped: skipped, ..Gap::default() })
    }

    fn may_ask(&self) -> bool {
        !self.is_asking_useless && self.in_vain < MAX_IN_VAIN && self.items_until_request == 0
    }

    fn accept(&mut self, number: u64) {
        self.last = Some(number);
        self.counted = 0;
        self.repeated = 0;
        self.is_asking_useless = false;
        self.items_until_request = self.items_until_request.saturating_sub(1);
    }
}

/// How many items in a row are taken for repetitions. More of them mean that the server counts from
/// the beginning again, as it does when its numbers do not survive its restart.
const MAX_REPEATED: u64 = 1024;

/// After this many requests in a row that brought nothing the server is asked no more, until the
/// operation was sent again for another reason.
const MAX_IN_VAIN: u32 = 3;

/// The server is asked at most once in this many items. A common buffer for a slow client has 32.
const ITEMS_PER_REQUEST: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(last: u64) -> Numbers {
        Numbers { last: Some(last), ..Numbers::default() }
    }

    fn answer() -> Gap {
        Gap { restarts: 1, resumed: true, is_answer: true, ..Gap::default() }
    }

    fn lost(resumed: bool) -> Gap {
        Gap { reconnects: 1, resumed, ..Gap::default() }
    }

    #[test]
    fn a_jump_is_counted_and_a_step_back_is_left_out() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.check(5, false), Found::Next, "the first one may have any number");
        assert_eq!(numbers.check(6, false), Found::Next);
        assert_eq!(numbers.check(9, false), Found::Missing(2));
        assert_eq!([9, 8, 1].map(|n| numbers.check(n, false)), [Found::Repeated; 3]);
        assert_eq!(numbers.check(10, false), Found::Next);
        assert_eq!(numbers.check(u64::MAX, false), Found::Missing(u64::MAX - 11));
        assert_eq!(numbers.check(u64::MAX, false), Found::Repeated);
    }

    #[test]
    fn what_gaps_have_counted_is_not_counted_again() {
        let mut numbers = numbers(1);
        numbers.gap(&Gap { dropped: 2, ..Gap::default() });
        numbers.gap(&Gap { missing: 1, ..Gap::default() });
        assert_eq!(numbers.check(5, true), Found::Next);
        numbers.gap(&Gap { dropped: 2, ..Gap::default() });
        assert_eq!(numbers.check(10, false), Found::Missing(2));
        assert_eq!(numbers.check(12, false), Found::Missing(1));
    }

    #[test]
    fn the_server_is_asked_once_for_each_jump() {
        let mut numbers = numbers(1);
        assert_eq!(numbers.check(4, true), Found::Ask);
        assert!(numbers.skip() && numbers.skip());
        numbers.gap(&lost(true));
        assert!(numbers.skip(), "the request is not answered by a loss before it");
        numbers.gap(&answer());
        assert!(!numbers.skip());
        assert_eq!(
            [1, 2, 3, 4].map(|n| numbers.check(n, true)).map(|it| it == Found::Next),
            [false, true, true, true]
        );
        for n in 5..=40 {
            assert_eq!(numbers.check(n, true), Found::Next);
        }
        assert_eq!(numbers.check(43, true), Found::Ask);
        numbers.gap(&answer());
        assert_eq!(numbers.check(42, true), Found::Missing(1), "it has only some of them");
    }

    #[test]
    fn the_server_is_not_asked_all_the_time() {
        let (mut numbers, mut asked, mut next) = (numbers(0), 0, 0);
        for _ in 0..1_000 {
            next += 2;
            if numbers.check(next, true) == Found::Ask {
                asked += 1;
                numbers.gap(&answer());
                assert_eq!(numbers.check(next - 1, true), Found::Next);
                assert_eq!(numbers.check(next, true), Found::Next);
            }
        }
        assert!((20..=34).contains(&asked), "{asked}");
    }

    #[test]
    fn a_server_that_ignores_the_position_is_asked_three_times_until_the_next_loss() {
        let (mut numbers, mut asked, mut next) = (numbers(0), 0, 0);
        let mut jump = |numbers: &mut Numbers| {
            next += 2;
            if numbers.check(next, true) == Found::Ask {
                asked += 1;
                numbers.gap(&answer());
                assert_eq!(numbers.check(next, true), Found::Missing(1));
            }
            asked
        };
        assert_eq!((0..1_000).map(|_| jump(&mut numbers)).last(), Some(3));
        numbers.gap(&lost(true));
        assert_eq!((0..1_000).map(|_| jump(&mut numbers)).last(), Some(6));
    }

    #[test]
    fn behind_a_gap_without_a_position_nothing_is_asked_for() {
        let mut numbers = numbers(1);
        numbers.gap(&lost(false));
        assert_eq!(numbers.check(5, true), Found::Missing(3));
        assert_eq!(numbers.check(7, true), Found::Ask);
    }

    #[test]
    fn numbers_that_begin_again_are_not_left_out_for_ever() {
        let mut numbers = numbers(1_000_000);
        for n in 1..=MAX_REPEATED {
            assert_eq!(numbers.check(n, true), Found::Repeated, "{n}");
        }
        assert_eq!(numbers.check(MAX_REPEATED + 1, true), Found::Restarted(MAX_REPEATED));
        assert_eq!(numbers.check(MAX_REPEATED + 2, true), Found::Next);
    }

    #[test]
    fn a_request_that_is_never_answered_is_a_loss_in_front_of_the_end() {
        let mut numbers = numbers(1);
        assert_eq!(numbers.check(4, true), Found::Ask);
        assert!(numbers.skip());
        let gap = numbers.end().unwrap();
        assert_eq!((gap.missing, gap.dropped, gap.is_lossless()), (2, 2, false));
        assert!(numbers.end().is_none());
    }
}
