//! The numbers of a subscription's items (`sequence_by`): what the server has left out, and what it
//! repeats. Pure.

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
    /// What the server was asked for again has not arrived yet.
    asked: Option<Asked>,
    /// The server has answered, or has none of what is missing: the next item says what came of it.
    is_answered: bool,
    /// How many requests in a row have brought nothing.
    in_vain: u32,
    /// How many items must be read before the next request.
    until_request: u32,
}

/// A request that the server has not answered yet.
#[derive(Debug)]
struct Asked {
    /// How many items are missing in front of those that are skipped.
    missing: u64,
    /// How many items were skipped, as the server sends them again.
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
    /// The numbers have started again from the beginning. This many items were taken for
    /// repetitions, and left out.
    Restarted(u64),
    /// Items are missing in front of it. Ask the server for them; then it comes again, too.
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
            if self.is_answered {
                self.in_vain = 0;
            }
            self.accept(number);
            return Found::Next;
        }
        if can_ask && self.may_ask() {
            self.asked = Some(Asked { missing, skipped: 1 });
            self.until_request = ITEMS_PER_REQUEST;
            return Found::Ask;
        }
        if self.is_answered {
            self.in_vain += 1;
        }
        self.accept(number);
        Found::Missing(missing)
    }

    /// An item arrived while the server is asked for what is before it. Returns whether to skip it.
    pub(super) fn is_skipped(&mut self) -> bool {
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
        // The request has no position, so the server does not have what is missing either.
        self.is_answered |= gap.is_answer || gap.times_sent() > 0 && !gap.resumed;
    }

    /// The stream ends. Returns the loss if the server has not answered a request.
    pub(super) fn end(&mut self) -> Option<Gap> {
        let Asked { missing, skipped } = self.asked.take()?;
        Some(Gap { missing, dropped: skipped, ..Gap::default() })
    }

    fn may_ask(&self) -> bool {
        !self.is_answered && self.in_vain < MAX_IN_VAIN && self.until_request == 0
    }

    fn accept(&mut self, number: u64) {
        self.last = Some(number);
        self.counted = 0;
        self.repeated = 0;
        self.is_answered = false;
        self.until_request = self.until_request.saturating_sub(1);
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
        assert!(numbers.is_skipped() && numbers.is_skipped());
        numbers.gap(&lost(true));
        assert!(numbers.is_skipped(), "the request is not answered by a loss before it");
        numbers.gap(&answer());
        assert!(!numbers.is_skipped());
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
        assert!(numbers.is_skipped());
        let gap = numbers.end().unwrap();
        assert_eq!((gap.missing, gap.dropped, gap.is_lossless()), (2, 2, false));
        assert!(numbers.end().is_none());
    }
}
