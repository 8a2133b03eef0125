//! The items that a stream with `dedupe_by` or `sequence_by` has received lately, by a digest of
//! their text.
//!
//! The reader removes repetitions by their key or number. It cannot do that for an item that an
//! overflow policy drops before it is read. So a repetition of the same text is left out before it
//! enters the queue: it takes no room there, and the gap does not count it.
//!
//! Only what the reader would leave out may be left out here. So the window moves as that of
//! `dedupe_by` does: an item that comes again keeps its old place.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
};

#[derive(Debug)]
pub(crate) struct Recent {
    /// For each digest, whether the item is from before the last gap and was not repeated since.
    may_repeat: HashMap<u64, bool>,
    /// The digests, from the oldest to the newest.
    order: VecDeque<u64>,
    window: usize,
}

impl Recent {
    /// Knows as many items as the window of `dedupe_by`, within a limit.
    pub(crate) fn new(window: NonZeroUsize) -> Self {
        Self {
            may_repeat: HashMap::new(),
            order: VecDeque::new(),
            window: window.get().min(MAX_WINDOW),
        }
    }

    /// A gap follows: every known item may come again after it.
    pub(crate) fn may_repeat(&mut self) {
        self.may_repeat.values_mut().for_each(|may_repeat| *may_repeat = true);
    }

    /// Whether this is the repetition of an item from before the last gap. An equal item that
    /// arrives once more is a new one.
    pub(crate) fn is_repeated(&mut self, payload: &str) -> bool {
        if self.order.is_empty() || !has_data(payload) {
            return false;
        }
        self.may_repeat.get_mut(&digest(payload)).is_some_and(std::mem::take)
    }

    /// An item was received that the server does not have to send again.
    pub(crate) fn received(&mut self, payload: &str) {
        if !has_data(payload) {
            return;
        }
        let digest = digest(payload);
        if self.may_repeat.insert(digest, false).is_some() {
            return;
        }
        if self.order.len() == self.window
            && let Some(oldest) = self.order.pop_front()
        {
            self.may_repeat.remove(&oldest);
        }
        self.order.push_back(digest);
    }

    /// The server is to send items again that were received.
    pub(crate) fn forget(&mut self) {
        self.may_repeat.clear();
        self.order.clear();
    }
}

/// Items without data are never left out.
fn has_data(payload: &str) -> bool {
    payload.starts_with(r#"{"data":"#) && !payload.starts_with(r#"{"data":null"#)
}

/// Returns a digest of an item's text.
pub(crate) fn digest(payload: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

/// The maximum number of items that are known.
const MAX_WINDOW: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn item(n: u64) -> String {
        format!(r#"{{"data":{n}}}"#)
    }

    /// Whether it is a repetition; if not, it is received.
    fn push(recent: &mut Recent, n: u64) -> bool {
        let is_repeated = recent.is_repeated(&item(n));
        if !is_repeated {
            recent.received(&item(n));
        }
        is_repeated
    }

    #[test]
    fn an_item_is_a_repetition_once_and_only_behind_a_gap() {
        let mut recent = Recent::new(NonZeroUsize::new(4).unwrap());
        assert_eq!([1, 1, 2, 3].map(|n| push(&mut recent, n)), [false; 4]);
        recent.may_repeat();
        assert!(!push(&mut recent, 4), "it is new");
        assert_eq!([1, 2, 3].map(|n| push(&mut recent, n)), [true; 3]);
        assert!(!push(&mut recent, 1), "it was repeated already");
        recent.may_repeat();
        assert!(push(&mut recent, 3), "what was repeated may be repeated again");
    }

    #[test]
    fn an_item_that_has_left_the_window_is_no_repetition() {
        let mut recent = Recent::new(NonZeroUsize::new(2).unwrap());
        assert_eq!([1, 2, 1, 3].map(|n| push(&mut recent, n)), [false; 4]);
        recent.may_repeat();
        assert!(push(&mut recent, 2), "2 and 3 are known, as 1 has kept its old place");
        assert!(!push(&mut recent, 1), "and it takes the place of 2");
        recent.may_repeat();
        assert_eq!([2, 3].map(|n| recent.is_repeated(&item(n))), [false, true]);
    }

    #[test]
    fn an_item_that_was_not_accepted_is_no_repetition_when_it_comes_again() {
        let mut recent = Recent::new(NonZeroUsize::MAX);
        push(&mut recent, 1);
        assert!(!recent.is_repeated(&item(2)), "and it is not received");
        recent.may_repeat();
        assert!(push(&mut recent, 1) && !push(&mut recent, 2));
        recent.may_repeat();
        recent.forget();
        assert!(!push(&mut recent, 2), "it was asked for again");
    }

    #[test]
    fn an_item_without_data_is_never_a_repetition() {
        let mut recent = Recent::new(NonZeroUsize::MAX);
        for item in [r#"{"data":null}"#, r#"{"errors":[{"message":"m"}]}"#] {
            recent.received(item);
            recent.may_repeat();
            assert!(!recent.is_repeated(item), "{item}");
        }
    }

    #[test]
    fn of_a_long_stream_a_bounded_number_of_items_is_known() {
        let mut recent = Recent::new(NonZeroUsize::MAX);
        for _ in 0..10 {
            for n in 0..10_000 {
                push(&mut recent, n);
            }
            recent.may_repeat();
        }
        assert_eq!((recent.may_repeat.len(), recent.order.len()), (MAX_WINDOW, MAX_WINDOW));
    }
}
