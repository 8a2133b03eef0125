//! The items that a stream with `dedupe_by` or `sequence_by` has received lately, by a digest of
//! their text.
//!
//! The reader removes repetitions by their key or number. It cannot do that for what an overflow
//! policy drops before it is read. So a repetition in the same words is left out before it enters
//! the queue: it takes no room there, and the gap does not count it.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
};

#[derive(Debug)]
pub(crate) struct Recent {
    digests: VecDeque<u64>,
    /// The digests of items from before the last gap that were not repeated since.
    repeatable: Vec<u64>,
    window: usize,
}

impl Recent {
    /// Knows as many items as the window of `dedupe_by`, within a limit.
    pub(crate) fn new(window: NonZeroUsize) -> Self {
        Self {
            digests: VecDeque::new(),
            repeatable: Vec::new(),
            window: window.get().min(MAX_WINDOW),
        }
    }

    /// Items from before this point may come again.
    pub(crate) fn may_repeat(&mut self) {
        self.repeatable.extend(self.digests.drain(..));
        let excess = self.repeatable.len().saturating_sub(self.window);
        self.repeatable.drain(..excess);
    }

    /// Whether this is the repetition of an item from before the last gap. An equal item that
    /// arrives once more is a new one.
    pub(crate) fn is_repeated(&mut self, payload: &str) -> bool {
        if self.repeatable.is_empty() || !has_data(payload) {
            return false;
        }
        let digest = digest(payload);
        let at = self.repeatable.iter().position(|known| *known == digest);
        let is_repeated = at.map(|at| self.repeatable.remove(at)).is_some();
        if is_repeated {
            self.push(digest);
        }
        is_repeated
    }

    /// An item was received that the server does not have to send again.
    pub(crate) fn received(&mut self, payload: &str) {
        if has_data(payload) {
            self.push(digest(payload));
        }
    }

    /// The server is to send items again that were received.
    pub(crate) fn forget(&mut self) {
        self.digests.clear();
        self.repeatable.clear();
    }

    fn push(&mut self, digest: u64) {
        if self.digests.len() == self.window {
            self.digests.pop_front();
        }
        self.digests.push_back(digest);
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
        let mut recent = Recent::new(NonZeroUsize::new(3).unwrap());
        assert_eq!([1, 1, 2, 3].map(|n| push(&mut recent, n)), [false; 4]);
        recent.may_repeat();
        assert!(!push(&mut recent, 4), "it is new");
        assert_eq!([1, 2, 3].map(|n| push(&mut recent, n)), [true; 3]);
        assert!(!push(&mut recent, 1), "the first 1 is outside of the window");
        recent.may_repeat();
        assert!(push(&mut recent, 3), "what was repeated may be repeated again");
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
        assert_eq!((recent.repeatable.len(), recent.digests.len()), (MAX_WINDOW, 0));
    }
}
